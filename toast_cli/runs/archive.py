"""Find and read complete runs on disk."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from toast_cli.errors import ToastError
from toast_cli.plans import Plan
from toast_cli.runs import expected, predictions, projection
from toast_cli.runs.contents import PREDICTIONS, PROJECTION, RECORD, RESULTS, SEGMENTATION
from toast_cli.runs.folder import Folder
from toast_cli.runs.predictions import Predictions
from toast_cli.runs.record import read_record
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row


@dataclass(frozen=True)
class CompleteRun:
    """A complete run on disk. Its table may have been changed since the run wrote it: see ``record.changed``."""

    path: Path
    config: dict[str, Any]
    record: dict[str, Any]
    rows: list[Row]

    @classmethod
    def read(cls, path: Path) -> "CompleteRun":
        """Read the run in the folder ``path``. Raises ToastError if one of its files is missing or damaged."""
        folder = Folder(path)
        rows = read_csv(folder / RESULTS, Row)
        if not rows:
            raise ToastError(f"{path / RESULTS} has no rows: restore the file, or use fresh=true.")
        run = cls(path, folder.settings, folder.record, rows)
        run._check()
        return run

    def _check(self) -> None:
        """Raises ToastError if the files do not belong together."""
        depth = self.record.get("depth")
        groups = [self.config.get(name) for name in ("data", "model", "translator")]
        known = all(isinstance(group, dict) for group in groups) and "seed" in self.config["data"]
        if type(depth) is not int or not known:
            raise ToastError(f"{self.path} does not say what was run: restore its {RECORD}, or move it away.")
        if not all(map(_measured, self.rows)):
            raise ToastError(
                f"{self.path / RESULTS} has numbers that no run measures: restore it, or move its folder away."
            )
        ends = [span.end for text in {row.plan for row in self.rows} for span in Plan.parse(text).spans]
        counts = Counter(row.seed for row in self.rows)
        stored = {} if self.stored is None else self.stored.by_seed
        images = None if self.stored is None else len(self.stored.truth)
        if (
            max(ends, default=0) > depth - 1
            or (stored and any(len(stored.get(seed, ())) != n for seed, n in counts.items()))
            or (images is not None and any(row.test_images != images for row in self.rows))
        ):
            raise ToastError(
                f"The rows of {self.path / RESULTS} are not those of the run's {PREDICTIONS} and {RECORD}: restore the files, or move the "
                "folder away."
            )

    @cached_property
    def stored(self) -> Predictions | None:
        """What its probes predicted; None if that is not stored."""
        return predictions.read(Folder(self.path).checked(PREDICTIONS))

    @cached_property
    def classes(self) -> list[str]:
        """The names of its classes by number; none for a run of a version that did not record them."""
        names = self.record.get("classes", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ToastError(
                f"{self.path / RECORD} does not name the run's classes: restore it, or move its folder away."
            )
        return names

    @cached_property
    def expected(self) -> dict[str, float]:
        """The accuracies that others report for its plans, by plan."""
        try:
            return expected.check(self.record.get("expected"))
        except ToastError as e:
            raise ToastError(
                f"{self.path / RECORD} does not say what others report: restore it, or move its folder away."
            ) from e

    @property
    def projection(self) -> dict[str, Any] | None:
        """Its test images in a plane, see projection.py; None if that is not stored."""
        path = Folder(self.path).checked(PROJECTION)
        found = projection.read(path) if path.is_file() else None
        if found is not None and len(found["points"]) != sum(row.seed == self.rows[0].seed for row in self.rows):
            raise ToastError(f"{path} holds other plans than the rows of {RESULTS}: restore it, or move it away.")
        return found

    @property
    def test_set(self) -> str:
        """Hash of its test images' numbers and classes; empty if they are not known."""
        if self.stored is None:
            return ""
        return hashlib.sha256(self.stored.images.tobytes() + self.stored.truth.tobytes()).hexdigest()[:8]

    @property
    def split(self) -> int:
        """A number that runs share if they have the same stored test split, in which images have the same numbers."""
        data = self.config["data"]
        return data["seed"] if data.get("one_split") and data.get("splits") == "paper" else -1

    @property
    def translator(self) -> dict[str, Any]:
        """The settings of its translator that no column of the rows shows."""
        return {key: value for key, value in self.config["translator"].items() if key not in ("tokens", "solver")}


def _measured(row: Row) -> bool:
    """Whether accuracies are shares of images, and sizes are sizes; a nan is neither."""
    shares, sizes = (row.accuracy, row.accuracy_original), (row.params_ratio, row.gflops_ratio, row.gflops)
    return (
        row.test_images > 0 and all(0 <= share <= 1 for share in shares) and all(0 < size < math.inf for size in sizes)
    )


def find(places: Iterable[Path], file: str) -> tuple[list[Path], list[Path]]:
    """The folders at or below ``places`` that hold ``file``: those of complete runs, and the others."""
    records = {
        record.resolve() for place in places for record in [place / RECORD, *place.rglob(RECORD)] if record.is_file()
    }
    found = sorted(record.parent for record in records if (record.parent / file).is_file())
    complete = [path for path in found if read_record(path).get("complete")]
    return complete, [path for path in found if path not in complete]


def require_accuracies(place: Path) -> None:
    """Raises ToastError for the folder of a run with ``eval=segmentation``, which has none."""
    if (place / SEGMENTATION).is_file():
        raise ToastError(
            f"{place} is a run with eval=segmentation, whose numbers are in its {SEGMENTATION}: give a run of images by class."
        )


def settings(path: Path) -> dict[str, Any]:
    """A run's settings by dotted key. Raises ToastError if they cannot be read."""
    return dict(_flat(Folder(path).settings, ""))


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from _flat(inside, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
