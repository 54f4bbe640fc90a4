"""Result rows: their columns, the CSV files, aggregation over seeds, and the table."""

import csv
import dataclasses
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from rich.console import Console
from rich.table import Table

from toast_cli.errors import ToastError
from toast_cli.files import write_atomically


@dataclass(frozen=True)
class Row:
    """One plan and seed. The order of the fields is that of the columns of ``results.csv``.

    ``spans_start_end`` is a JSON list of [s, e], −1 being the stem. ``fit_images`` … ``test_images`` are the numbers
    used. ``fit_r2`` and ``fit_rank`` are the lowest among the plan's spans, empty without any. Accuracies and ratios
    are fractions; ``accuracy_delta`` = accuracy − accuracy_original, so that a loss is negative.
    """

    model: str
    data: str
    translator: str
    plan: str
    spans_start_end: str
    blocks_removed: int
    seed: int
    fit_images: int
    train_images: int
    test_images: int
    probe: str
    accuracy: float
    accuracy_original: float
    accuracy_delta: float
    params: int
    params_original: int
    params_ratio: float
    gflops: float
    gflops_original: float
    gflops_ratio: float
    fit_r2: float | None
    fit_rank: int | None
    precision: str
    device: str


@dataclass(frozen=True)
class Summary:
    """One plan over all seeds: a line of ``summary.csv``. Standard deviations are those of a sample, empty for one seed.

    ``best_trade_off``: no other plan is at least as accurate for no more GFLOPs.
    """

    model: str
    data: str
    translator: str
    plan: str
    blocks_removed: int
    seeds: int
    accuracy_mean: float
    accuracy_std: float | None
    accuracy_delta_mean: float
    accuracy_delta_std: float | None
    params: int
    params_ratio: float
    gflops: float
    gflops_ratio: float
    fit_r2: float | None
    fit_rank: int | None
    best_trade_off: bool


def write_csv(path: Path, rows: Iterable[Any], kind: type) -> None:
    """All rows (of dataclass ``kind``) at once, atomically; floats as their shortest text that reads back exactly."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in dataclasses.fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in rows)
    write_atomically(path, buffer.getvalue())


def read_csv(path: Path, kind: type) -> list[Any]:
    """The rows of a file that ``write_csv`` wrote; none where there is no file. Raises ToastError for other columns."""
    if not path.is_file():
        return []
    types = get_type_hints(kind)
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != list(types):
            raise ToastError(
                f"{path} has other columns than this version of toast writes: move it away, or use fresh=true."
            )
        return [kind(**{name: _parse(text, types[name]) for name, text in line.items()}) for line in reader]


def _parse(text: str, kind: Any) -> Any:
    if text == "":
        return None
    kind = next(iter(get_args(kind)), kind)
    return text == "True" if kind is bool else kind(text)


def summarise(rows: list[Row]) -> list[Summary]:
    """One line a plan, in the order of the rows."""
    import pandas as pd

    frame = pd.DataFrame(
        [(row.plan, row.accuracy, row.accuracy_delta) for row in rows], columns=["plan", "accuracy", "delta"]
    )
    spread = frame.groupby("plan", sort=False).agg(["mean", "std", "size"])
    first = {row.plan: row for row in reversed(rows)}
    lines = [_summary(first[str(plan)], values) for plan, values in spread.iterrows()]
    return [dataclasses.replace(line, best_trade_off=not any(_beats(other, line) for other in lines)) for line in lines]


def _summary(row: Row, spread: Any) -> Summary:
    """``spread`` maps (accuracy | delta, mean | std | size) to a number."""
    shared = {field.name: getattr(row, field.name) for field in dataclasses.fields(Summary) if hasattr(row, field.name)}
    several = spread["accuracy", "size"] > 1
    return Summary(
        **shared,
        seeds=int(spread["accuracy", "size"]),
        accuracy_mean=float(spread["accuracy", "mean"]),
        accuracy_std=float(spread["accuracy", "std"]) if several else None,
        accuracy_delta_mean=float(spread["delta", "mean"]),
        accuracy_delta_std=float(spread["delta", "std"]) if several else None,
        best_trade_off=False,
    )


def _beats(other: Summary, line: Summary) -> bool:
    """At least as good in accuracy and GFLOPs, and better in one."""
    pair, best = (-other.accuracy_mean, other.gflops), (-line.accuracy_mean, line.gflops)
    return pair != best and all(a <= b for a, b in zip(pair, best, strict=True))


def print_table(lines: list[Summary]) -> None:
    """The summary on stdout, the best trade-offs marked."""
    head = lines[0]
    table = Table(
        title=f"{head.model} on {head.data}, {head.translator} translator, {head.seeds} seed{'s' * (head.seeds > 1)}"
    )
    for column in ("plan", "blocks", "accuracy", "delta", "params", "GFLOPs", "R²", ""):
        table.add_column(column, justify="left" if column in ("plan", "") else "right", no_wrap=True)
    for line in lines:
        spread = "" if line.accuracy_std is None else f" ± {line.accuracy_std:.4f}"
        table.add_row(
            line.plan,
            f"-{line.blocks_removed}" if line.blocks_removed else "0",
            f"{line.accuracy_mean:.4f}{spread}",
            f"{line.accuracy_delta_mean:+.4f}",
            f"{line.params_ratio:.3f}",
            f"{line.gflops_ratio:.3f}",
            "" if line.fit_r2 is None else f"{line.fit_r2:.3f}",
            "*" if line.best_trade_off else "",
            style="bold" if line.best_trade_off else None,
        )
    console = Console(highlight=False)
    console.print(table, crop=False)
    console.print(
        "* no other plan is as accurate on test for as few GFLOPs; params and GFLOPs are ratios to the original's",
        soft_wrap=True,
    )
