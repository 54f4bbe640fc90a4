"""Work for a thread that goes behind the one that computes: copies that are still under way, and writing to disk."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_MOST = 2  # tasks that wait at a time: so many results are in memory beside the one that is being made

Then = Callable[[Callable[[], None]], None]


@contextmanager
def behind() -> Iterator[Then]:
    """A function that takes tasks, which a thread does one after another in their order.

    What a task raises is raised by a later call, or at the end, by which all tasks are done.
    """
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "behind") as thread:

        def then(task: Callable[[], None]) -> None:
            waiting.append(thread.submit(task))
            if len(waiting) > _MOST:
                waiting.popleft().result()

        yield then
        for each in waiting:
            each.result()


def on_its_way(values: Tensor) -> Callable[[], np.ndarray]:
    """``values`` on the CPU, once the returned function is called, by any thread.

    From a GPU they are sent at once, after the work that it was given before, and only that call waits for them.
    """
    if values.device.type != "cuda":
        return values.cpu().numpy
    there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    there.copy_(values, non_blocking=True)
    sent = torch.cuda.Event(blocking=True)
    sent.record()

    def arrived() -> np.ndarray:
        sent.synchronize()
        return there.numpy()

    return arrived
