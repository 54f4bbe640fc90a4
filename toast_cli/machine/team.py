"""Several processes of one run, as ``torchrun`` starts them: each takes its share of every batch, and the first keeps the folder.

All processes call the functions that exchange data at the same points and in the same order. torch is imported where data
is exchanged: a process alone can look at a run's folder without it.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from toast_cli.errors import ToastError
from toast_cli.machine.console import duration, say, silenced

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_T = TypeVar("_T")
_Number = TypeVar("_Number", int, float)
_ASSEMBLY = timedelta(minutes=5)  # until all processes are there
_PATIENCE = timedelta(days=7)  # the others wait while the first trains maps; torchrun ends processes that are left over


@dataclass(frozen=True)
class Team:
    """This process is number ``rank`` of ``size``. A single process exchanges nothing.

    Methods that exchange data raise ToastError in the first process if another one has ended.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process keeps the folder, prints and writes."""
        return self.rank == 0

    def ranges(self, start: int, stop: int, size: int) -> list[range]:
        """This process's share of the items from ``start`` to ``stop``, ``size`` at a time; the last range may be empty.

        All processes have the same number of ranges: taken in turn, one from each process, they are all the items in order.
        """
        step = size * self.size
        own = (first + size * self.rank for first in range(start, stop, step))
        return [range(min(first, stop), min(first + size, stop)) for first in own]

    def share(self, value: _T) -> _T:
        """The first process's ``value``."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        with _together():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def unite(self, entries: Mapping[Any, _T]) -> dict[Any, _T]:
        """The entries of all processes."""
        if self.size == 1:
            return dict(entries)
        import torch.distributed as dist

        boxes: list[Any] = [None] * self.size
        with _together():
            dist.all_gather_object(boxes, dict(entries))
        return {key: value for box in boxes for key, value in box.items()}

    def sum(self, number: _Number) -> _Number:
        """The sum of ``number`` over all processes."""
        return sum(self.unite({self.rank: number}).values())

    def add_up(self, sums: _T) -> _T:
        """The dataclass ``sums`` with its ``count`` and each of its tensors summed over all processes.

        Tensors that lie on a GPU of each process's own are added up there, all others on CPUs; they come back where they were.
        """
        if self.size == 1:
            return sums
        import torch.distributed as dist
        from torch import Tensor

        values = {field.name: getattr(sums, field.name) for field in fields(sums)}  # type: ignore[arg-type]
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        own = (values["count"], _gpu_of(tensors.values()))
        counts, gpus = zip(*self.unite({self.rank: own}).values(), strict=True)
        on_gpus = len(set(gpus) - {None}) == self.size  # NCCL refuses two processes on one GPU
        totals: dict[str, Any] = {"count": sum(counts)}
        for name, value in tensors.items():
            total = value.clone() if on_gpus else value.to("cpu", copy=True)
            with _together():
                dist.all_reduce(total)
            totals[name] = total.to(value.device)
        return replace(sums, **totals)  # type: ignore[type-var]

    def gather(self, rows: "np.ndarray", most: int) -> "list[np.ndarray]":
        """The float32 ``rows`` (B, …) of every process, B at most ``most``, in order; an empty list except in the first."""
        if self.size == 1:
            return [rows]
        import torch
        import torch.distributed as dist

        lengths = self.unite({self.rank: len(rows)})
        own = torch.zeros(most, *rows.shape[1:])
        own[: len(rows)] = torch.from_numpy(rows)
        parts = [torch.empty_like(own) for _ in range(self.size)] if self.leads else None
        with _together():
            dist.gather(own, parts, dst=0)
        return [part[: lengths[rank]].numpy() for rank, part in enumerate(parts or ())]


ALONE = Team()


@contextmanager
def _together() -> Iterator[None]:
    """If another process is gone, end this one too: with a sentence if it is the first, else silently."""
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as e:
        if dist.get_rank() != 0:
            raise SystemExit(1) from e
        raise ToastError(
            "Another process of this run has ended, and its own output says why; what is finished is kept, and the same command goes on from there."
        ) from e


def _gpu_of(tensors: "Iterable[Tensor]") -> str | None:
    """A name that only the GPU has on which all ``tensors`` lie; None if there is none, or if NCCL is missing."""
    import torch
    import torch.distributed as dist

    devices = {tensor.device for tensor in tensors}
    if len(devices) != 1 or (device := devices.pop()).type != "cuda" or not dist.is_nccl_available():
        return None
    return str(torch.cuda.get_device_properties(device).uuid)


def _backends() -> str:
    """What data is exchanged by: gloo between CPUs, and NCCL between GPUs if there are any and this torch has it."""
    import torch
    import torch.distributed as dist

    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "cpu:gloo"


def expected() -> int:
    """How many processes were started together, including this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def local_rank() -> int:
    """This process's number on its machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if expected() > 1 else 0


def _assemble() -> None:
    """Wait for the other processes. Raises ToastError if they do not come, as where the environment is left over."""
    import torch.distributed as dist

    if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun itself waits, and ends all if one is missing
        say(f"waiting for {expected() - 1} other processes, since WORLD_SIZE={expected()} is set")
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=_ASSEMBLY))
    except (RuntimeError, ValueError) as e:
        raise ToastError(
            f"WORLD_SIZE={expected()} is set, but the other processes did not come within {duration(_ASSEMBLY.total_seconds())}: unset WORLD_SIZE "
            "and RANK for a run alone, or start the processes with torchrun."
        ) from e
    store.set_timeout(_PATIENCE)
    dist.init_process_group(
        _backends(), store=dist.PrefixStore("toast", store), rank=rank, world_size=size, timeout=_PATIENCE
    )


@contextmanager
def join() -> Iterator[Team]:
    """The team that this process was started in. Once the others have done their share, they end here."""
    if expected() == 1:
        yield ALONE
        return
    import torch.distributed as dist

    _assemble()
    team = Team(dist.get_rank(), dist.get_world_size())
    try:
        with silenced(not team.leads):
            yield team
    finally:
        dist.destroy_process_group()
    if not team.leads:
        _leave()


def _leave() -> None:
    """End this process at once. If it were aborted as Python ends, by a thread of some library, torchrun would end the first too."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
