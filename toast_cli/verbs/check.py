"""``toast check``: a gate for continuous integration. Status 0: no plan is worse than in a baseline; 1: one is; 2: cannot be compared."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from toast_cli.errors import Parser, ToastError
from toast_cli.runs.contents import RECORD, RESULTS

if TYPE_CHECKING:
    from toast_cli.report.regression import Change
    from toast_cli.runs.archive import CompleteRun

USAGE = "check <run> --baseline <run>"
SUMMARY = "fail where a run is less accurate than a baseline"


def main(argv: list[str]) -> None:
    """Print what has changed, and exit with status 1 if a plan is worse."""
    from toast_cli.report.regression import IncomparableError
    from toast_cli.sentences import sentence

    try:
        worse = _main(argv)
    except (ToastError, OSError) as e:
        raise IncomparableError(sentence(e) or str(e)) from e
    if worse:
        sys.stdout.flush()
        sys.exit(1)


def _main(argv: list[str]) -> bool:
    parser = Parser(
        prog="toast check",
        description="Compare a run with a baseline plan by plan, on the same test images. Exit status 0: no plan of the baseline is worse. "
        "1: at least one is. 2: they cannot be compared.",
        epilog="example: toast check outputs/run/now --baseline outputs/run/before",
    )
    parser.add_argument("run", type=Path, help="the folder of a run, or one that holds runs")
    parser.add_argument(
        "--baseline", type=Path, required=True, help="such a folder, or a summary.csv (with --tolerance)"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        help="the loss of accuracy that is allowed, such as 0.01; without it, a plan is worse if the paired interval of its change is below 0",
    )
    args = parser.parse_args(argv)
    from toast_cli.report.screen import print_changes

    changes = check(args.run, args.baseline, args.tolerance)
    print_changes(changes)
    return any(change.worse for change in changes)


def check(run: Path, baseline: Path, tolerance: float | None = None) -> "list[Change]":
    """What has changed for each plan of ``baseline``. Raises ToastError where that cannot be said."""
    from toast_cli.report.regression import against_runs, against_summary
    from toast_cli.runs.results import read_csv
    from toast_cli.runs.rows import Summary

    if tolerance is not None and not 0 <= tolerance < 1:
        raise ToastError(f"--tolerance {tolerance} is not a share of the images: give a number from 0 to below 1.")
    runs = _read(run)
    if not baseline.is_file():
        return against_runs(runs, _read(baseline), tolerance)
    try:
        lines = read_csv(baseline, Summary)
    except ToastError as e:
        raise ToastError(
            f"{baseline} is not the summary.csv of a run: give one that toast run wrote, or the folder of a run."
        ) from e
    if not lines:
        raise ToastError(f"{baseline} has no lines: give the summary.csv of a run.")
    return against_summary(runs, lines, tolerance)


def _read(place: Path) -> "list[CompleteRun]":
    """The complete runs at or below ``place``. Raises ToastError if there is none, or one that is not complete."""
    from toast_cli.runs.archive import CompleteRun, find, require_accuracies
    from toast_cli.runs.record import read_record

    if not place.is_dir():
        raise ToastError(f"{place} is not a folder: give that of a run, or one that holds runs.")
    unfinished = [file.parent for file in place.rglob(RECORD) if not read_record(file.parent).get("complete")]
    if unfinished:
        raise ToastError(f"{unfinished[0]} is not complete: run its command again to finish it.")
    complete, _ = find([place], RESULTS)
    if not complete:
        require_accuracies(place)
        raise ToastError(f"There is no run in {place}: give a folder that toast run wrote.")
    return [CompleteRun.read(path) for path in complete]
