"""Print results on stdout, as tables."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rich.table import Table

from toast_cli.machine.console import Screen
from toast_cli.runs.rows import Baseline, Found, Raced, Summary, Timing, Tuned

if TYPE_CHECKING:
    from toast_cli.report.regression import Change

_WIDEST = 1000  # columns: a table takes what it needs, since a plan's name must not be cut; a terminal wraps its lines
_Line = TypeVar("_Line")
_BASELINES = {
    "last": "the last ones",
    "influence": "those of least influence (1 − cosine of what enters and what leaves a block)",
    "random": "the mean of up to {} draws",
}
_LEFT = ("plan", "fit", "")  # headings of columns of words; numbers are aligned right


def wide_console() -> Screen:
    """A console for results, whatever the width of the terminal."""
    return Screen(width=_WIDEST)


def print_table(lines: list[Summary]) -> None:
    """Print the summary, with the best trade-offs marked."""
    head = lines[0]
    several = len({line.fit_images for line in lines}) > 2  # numbers of fit images; the untouched model's 0 counts
    _print(
        f"{head.model} on {head.data}, {head.translator} translator, {head.seeds} seed{'s' * (head.seeds > 1)}",
        lines,
        [
            ("plan", lambda line: line.plan),
            ("fit", _fit),
            ("fit images", lambda line: str(line.fit_images) if several and line.fit_images else ""),
            ("blocks", lambda line: f"-{line.blocks_removed}" if line.blocks_removed else "0"),
            ("accuracy", lambda line: f"{line.accuracy_mean:.4f}" + _number(line.accuracy_std, " ± {:.4f}")),
            ("delta", lambda line: f"{line.accuracy_delta_mean:+.4f}"),
            ("params", lambda line: f"{line.params_ratio:.3f}"),
            ("GFLOPs", lambda line: f"{line.gflops_ratio:.3f}"),
            ("R²", lambda line: _number(line.fit_r2)),
            ("", lambda line: "*" * line.best_trade_off),
        ],
        lambda line: line.best_trade_off,
    )
    _say("* no other plan is as accurate on test for as few GFLOPs; params and GFLOPs are ratios to the original's")


def print_race(rows: list[Raced]) -> None:
    """Print the plans that left a race, each with the images that it had."""
    left = [row for row in rows if row.outcome != "finished"]
    images = max(row.test_images for row in rows)
    if not left:
        _say("sweep=race: no plan has left, so this is a full sweep")
        return
    several = len({row.fit_images for row in left}) > 1
    _print(
        f"Plans that left the race, each on fewer than the {images} test images",
        left,
        [
            ("plan", lambda row: row.plan),
            ("fit", _fit),
            ("fit images", lambda row: str(row.fit_images) if several else ""),
            ("blocks", lambda row: f"-{row.blocks_removed}"),
            ("train images", lambda row: str(row.train_images)),
            ("test images", lambda row: str(row.test_images)),
            ("accuracy", lambda row: f"{row.accuracy:.4f}"),
            ("low", lambda row: f"{row.accuracy_low:.4f}"),
            ("high", lambda row: f"{row.accuracy_high:.4f}"),
            ("behind", lambda row: _number(row.behind, "{:+.4f}")),
            ("the plan", lambda row: row.best),
            ("at best", lambda row: _number(row.behind_high, "{:+.4f}")),
            ("", lambda row: row.outcome),
        ],
    )
    _say(
        f"{len(rows) - 1 - len(left)} of {len(rows) - 1} plans had all images. The others' probes were trained and tested on fewer: compare them with "
        "one another, not with the table above. at best: how far ahead of the plan named before it may be; beaten: behind even so; halved: not "
        "among the better ones of its size (sweep.keep)"
    )


def _fit(row: Summary | Found | Raced) -> str:
    """What was fitted on what the shortened model produces; empty for an independent fit."""
    return "healed" if row.healed else "sequential" * row.sequential


def print_tuned(rows: list[Tuned]) -> None:
    """Print accuracy before and after fine-tuning, a line for each seed."""
    head = rows[0]
    _print(
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


def print_front(found: list[Found], baselines: list[Baseline]) -> None:
    """Print the plans found next to the ``baselines`` of as many blocks, with the answer to the budget or target marked."""
    head, others = found[0], {(row.baseline, row.blocks_removed): row.accuracy_mean for row in baselines}
    draws = {row.baseline: row.draws for row in sorted(baselines, key=lambda row: row.draws)}
    draws = {name: draws[name] for name in _BASELINES if name in draws}

    def accuracy_of(name: str) -> Callable[[Found], str]:
        return lambda row: _number(others.get((name, row.blocks_removed)), "{:.4f}")

    _print(
        f"{head.model} on {head.data}: the best plans for each number of blocks removed",
        found,
        [
            ("plan", lambda row: row.plan),
            ("fit", _fit),
            ("blocks", lambda row: f"-{row.blocks_removed}"),
            ("predicted", lambda row: _number(row.loss_predicted)),
            ("loss", lambda row: f"{row.loss:.3f}"),
            ("accuracy", lambda row: f"{row.accuracy_mean:.4f}"),
            ("delta", lambda row: f"{row.accuracy_delta_mean:+.4f}"),
            ("one span", lambda row: f"{row.rival_accuracy:.4f}"),
            *((name, accuracy_of(name)) for name in draws),
            ("params", lambda row: f"{row.params_ratio:.3f}"),
            ("GFLOPs", lambda row: f"{row.gflops_ratio:.3f}"),
            ("time", lambda row: _number(row.latency_ratio)),
            ("", lambda row: "chosen" if row.chosen else "*" * row.best_trade_off),
        ],
        lambda row: row.chosen,
    )
    _explain_front(found, draws)


def _explain_front(found: list[Found], draws: dict[str, int]) -> None:
    """Say what the columns mean, and which plan is chosen. ``draws``: of each baseline, at most."""
    counts = {row.blocks_removed: (row.measured, row.possible) for row in found}
    measured, possible = (sum(column) for column in zip(*counts.values(), strict=True))
    _say(
        f"* no other plan found has less loss for no more GFLOPs; loss is on held-out train images, where the original has "
        f"{found[0].loss_original:.3f}; accuracy is on test images, used here for the first time, next to that of the single span that removes "
        f"as many blocks and ranks first on held-out images; {measured} of {possible} plans of these sizes were measured"
    )
    if draws:
        shown = "; ".join(f"{name}, {_BASELINES[name].format(count)}" for name, count in draws.items())
        _say(f"accuracy with as many blocks removed and nothing in their place: {shown}")
    for row in found:
        if row.chosen:
            _say(f"chosen: {row.plan}")


def print_timings(rows: list[Timing]) -> None:
    """Print latency, throughput and memory."""
    head = rows[0]
    _print(
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
            ("peak MB", lambda row: _number(row.peak_memory_mb, "{:.0f}")),
            ("ratio", lambda row: _number(row.peak_memory_ratio, "{:.2f}")),
        ],
    )
    _say(
        f"ms for one image; images/s and peak memory with {head.batch_size} at a time: medians, ratios to the original; "
        "bench.csv has the quartiles"
    )


def print_changes(changes: "list[Change]") -> None:
    """Print how each plan of a baseline has changed, and how many are worse."""
    several = len({change.line.data for change in changes}) > 1 or len({change.line.model for change in changes}) > 1
    _print(
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
                    f"{_number(change.low, '{:+.4f}')} to {_number(change.high, '{:+.4f}')}"
                    if change.low is not None
                    else ""
                ),
            ),
            ("", lambda change: "worse" * change.worse),
        ],
        lambda change: change.worse,
    )
    worse = sum(change.worse for change in changes)
    _say(f"{worse or 'none'} of {len(changes)} plans {'are' if worse > 1 else 'is'} worse than in the baseline")


def _print(
    title: str,
    lines: Sequence[_Line],
    columns: list[tuple[str, Callable[[_Line], str]]],
    bold: Callable[[_Line], Any] = lambda line: False,
) -> None:
    """Print a table of ``columns``: a heading and a line's cell for each. Columns that no line fills are left out."""
    table = Table(title=title)
    filled = [(heading, [cell(line) for line in lines]) for heading, cell in columns]
    filled = [(heading, cells) for heading, cells in filled if any(cells)]
    for heading, _ in filled:
        table.add_column(heading, justify="left" if heading in _LEFT else "right", no_wrap=True)
    for line, *cells in zip(lines, *(cells for _, cells in filled), strict=True):
        table.add_row(*cells, style="bold" if bold(line) else None)
    wide_console().print(table, crop=False)


def _number(value: float | None, form: str = "{:.3f}") -> str:
    return "" if value is None else form.format(value)


def _say(sentence: str) -> None:
    wide_console().print(sentence, soft_wrap=True)
