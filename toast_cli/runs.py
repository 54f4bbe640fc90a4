"""Complete runs as they lie on disk: found, read, and checked whether they may stand in one table."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from toast_cli import predictions
from toast_cli.errors import ToastError
from toast_cli.folders import RECORD, read_record
from toast_cli.predictions import Predictions
from toast_cli.results import read_csv
from toast_cli.rows import Row


@dataclass(frozen=True)
class Run:
    """A complete run as it lies on disk."""

    path: Path
    config: dict[str, Any]
    record: dict[str, Any]
    rows: list[Row]

    @classmethod
    def read(cls, path: Path) -> "Run":
        rows = read_csv(path / "results.csv", Row)
        if not rows:
            raise ToastError(f"{path / 'results.csv'} has no rows: restore the file, or use fresh=true.")
        return cls(path, _config(path), read_record(path), rows)

    @cached_property
    def stored(self) -> Predictions | None:
        """What its probes predicted."""
        path = self.path / predictions.NAME
        return predictions.read(path) if path.is_file() else None

    @property
    def test_set(self) -> str:
        """Hash of its test images' numbers and classes; empty where they are not known."""
        if self.stored is None:
            return ""
        return hashlib.sha256(self.stored.images.tobytes() + self.stored.truth.tobytes()).hexdigest()[:8]

    @property
    def split(self) -> int:
        """Runs with the same number have the same stored test split, in which images have the same numbers."""
        data = self.config["data"]
        return data["seed"] if data.get("one_split") and data.get("splits") == "paper" else -1

    @property
    def translator(self) -> dict[str, Any]:
        """Its settings that no column of the rows tells."""
        return {key: value for key, value in self.config["translator"].items() if key not in ("tokens", "solver")}


def find(places: Iterable[Path], file: str) -> tuple[list[Path], list[Path]]:
    """The folders at or below ``places`` that hold ``file``: those of complete runs, and the others."""
    records = {
        record.resolve() for place in places for record in [place / RECORD, *place.rglob(RECORD)] if record.is_file()
    }
    found = sorted(record.parent for record in records if (record.parent / file).is_file())
    complete = [path for path in found if read_record(path).get("complete")]
    return complete, [path for path in found if path not in complete]


def check_comparable(runs: list[Run]) -> None:
    """The same label means the same weights; the same data and seed mean the same images; probes saw as many of them."""
    for what, label, value in (
        ("weights of model", _model, lambda run: run.record.get("weights")),
        ("number of test images of", _data, lambda run: run.rows[0].test_images),
        ("test images of", _draw, lambda run: run.test_set),
        ("number of train images of", _probe, lambda run: run.rows[0].train_images),
        ("settings of probe", _probe, lambda run: run.config.get("probe")),
    ):
        seen: dict[Any, tuple[Run, Any]] = {}
        for run in runs:
            other, before = seen.setdefault(label(run), (run, value(run)))
            if before != value(run):
                named = label(run) if isinstance(label(run), str) else " ".join(map(str, label(run)))
                raise ToastError(
                    f"{other.path} and {run.path} cannot stand in one table: the {what} {named} differ ({before} and {value(run)}); report "
                    "them apart, or give one of them another label."
                )


def _model(run: Run) -> tuple[str, ...]:
    """Another preprocessing resizes position embeddings in another way, so that weights differ."""
    paper = run.config["model"].get("preprocessing") == "paper"
    return run.rows[0].model, *(["with the paper's preprocessing"] if paper else [])


def _data(run: Run) -> tuple[str, ...]:
    return run.rows[0].data, run.rows[0].protocol


def _draw(run: Run) -> tuple[str, ...]:
    return *_data(run), f"with data.seed={run.rows[0].data_seed}"


def _probe(run: Run) -> tuple[str, ...]:
    return run.rows[0].probe, *_data(run)


def settings(path: Path) -> dict[str, Any]:
    """A run's settings by dotted key."""
    return dict(_flat(_config(path), ""))


def _config(path: Path) -> dict[str, Any]:
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(path / "config.yaml"))
    except (YAMLError, OSError, ValueError) as e:
        raise ToastError(
            f"{path / 'config.yaml'} cannot be read ({type(e).__name__}): restore it, or move its folder away."
        ) from e
    return config


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from _flat(inside, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
