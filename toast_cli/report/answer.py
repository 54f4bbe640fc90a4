"""Which plan to take: the best for each number of blocks removed, what its change is worth, how to export it."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from toast_cli.folders import from_here
from toast_cli.report.findings import Finding
from toast_cli.report.paired import interval_of
from toast_cli.report.samples import grouped
from toast_cli.runs.archive import CompleteRun
from toast_cli.runs.rows import Row, Summary
from toast_cli.runs.searched import Found

NO_HEAD = ("knn",)  # probes that are no layer, so that an export goes without them
_Row = TypeVar("_Row", bound=Summary | Found)
_Line = TypeVar("_Line", bound=Summary | Found | Finding)


@dataclass(frozen=True)
class Interval:
    """The 95% paired bootstrap interval of a plan's change in accuracy over the test images."""

    low: float
    high: float

    @property
    def noise(self) -> bool:
        """Whether no change lies in it."""
        return self.low <= 0 <= self.high

    def __str__(self) -> str:
        return f"{self.low:+.3f} … {self.high:+.3f}"


class Measured:
    """A complete run's rows with the intervals that its predictions give."""

    def __init__(self, path: Path) -> None:
        """Read the run in the folder ``path``. Raises ToastError if its files are damaged."""
        run = CompleteRun.read(path)
        self.rows: Sequence[Row] = run.rows
        self._most = max(row.fit_images for row in run.rows)
        self._samples = {self._key(samples[0].row): samples for _, samples in grouped([run])}

    def interval(self, line: Summary | Found) -> Interval | None:
        """That of the plan of a ``line``; None for the untouched model, and if it is not known what the probes predicted."""
        samples = self._samples.get(self._key(line))
        found = interval_of(samples) if samples else None
        return None if found is None else Interval(*found)

    def _key(self, line: Row | Summary | Found) -> tuple[object, ...]:
        """A search fits its maps once, so that its plans do not say on how many images."""
        return line.plan, line.sequential, line.healed, getattr(line, "fit_images", self._most)


def best(lines: Iterable[Summary]) -> list[Summary]:
    """The most accurate plan for each number of blocks removed, the untouched model first; of equals, the smallest.

    Plans of the most fit images are compared, which is what an export takes.
    """
    lines = list(lines)
    most = max((line.fit_images for line in lines), default=0)
    found: dict[float, Summary] = {}
    for line in sorted(lines, key=lambda line: (line.blocks_removed, -line.accuracy_mean, line.gflops)):
        if line.fit_images in (0, most):
            found.setdefault(line.blocks_removed, line)
    return list(found.values())


def answer_of(lines: Sequence[_Row], measured: Measured) -> _Row | None:
    """The plan to take: the one that a search has chosen, else what ``taken`` says; None without any plan."""
    chosen = next((line for line in lines if getattr(line, "chosen", False)), None)
    return chosen or taken(lines, [measured.interval(line) for line in lines])


def taken(lines: Sequence[_Line], intervals: Sequence[Interval | None]) -> _Line | None:
    """The plan with the fewest operations of those that are not measurably worse than the original.

    If there is none, or no interval is known, it is the most accurate plan; None without any plan.
    """
    plans = [(line, interval) for line, interval in zip(lines, intervals, strict=True) if line.plan != "none"]
    held = [line for line, interval in plans if interval is not None and interval.high >= 0]
    if held:
        return min(held, key=lambda line: (line.gflops, -line.accuracy_mean))
    return max((line for line, _ in plans), key=lambda line: (line.accuracy_mean, -line.gflops), default=None)


def export_command(path: Path, plan: str, rows: Sequence[Row]) -> str:
    """What exports ``plan`` of the run in the folder ``path`` from here, in a shell's notation."""
    folder = from_here(path)
    words = ["toast", "export", f"run={folder}" if "=" in folder or folder.startswith("-") else folder, f"plan={plan}"]
    seeds = {row.seed for row in rows}
    words += [f"seed={min(seeds)}"] if seeds and 0 not in seeds else []
    words += ["head=none"] if rows and rows[0].probe in NO_HEAD else []
    return shlex.join(words)
