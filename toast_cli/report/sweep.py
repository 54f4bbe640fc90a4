"""Print what a sweep has measured: the answer, or every plan."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from toast_cli.errors import ToastError
from toast_cli.report.answer import Interval, Measured, answer_of, best, export_command
from toast_cli.report.screen import WHOLE, number, say, show, to_copy
from toast_cli.runs.rows import Raced, Summary
from toast_cli.runs.searched import Found

ROWS = ("best", "all")
NOISE = "≈ no change lies in the 95% paired bootstrap interval over the {} test images"
RATIOS = "params and GFLOPs are ratios to the original's"


def require_rows(given: object) -> str:
    """``given``. Raises ToastError unless it says which rows of a table are shown."""
    if given not in ROWS:
        raise ToastError(f"rows={given} is not known: use {', '.join(ROWS)}.")
    return str(given)


def print_sweep(lines: list[Summary], path: Path, rows: str = "best") -> None:
    """Print the table of the run in the folder ``path``, and which of its plans to take.

    ``lines`` are those of its summary. ``rows``: all, or the best for each number of blocks removed. Raises ToastError if
    the run's files are damaged.
    """
    measured, answers = Measured(path), best(lines)
    everything = rows == "all" or len(lines) <= WHOLE
    shown = lines if everything else answers
    intervals = [measured.interval(line) for line in shown]
    answer = answer_of(answers, measured)
    _table(shown, intervals, answer, rows == "all")
    say("")
    if not everything:
        say(
            f"The best of {len(lines) - 1} plans for each number of blocks removed, chosen on test, which flatters it (toast search chooses "
            "on held-out train images); rows=all shows all."
        )
    notes = [NOISE.format(measured.rows[0].test_images)] * any(intervals) + [RATIOS]
    notes += ["* no other plan is as accurate on test for as few GFLOPs"] * (rows == "all")
    say(f"{'; '.join(notes)}.")
    if answer is not None:
        advise(answer, measured.interval(answer), " (chosen on test)" if len(lines) > 2 else "")
        to_copy(export_command(path, answer.plan, measured.rows))


def print_probes(runs: Mapping[Path, list[Summary]], rows: str = "best") -> None:
    """Print the plans of several runs that differ in their probe, a column for each, and where the others' files are.

    ``runs``: the lines of each summary by its folder, the run whose plans are shown first. Raises ToastError if a folder
    does not say which probe it has.
    """
    lines = next(iter(runs.values()))
    shown = lines if rows == "all" or len(lines) <= WHOLE else best(lines)
    probes = {path: Measured(path).rows[0].probe for path in runs}
    found = {path: {_key(line): line for line in own} for path, own in runs.items()}
    kinds, sizes = {fit_of(line) for line in lines}, {line.fit_images for line in lines}

    def of_probe(path: Path) -> Callable[[Summary], str]:
        return lambda line: f"{(own := found[path][_key(line)]).accuracy_mean:.4f} ({own.accuracy_delta_mean:+.4f})"

    show(
        "Accuracy with each probe, and its change",
        shown,
        [
            ("plan", lambda line: line.plan),
            ("fit", lambda line: fit_of(line) if len(kinds) > 2 else ""),
            ("fit images", lambda line: str(line.fit_images) if len(sizes) > 2 and line.fit_images else ""),
            *((probe, of_probe(path)) for path, probe in probes.items()),
        ],
    )
    say("")
    for path, probe in list(probes.items())[1:]:
        say(f"{probe}: {path}")
    say(f"With probe={next(iter(probes.values()))}:")
    say("")


def _key(line: Summary) -> tuple[object, ...]:
    return line.plan, line.fit_images, line.sequential, line.healed


def _table(
    lines: list[Summary], intervals: Sequence[Interval | None], answer: Summary | None, everything: bool
) -> None:
    head, kinds = lines[0], {fit_of(line) for line in lines if line.plan != "none"}
    several = len({line.fit_images for line in lines}) > 2  # numbers of fit images; the untouched model's 0 counts
    found = {id(line): interval for line, interval in zip(lines, intervals, strict=True)}
    fit = f", {next(iter(kinds))} fit" if len(kinds) == 1 and kinds != {""} else ""
    show(
        f"{head.model} on {head.data}, {head.translator} translator{fit}, {head.seeds} seed{'s' * (head.seeds > 1)}",
        lines,
        [
            ("plan", lambda line: line.plan),
            ("fit", lambda line: fit_of(line) if len(kinds) > 1 else ""),
            ("fit images", lambda line: str(line.fit_images) if several and line.fit_images else ""),
            ("blocks", lambda line: f"-{line.blocks_removed}" if line.blocks_removed else "0"),
            ("accuracy", lambda line: f"{line.accuracy_mean:.4f}" + number(line.accuracy_std if everything else None, " ± {:.4f}")),
            ("delta", lambda line: f"{line.accuracy_delta_mean:+.4f}"),
            ("95% interval", lambda line: interval_text(found[id(line)])),
            ("", lambda line: noise_mark(found[id(line)])),
            ("params", lambda line: f"{line.params_ratio:.3f}"),
            ("GFLOPs", lambda line: f"{line.gflops_ratio:.3f}"),
            ("R²", lambda line: number(line.fit_r2) if everything else ""),
            ("", lambda line: "*" * (everything and line.best_trade_off)),
        ],
        lambda line: line is answer,
    )  # fmt: skip


def fit_of(row: Summary | Found | Raced) -> str:
    """What was fitted on what the shortened model produces; empty for an independent fit."""
    return "healed" if row.healed else "sequential" * row.sequential


def interval_text(interval: Interval | None) -> str:
    """The interval as a cell of a table."""
    return "" if interval is None else str(interval)


def noise_mark(interval: Interval | None) -> str:
    """Marks a change that may be none."""
    return "≈" if interval is not None and interval.noise else ""


def advise(answer: Summary | Found, interval: Interval | None, how: str = "") -> None:
    """Say which plan to take, ``how`` it was chosen, and what it costs; the command that exports it is to follow."""
    worth = "" if interval is None else f" ({interval}{', ≈' * interval.noise})"
    saved = f"{100 * (1 - answer.gflops_ratio):.0f}% fewer GFLOPs"
    say("")
    say(f"Take {answer.plan}{how}: {saved}, accuracy {answer.accuracy_delta_mean:+.4f}{worth}. Export it with")


def print_race(rows: list[Raced]) -> None:
    """Print the plans that left a race, each with the images that it had."""
    left = [row for row in rows if row.outcome != "finished"]
    images = max(row.test_images for row in rows)
    if not left:
        say("sweep=race: no plan has left, so this is a full sweep")
        return
    several = len({row.fit_images for row in left}) > 1
    show(
        f"Plans that left the race, each on fewer than the {images} test images",
        left,
        [
            ("plan", lambda row: row.plan),
            ("fit", fit_of),
            ("fit images", lambda row: str(row.fit_images) if several else ""),
            ("blocks", lambda row: f"-{row.blocks_removed}"),
            ("train images", lambda row: str(row.train_images)),
            ("test images", lambda row: str(row.test_images)),
            ("accuracy", lambda row: f"{row.accuracy:.4f}"),
            ("low", lambda row: f"{row.accuracy_low:.4f}"),
            ("high", lambda row: f"{row.accuracy_high:.4f}"),
            ("behind", lambda row: number(row.behind, "{:+.4f}")),
            ("the plan", lambda row: row.best),
            ("at best", lambda row: number(row.behind_high, "{:+.4f}")),
            ("", lambda row: row.outcome),
        ],
    )
    say(
        f"{len(rows) - 1 - len(left)} of {len(rows) - 1} plans had all images. The others' probes were trained and tested on fewer: compare them with "
        "one another, not with the table above. at best: how far ahead of the plan named before it may be; beaten: behind even so; halved: not "
        "among the better ones of its size, of which sweep.keep go on (score in race.csv)"
    )
