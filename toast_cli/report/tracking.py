"""A complete run goes to a tracker, once: its settings, its tables, the numbers of its plan, and its pictures.

The run's folder stays what counts. A tracker that cannot be reached when the work is done fails no run: see ``Tracker.take``.
"""

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

from omegaconf import OmegaConf

from toast_cli.errors import ToastError, require_group
from toast_cli.machine.console import say
from toast_cli.report.trackers import TRACKERS, Finished
from toast_cli.runs import contents
from toast_cli.runs.folder import Folder
from toast_cli.runs.measured import Similarity, Tuned
from toast_cli.runs.rows import Raced, Summary
from toast_cli.runs.searched import Baseline, Found

_TABLES: dict[str, type] = {
    contents.SUMMARY: Summary,
    contents.RACE: Raced,
    contents.FRONT: Found,
    contents.BASELINES: Baseline,
    contents.SIMILARITY: Similarity,
    contents.FINETUNE: Tuned,
}
_NUMBERS = (
    "accuracy_mean", "accuracy_std", "accuracy_delta_mean", "accuracy_original", "accuracy_before", "accuracy_after",
    "ece", "blocks_removed", "params", "params_ratio", "gflops", "gflops_ratio", "latency_ratio",
)  # fmt: skip
_NOTED = "tracked"  # in the record: where the run is by tracker and project
_LOCAL = "local-dir:"  # before a folder that names a model


@dataclass(frozen=True)
class Tracker:
    """A tracker and one of its projects."""

    name: str
    project: str

    @classmethod
    def check(cls, given: Any) -> "Tracker | None":
        """The tracker of the group ``tracker``; None for ``tracker=none``.

        Raises ToastError for anything else, and for one whose package is missing: now, not after hours of work.
        """
        given = OmegaConf.to_object(given) if OmegaConf.is_config(given) else given
        if not given:
            return None
        group = require_group(given, "tracker", ["name", "project"])
        name, project = group["name"], group["project"]
        if name not in TRACKERS:
            raise ToastError(f"tracker.name={name} is not a tracker: use tracker={', tracker='.join(TRACKERS)}.")
        if not isinstance(project, str) or not project:
            raise ToastError(f"tracker.project={project} is not a name: give text, such as tracker.project=toast.")
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # offline, wandb makes a folder of its own name, which is no package
            raise ToastError(
                f"tracker={name} needs the package {name}, which is not installed: pip install 'toast-cli[trackers]', or leave tracker out."
            )
        return cls(name, project)

    def take(self, folder: Folder, verb: str) -> None:
        """Send the complete run in ``folder``, unless it was sent before; say where it is.

        No error ends the run, whose numbers are safe and whose exit status other jobs may wait for: it is said, and the
        same command sends the run again.
        """
        noted = folder.record.get(_NOTED)
        known, key = (noted if isinstance(noted, dict) else {}), f"{self.name}/{self.project}"
        if key in known:
            say(f"note: {self.name} has this run already ({known[key]})")
            return
        try:
            with redirect_stdout(sys.stderr):  # stdout is for results, and some of them greet there
                where = TRACKERS[self.name](self.project, finished(folder, verb))
            folder.note(**{_NOTED: {**known, key: where}})
            say(f"{self.name} has this run ({where})")
        except (Exception, SystemExit) as e:
            told = " ".join(str(e).split())[:200]
            say(
                f"note: {self.name} has not taken this run ({type(e).__name__}{': ' * bool(told)}{told.rstrip('.')}): it is complete in "
                f"{folder.path}, and the same command sends it again."
            )


def finished(folder: Folder, verb: str) -> Finished:
    """What a tracker gets of the complete run in ``folder``. Raises ToastError if its files are damaged."""
    from toast_cli.runs import archive
    from toast_cli.runs.results import read_csv

    path = folder.path
    tables = {name: rows for name, kind in _TABLES.items() if (rows := read_csv(path / name, kind))}
    chosen = _chosen(path, tables)
    settings = {key: _without_folders(value) for key, value in archive.settings(path).items()}
    record = folder.record
    settings |= {f"record.{key}": record.get(key) for key in ("device", "precision")}
    settings |= {f"record.{key}": value for key, value in (record.get("versions") or [{}])[-1].items()}
    if chosen:
        settings["chosen.plan"] = chosen[0].plan
    written = record.get("checksums", {})  # pictures of toast's own, wherever the folder is
    return Finished(
        name=path.name,
        group=f"{settings.get('model.label')}-{settings.get('data.label')}",
        verb=verb,
        settings=settings,
        numbers=_numbers(chosen),
        tables={name.removesuffix(".csv"): rows for name, rows in tables.items()},
        pictures={
            f"figures/{picture.stem}": picture for picture in sorted(path.glob("*.png")) if picture.name in written
        },
    )


def _chosen(path: Path, tables: dict[str, list[Any]]) -> list[Any]:
    """The rows of the plan to take: a search's or a sweep's answer, all seeds of a fine-tuning; none of a similarity."""
    from toast_cli.report.answer import Measured, answer_of, best

    if contents.FINETUNE in tables:
        return tables[contents.FINETUNE]
    lines = tables.get(contents.FRONT) or best(tables.get(contents.SUMMARY, []))
    answer = answer_of(lines, Measured(path)) if lines else None
    return [] if answer is None else [answer]


def _numbers(rows: list[Any]) -> dict[str, float]:
    """The means over ``rows`` of the columns that say how good and how large a plan is."""
    values = {name: [value for row in rows if (value := getattr(row, name, None)) is not None] for name in _NUMBERS}
    return {name: float(mean(column)) for name, column in values.items() if column}


def _without_folders(value: Any) -> Any:
    """A setting to send elsewhere: of an absolute path its last name alone, since folders name people and machines."""
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    if not isinstance(value, str):
        return value
    place = Path(value.removeprefix(_LOCAL))
    return f"{_LOCAL * value.startswith(_LOCAL)}{place.name}" if place.is_absolute() else value
