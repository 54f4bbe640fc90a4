"""Results on stdout, as tables."""

from rich.console import Console
from rich.table import Table

from toast_cli.rows import Found, Summary, Timing, Tuned

_WIDEST = 1000  # columns: tables take what they need, for a plan's name must not be cut; a terminal folds their lines


def wide_console() -> Console:
    """For results, whatever the width of the terminal."""
    return Console(highlight=False, markup=False, width=_WIDEST)


def print_table(lines: list[Summary]) -> None:
    """The summary on stdout, the best trade-offs marked."""
    head = lines[0]
    table = Table(
        title=f"{head.model} on {head.data}, {head.translator} translator, {head.seeds} seed{'s' * (head.seeds > 1)}"
    )
    sizes = len({line.fit_images for line in lines}) > 2  # the untouched model's 0 is one
    sequential = any(line.sequential for line in lines)
    for column in (
        "plan",
        *["refit"] * sequential,
        *["fit"] * sizes,
        "blocks",
        "accuracy",
        "delta",
        "params",
        "GFLOPs",
        "R²",
        "",
    ):
        table.add_column(column, justify="left" if column in ("plan", "") else "right", no_wrap=True)
    for line in lines:
        spread = "" if line.accuracy_std is None else f" ± {line.accuracy_std:.4f}"
        table.add_row(
            line.plan,
            *["yes" * line.sequential] * sequential,
            *[str(line.fit_images or "")] * sizes,
            f"-{line.blocks_removed}" if line.blocks_removed else "0",
            f"{line.accuracy_mean:.4f}{spread}",
            f"{line.accuracy_delta_mean:+.4f}",
            f"{line.params_ratio:.3f}",
            f"{line.gflops_ratio:.3f}",
            "" if line.fit_r2 is None else f"{line.fit_r2:.3f}",
            "*" if line.best_trade_off else "",
            style="bold" if line.best_trade_off else None,
        )
    console = wide_console()
    console.print(table, crop=False)
    console.print(
        "* no other plan is as accurate on test for as few GFLOPs; params and GFLOPs are ratios to the original's",
        soft_wrap=True,
    )


def print_tuned(rows: list[Tuned]) -> None:
    """Accuracy before and after fine-tuning on stdout, a line for each seed."""
    table = Table(
        title=f"{rows[0].model} on {rows[0].data}, plan {rows[0].plan}, maps {'trained' if rows[0].train_maps else 'frozen'}"
    )
    for column in ("seed", "original", "before", "after", "best epoch", "held out", "params", "GFLOPs"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        accuracies = (row.accuracy_original, row.accuracy_before, row.accuracy_after)
        shown = [
            str(row.seed),
            *(f"{value:.4f}" for value in accuracies),
            str(row.best_epoch),
            f"{row.held_out_accuracy:.4f}",
        ]
        table.add_row(*shown, f"{row.params_ratio:.3f}", f"{row.gflops_ratio:.3f}")
    wide_console().print(table, crop=False)


def print_front(found: list[Found]) -> None:
    """The plans found on stdout, the answer to the budget or the target marked."""
    timed = any(row.latency_ratio is not None for row in found)
    table = Table(title=f"{found[0].model} on {found[0].data}: the best plans for each number of blocks removed")
    columns = (
        "plan",
        "fit",
        "blocks",
        "predicted",
        "loss",
        "accuracy",
        "delta",
        "params",
        "GFLOPs",
        *["time"] * timed,
        "",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("plan", "fit", "") else "right", no_wrap=True)
    for row in found:
        table.add_row(
            row.plan,
            "refit" if row.sequential else "",
            f"-{row.blocks_removed}",
            "" if row.loss_predicted is None else f"{row.loss_predicted:.3f}",
            f"{row.loss:.3f}",
            f"{row.accuracy_mean:.4f}",
            f"{row.accuracy_delta_mean:+.4f}",
            f"{row.params_ratio:.3f}",
            f"{row.gflops_ratio:.3f}",
            *["" if row.latency_ratio is None else f"{row.latency_ratio:.3f}"] * timed,
            "chosen" if row.chosen else "*" if row.best_trade_off else "",
            style="bold" if row.chosen else None,
        )
    console = wide_console()
    console.print(table, crop=False)
    counts = {row.blocks_removed: (row.measured, row.possible) for row in found}
    measured, possible = (sum(column) for column in zip(*counts.values(), strict=True))
    console.print(
        f"* no other plan found has less loss for no more GFLOPs; loss on held-out train images, where the original has "
        f"{found[0].loss_original:.3f}; accuracy on test images, for the first time; {measured} of {possible} plans of these sizes "
        "were measured",
        soft_wrap=True,
    )
    for row in found:
        if row.chosen:
            console.print(f"chosen: {row.plan}", soft_wrap=True)


def print_timings(rows: list[Timing]) -> None:
    """Latency, throughput and memory on stdout."""
    head = rows[0]
    table = Table(
        title=f"{head.model}, {head.translator} translator, {head.precision} on {head.device}, {head.threads} threads"
    )
    for column in ("plan", "params", "GFLOPs", "ms", "ratio", "images/s", "ratio", "peak MB", "ratio"):
        table.add_column(column, justify="left" if column == "plan" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.plan,
            f"{row.params_ratio:.3f}",
            f"{row.gflops_ratio:.3f}",
            f"{row.latency_ms:.2f}",
            f"{row.latency_ratio:.2f}",
            f"{row.images_per_s:.1f}",
            f"{row.images_per_s_ratio:.2f}",
            "" if row.peak_memory_mb is None else f"{row.peak_memory_mb:.0f}",
            "" if row.peak_memory_ratio is None else f"{row.peak_memory_ratio:.2f}",
        )
    console = wide_console()
    console.print(table, crop=False)
    console.print(
        f"ms for one image; images/s and peak memory with {head.batch_size} at a time: medians, ratios to the original; "
        "bench.csv has the quartiles",
        soft_wrap=True,
    )
