"""``toast status``: how far each run in a folder is, judged by its files; the processes themselves are not asked."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toast_cli.errors import Parser, ToastError
from toast_cli.runs.contents import RECORD

USAGE = "status <folders>"
STATES = ("done", "running", "failed", "stopped", "damaged")
SUMMARY = "which runs are done, running, failed, and the time left"


def main(argv: list[str]) -> None:
    """Print the table of all runs."""
    parser = Parser(
        prog="toast status",
        description="Which runs are done, running, failed or stopped, and the time left.",
        epilog="example: toast status outputs",
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("outputs")], help="where runs are (default: outputs)"
    )
    status(parser.parse_args(argv).folders)


@dataclass(frozen=True)
class Standing:
    """``state``: done, running, failed (it said why), stopped (from outside) or damaged (no run wrote what it says).

    ``seconds_left``: None if unknown.
    """

    path: Path
    state: str
    told: str
    seconds_left: float | None = None


def standing(path: Path, now: float) -> Standing:
    """How far the run at ``path`` is, at ``now`` seconds since the epoch. A damaged record does not hide the other runs."""
    try:
        return _standing(path, now)
    except (ToastError, TypeError, ValueError, KeyError, AttributeError) as e:
        told = str(e) if isinstance(e, ToastError) else f"{path / RECORD} says what no run writes: restore it."
        return Standing(path, "damaged", told)


def _standing(path: Path, now: float) -> Standing:
    from toast_cli.machine.console import duration
    from toast_cli.runs.folder import held, read_record

    record = read_record(path)
    if record.get("complete"):
        return Standing(path, "done", f"in {duration(sum(record.get('seconds', {}).values()))}")
    share, left = _progress(path, record, now)
    if held(path):
        process = record.get("process", {})
        where = f"process {process.get('pid')} on {process.get('host')}"
        return Standing(path, "running", ", ".join(filter(None, (_stage(record), share, where))), left)
    if record.get("failed"):
        return Standing(path, "failed", str(record["failed"]))
    return Standing(path, "stopped", ", ".join(filter(None, (_stage(record), share))))


def _stage(record: dict[str, Any]) -> str:
    return record.get("stage", {}).get("name", "begun")


def _progress(path: Path, record: dict[str, Any], now: float) -> tuple[str, float | None]:
    """How much of the features is written, and the seconds the rest will take at the rate since the stage began."""
    from toast_cli.runs.folder import Folder

    total, stage = record.get("feature_bytes"), record.get("stage", {})
    if not total or stage.get("name") != "encode":
        return "", None
    there = Folder(path).feature_bytes
    elapsed, written = now - stage["begun"], there - stage["bytes"]
    left = (total - there) * elapsed / written if written > 0 and elapsed > 0 else None  # clocks may have been set back
    return f"{there / total:.0%} of the features", left


def status(places: Sequence[Path]) -> None:
    """One table of all runs at or below ``places``, on stdout. Raises ToastError if there are none."""
    from rich.table import Table

    from toast_cli.machine.console import duration
    from toast_cli.report.screen import wide_console

    folders = sorted({record.parent for place in places for record in place.rglob(RECORD)})
    if not folders:
        raise ToastError(
            f"There is no run in {', '.join(map(str, places))}: name the folders that runs are in, such as outputs."
        )
    now = time.time()
    found = [standing(folder, now) for folder in folders]
    counts = {state: sum(s.state == state for s in found) for state in STATES}
    told = [f"{count} {state}" for state, count in counts.items() if count or state != "damaged"]
    table = Table(title=", ".join(told))
    for column in ("run", "state", "left", ""):
        table.add_column(column, overflow="fold")
    for s in found:
        table.add_row(str(s.path), s.state, duration(s.seconds_left) if s.seconds_left is not None else "", s.told)
    wide_console().print(table)
