"""Print what a search has found: the plans, what others would remove, and which plan to take."""

from collections.abc import Callable
from pathlib import Path

from toast_cli.report.answer import Measured, answer_of, export_command
from toast_cli.report.screen import number, say, show, to_copy
from toast_cli.report.sweep import NOISE, RATIOS, advise, fit_of, interval_text, noise_mark
from toast_cli.runs.searched import Baseline, Found

_BASELINES = {
    "last": "the last ones",
    "influence": "those of least influence (1 − cosine of what enters and what leaves a block)",
    "random": "the mean of up to {} draws",
}


def print_found(found: list[Found], baselines: list[Baseline], path: Path) -> None:
    """Print the plans that the search in the folder ``path`` has found, what stands beside them, and which to take.

    Raises ToastError if the search's files are damaged.
    """
    measured = Measured(path)
    intervals = {id(row): measured.interval(row) for row in found}
    answer = answer_of(found, measured)
    how = " (its size chosen on test)" if len(found) > 1 and not any(row.chosen for row in found) else ""
    show(
        f"{found[0].model} on {found[0].data}: the best plan for each number of blocks removed",
        found,
        [
            ("plan", lambda row: row.plan),
            ("blocks", lambda row: f"-{row.blocks_removed}"),
            ("accuracy", lambda row: f"{row.accuracy_mean:.4f}"),
            ("delta", lambda row: f"{row.accuracy_delta_mean:+.4f}"),
            ("95% interval", lambda row: interval_text(intervals[id(row)])),
            ("", lambda row: noise_mark(intervals[id(row)])),
            ("params", lambda row: f"{row.params_ratio:.3f}"),
            ("GFLOPs", lambda row: f"{row.gflops_ratio:.3f}"),
            ("time", lambda row: number(row.latency_ratio)),
        ],
        lambda row: row is answer,
    )
    counts = {row.blocks_removed: (row.measured, row.possible) for row in found}
    tried, possible = (sum(column) for column in zip(*counts.values(), strict=True))
    say("")
    say(
        f"Chosen on held-out train images, tested once; {tried} of {possible} plans of these sizes were measured. "
        f"{NOISE.format(measured.rows[0].test_images)}; {RATIOS}."
    )
    say("")
    _beside(found, baselines)
    if answer is not None:
        advise(answer, intervals[id(answer)], how)
        to_copy(export_command(path, answer.plan, measured.rows))


def _beside(found: list[Found], baselines: list[Baseline]) -> None:
    """Print held-out losses, and test accuracies of what others would remove."""
    others = {(row.baseline, row.blocks_removed): row.accuracy_mean for row in baselines}
    draws = {row.baseline: row.draws for row in sorted(baselines, key=lambda row: row.draws)}
    draws = {name: draws[name] for name in _BASELINES if name in draws}

    def accuracy_of(name: str) -> Callable[[Found], str]:
        return lambda row: number(others.get((name, row.blocks_removed)), "{:.4f}")

    show(
        "How each was chosen, and the accuracy of what others would remove",
        found,
        [
            ("blocks", lambda row: f"-{row.blocks_removed}"),
            ("fit", fit_of),
            ("predicted", lambda row: number(row.loss_predicted)),
            ("loss", lambda row: f"{row.loss:.3f}"),
            ("found", lambda row: f"{row.accuracy_mean:.4f}"),
            ("one span", lambda row: f"{row.rival_accuracy:.4f}"),
            *((name, accuracy_of(name)) for name in draws),
            ("", lambda row: "*" * row.best_trade_off),
        ],
        lambda row: row.chosen,
    )
    shown = "".join(f"; {name}: {_BASELINES[name].format(count)}" for name, count in draws.items())
    say("")
    say(
        f"loss: on held-out train images, where the original has {found[0].loss_original:.3f}; one span: the single span that these images "
        f"rank first{shown}{', with nothing in their place' * bool(draws)}; * no other plan found has less loss for no more GFLOPs."
    )
