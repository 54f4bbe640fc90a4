"""How much room there is: memory that a process may still take, and sizes in words. Imports nothing heavy."""

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_LIBRARIES = 2**29  # numpy and scipy take 250 MB, and 90 MB more for each thread; torch alone needs more than this


def in_words(size: float) -> str:
    """A number of bytes in units of 1000, to two digits or a whole number: 950 B, 36 MB, 1.2 GB."""
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 999.5 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.1f} {unit}" if size < 9.95 and unit != "B" else f"{size:.0f} {unit}"


@dataclass(frozen=True)
class Memory:
    """Bytes of memory, in all and still free, and who sets that bound."""

    total: int
    free: int
    bound: str

    def __str__(self) -> str:
        return f"{in_words(self.free)} of {in_words(self.total)} are free, {self.bound}"


def memory() -> Memory | None:
    """The memory of whatever has the least left: the process, its control group or the machine. None but on Linux."""
    try:
        return min((*_of_process(), *_of_groups(), *_of_machine()), key=lambda each: each.free, default=None)
    except (OSError, ValueError):  # no /proc, or one that is written otherwise
        return None


def address_limit() -> int | None:
    """The bytes of address space that the process may take (``ulimit -v``); None if there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def take_for_products() -> None:
    """Under a limit, let numpy and scipy take now what they need to multiply matrices.

    Their OpenBLAS tries again for ever if it gets no memory, when it is loaded and at its first product. Raises OSError
    if there is too little.
    """
    if address_limit() is None:
        return
    mmap.mmap(-1, _LIBRARIES).close()
    import numpy as np
    from scipy.linalg.blas import dgemm

    square = np.ones((512, 512))  # large enough for all threads
    dgemm(1.0, square, square @ square)


def _of_process() -> Iterator[Memory]:
    if (limit := address_limit()) is not None:
        taken = _table(Path("/proc/self/status"))["VmSize"]
        yield Memory(limit, max(limit - taken, 0), "by the limit of the process, ulimit -v")


def _of_groups() -> Iterator[Memory]:
    """The process's control group and those around it (version 2), where they have a limit."""
    found = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    group = _GROUPS / found[1] if found else _GROUPS
    for place in (group, *group.parents):
        if place.is_relative_to(_GROUPS) and (place / "memory.max").is_file():
            limit, taken = ((place / name).read_text().strip() for name in ("memory.max", "memory.current"))
            if limit != "max":
                cached = re.search(r"^inactive_file (\d+)$", (place / "memory.stat").read_text(), re.MULTILINE)
                free = int(limit) - int(taken) + (int(cached[1]) if cached else 0)  # the cache gives way
                yield Memory(int(limit), max(free, 0), "by the limit of the control group")


def _of_machine() -> Iterator[Memory]:
    table = _table(Path("/proc/meminfo"))
    yield Memory(table["MemTotal"], table["MemAvailable"], "on this machine")


def _table(file: Path) -> dict[str, int]:
    """The sizes in a file of /proc, in bytes."""
    return {name: 1024 * int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", file.read_text(), re.MULTILINE)}
