"""Find and read complete runs on disk."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from toast_cli.errors import ToastError
from toast_cli.runs import predictions
from toast_cli.runs.contents import CONFIG, PREDICTIONS, RECORD, RESULTS
from toast_cli.runs.folder import read_record
from toast_cli.runs.predictions import Predictions
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row


@dataclass(frozen=True)
class CompleteRun:
    """A complete run on disk."""

    path: Path
    config: dict[str, Any]
    record: dict[str, Any]
    rows: list[Row]

    @classmethod
    def read(cls, path: Path) -> "CompleteRun":
        """Read the run in the folder ``path``. Raises ToastError if one of its files is missing or damaged."""
        rows = read_csv(path / RESULTS, Row)
        if not rows:
            raise ToastError(f"{path / RESULTS} has no rows: restore the file, or use fresh=true.")
        return cls(path, _config(path), read_record(path), rows)

    @cached_property
    def stored(self) -> Predictions | None:
        """What its probes predicted; None if that is not stored."""
        path = self.path / PREDICTIONS
        return predictions.read(path) if path.is_file() else None

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


def find(places: Iterable[Path], file: str) -> tuple[list[Path], list[Path]]:
    """The folders at or below ``places`` that hold ``file``: those of complete runs, and the others."""
    records = {
        record.resolve() for place in places for record in [place / RECORD, *place.rglob(RECORD)] if record.is_file()
    }
    found = sorted(record.parent for record in records if (record.parent / file).is_file())
    complete = [path for path in found if read_record(path).get("complete")]
    return complete, [path for path in found if path not in complete]


def settings(path: Path) -> dict[str, Any]:
    """A run's settings by dotted key. Raises ToastError if they cannot be read."""
    return dict(_flat(_config(path), ""))


def _config(path: Path) -> dict[str, Any]:
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(path / CONFIG))
    except (YAMLError, OSError, ValueError) as e:
        raise ToastError(
            f"{path / CONFIG} cannot be read ({type(e).__name__}): restore it, or move its folder away."
        ) from e
    return config


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from _flat(inside, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
