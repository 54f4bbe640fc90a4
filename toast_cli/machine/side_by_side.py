"""A batch in parts, each computed by a thread of its own.

Threads that share a product wait for one another at its end, and a walk has thousands of products for a batch. Threads that
compute different images never wait, and where another program keeps a core busy only one of them is late. What they compute is the same,
bit for bit unless a part has so few images that a product of their class tokens adds up in another order.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from functools import cache
from threading import Event
from typing import TypeVar

import torch
from torch import Tensor

_Result = TypeVar("_Result")
_MOST = 4  # parts at a time: between products each needs Python, which only one has at a time


class GivenUpError(Exception):
    """Raised by work on a part of a batch when another part has failed."""


def in_parts(work: Callable[[Tensor], _Result], batch: Tensor, given_up: Event | None = None) -> list[_Result]:
    """``work`` on the parts of a batch (N, …) of images that do not depend on one another, by as many threads as torch has.

    On a CPU the parts are computed at the same time, by one thread each where torch has no more than four. Elsewhere there
    is one part, the batch. When a part fails, or the person stops the program, ``given_up`` is set until the others have
    stopped: long work asks for it and raises GivenUpError. What is raised is what the failing part raised.
    """
    given_up = given_up or Event()
    threads = torch.get_num_threads()
    count = max(parts for parts in range(1, _MOST + 1) if threads % parts == 0)
    if batch.device.type != "cpu" or count == 1 or len(batch) < count:
        return [work(batch)]
    pool = _pool(count, threads // count)
    parts = [pool.submit(work, part) for part in batch.tensor_split(count)]
    try:
        for part in as_completed(parts):
            part.result()
    except BaseException:
        given_up.set()
        wait(parts)
        given_up.clear()
        raise
    return [part.result() for part in parts]


@cache
def _pool(count: int, threads: int) -> ThreadPoolExecutor:
    """``count`` threads, for each of which torch uses ``threads``."""
    ready = Event()

    def set_threads() -> None:
        torch.get_num_threads()  # what a thread asks first sets its number to everybody's
        torch.set_num_threads(threads)

    pool = ThreadPoolExecutor(count, "part", set_threads)
    before = torch.get_num_threads()
    # torch keeps the number for each thread, and for threads that begin later: these get the old one again
    waiting = [pool.submit(ready.wait) for _ in range(count)]
    ready.set()
    wait(waiting)
    torch.set_num_threads(before)
    return pool
