"""Print results on stdout, as tables.

On a terminal a table fits its width: a plan that is too long goes on in the next line. Elsewhere, in a pipe or a file,
each plan is one line, however long.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from toast_cli.machine.console import Screen, visible
from toast_cli.runs.measured import Timing, Tuned

if TYPE_CHECKING:
    from toast_cli.report.regression import Change

WHOLE = 16  # a table of no more lines is shown whole
_WIDEST = 1000  # columns in a pipe: a table takes what it needs, since a plan's name must not be cut
_NARROWEST = 12
_GAP = 2  # blanks between columns
_Line = TypeVar("_Line")
_LEFT = ("plan", "fit", "block", "")  # headings of columns of words; numbers are aligned right


def wide_console(stderr: bool = False) -> Screen:
    """A console for results, whatever the width of the terminal."""
    return Screen(width=_WIDEST, stderr=stderr)


def room() -> int:
    """The columns that a table may take."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDEST


def show(
    title: str,
    lines: Sequence[_Line],
    columns: list[tuple[str, Callable[[_Line], str]]],
    bold: Callable[[_Line], Any] = lambda line: False,
    stderr: bool = False,
) -> None:
    """Print a table of ``columns``: a heading and a line's cell for each. Columns that no line fills are left out.

    With ``stderr`` it is no result of the command, but beside it.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    filled = [(heading, [cell(line) for line in lines]) for heading, cell in columns]
    filled = [(heading, cells) for heading, cells in filled if any(cells)]
    widths = [max(cell_len(visible(text)) for text in (heading, *cells)) for heading, cells in filled]
    others = sum(width + _GAP for width, (heading, _) in zip(widths, filled, strict=True) if heading != "plan")
    for heading, _ in filled:
        table.add_column(heading, justify="left" if heading in _LEFT else "right", no_wrap=heading != "plan")
    for number, line in enumerate(lines):
        texts = [
            folded(cells[number], max(room() - others, _NARROWEST)) if heading == "plan" else cells[number]
            for heading, cells in filled
        ]
        table.add_row(*texts, style="bold" if bold(line) else None)
    say(title, stderr)
    say("", stderr)
    wide_console(stderr).print(table, crop=False)


def folded(plan: str, width: int) -> Text:
    """The plan in lines of ``width`` letters, broken between its spans if they fit."""
    lines = [""]
    for number, span in enumerate(visible(plan).split("+")):
        text = f"+{span}" if number else span
        if lines[-1] and cell_len(lines[-1] + text) > width:
            lines.append("")
        lines[-1] += text
    pieces = [line[start : start + width] for line in lines for start in range(0, max(len(line), 1), width)]
    return Text("\n".join(pieces))


def number(value: float | None, form: str = "{:.3f}") -> str:
    """The number as text, empty if there is none."""
    return "" if value is None else form.format(value)


def say(sentence: str, stderr: bool = False) -> None:
    """Print a sentence below a table; on a terminal its lines end between words."""
    Screen(width=room(), stderr=stderr).print(sentence)


def to_copy(command: str) -> None:
    """Print a command on a line of its own, whatever the width: nothing is put into it."""
    wide_console().print(command, soft_wrap=True)


def print_tuned(rows: list[Tuned]) -> None:
    """Print accuracy before and after fine-tuning, a line for each seed."""
    head = rows[0]
    show(
        f"{head.model} on {head.data}, plan {head.plan}, maps {'trained' if head.train_maps else 'frozen'}",
        rows,
        [
            ("seed", lambda row: str(row.seed)),
            ("original", lambda row: f"{row.accuracy_original:.4f}"),
            ("before", lambda row: f"{row.accuracy_before:.4f}"),
            ("after", lambda row: f"{row.accuracy_after:.4f}"),
            ("best epoch", lambda row: str(row.best_epoch)),
            ("held out", lambda row: f"{row.held_out_accuracy:.4f}"),
            ("params", lambda row: f"{row.params_ratio:.3f}"),
            ("GFLOPs", lambda row: f"{row.gflops_ratio:.3f}"),
        ],
    )


def print_timings(rows: list[Timing]) -> None:
    """Print latency, throughput and memory."""
    head = rows[0]
    show(
        f"{head.model}, {head.translator} translator, {head.precision} on {head.device}, {head.threads} threads",
        rows,
        [
            ("plan", lambda row: row.plan),
            ("params", lambda row: f"{row.params_ratio:.3f}"),
            ("GFLOPs", lambda row: f"{row.gflops_ratio:.3f}"),
            ("ms", lambda row: f"{row.latency_ms:.2f}"),
            ("ratio", lambda row: f"{row.latency_ratio:.2f}"),
            ("images/s", lambda row: f"{row.images_per_s:.1f}"),
            ("ratio", lambda row: f"{row.images_per_s_ratio:.2f}"),
            ("peak MB", lambda row: number(row.peak_memory_mb, "{:.0f}")),
            ("ratio", lambda row: number(row.peak_memory_ratio, "{:.2f}")),
        ],
    )
    say(
        f"ms for one image; images/s and peak memory with {head.batch_size} at a time: medians, ratios to the original; "
        "bench.csv has the quartiles"
    )


def print_changes(changes: "list[Change]") -> None:
    """Print how each plan of a baseline has changed, and how many are worse."""
    several = len({change.line.data for change in changes}) > 1 or len({change.line.model for change in changes}) > 1
    show(
        f"{changes[0].line.model} on {changes[0].line.data}" if not several else "",
        changes,
        [
            ("model", lambda change: change.line.model * several),
            ("data", lambda change: change.line.data * several),
            ("plan", lambda change: str(change.line)),
            ("baseline", lambda change: f"{change.before:.4f}"),
            ("now", lambda change: f"{change.after:.4f}"),
            ("change", lambda change: f"{change.after - change.before:+.4f}"),
            (
                "interval",
                lambda change: (
                    f"{number(change.low, '{:+.4f}')} to {number(change.high, '{:+.4f}')}"
                    if change.low is not None
                    else ""
                ),
            ),
            ("", lambda change: "worse" * change.worse),
        ],
        lambda change: change.worse,
    )
    worse = sum(change.worse for change in changes)
    say(f"{worse or 'none'} of {len(changes)} plans {'are' if worse > 1 else 'is'} worse than in the baseline")
