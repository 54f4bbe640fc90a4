"""Write and read CSV files of rows, and average rows over seeds."""

import csv
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args, get_type_hints

from toast_cli.errors import ToastError
from toast_cli.files import write_atomically
from toast_cli.runs.rows import Row, Summary


def write_csv(path: Path, rows: Iterable[Any], kind: type) -> None:
    """Write all rows (of dataclass ``kind``) at once, atomically; floats as shortest text that reads back exactly."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in dataclasses.fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in rows)
    write_atomically(path, buffer.getvalue())


def read_csv(path: Path, kind: type) -> list[Any]:
    """The rows of a file that ``write_csv`` wrote; none if there is no file. Raises ToastError for anything else."""
    if not path.is_file():
        return []
    types = get_type_hints(kind)
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != list(types):
            raise ToastError(
                f"{path} does not have the columns that this version of toast writes: move it away, or use fresh=true."
            )
        rows = []
        for number, line in enumerate(reader, 2):
            try:
                rows.append(kind(**{name: _parse(text, types[name]) for name, text in line.items()}))
            except (KeyError, TypeError, ValueError) as e:
                raise ToastError(f"Line {number} of {path} cannot be read: restore the file, or use fresh=true.") from e
        return rows


def _parse(text: str, kind: Any) -> Any:
    if text == "" and kind is not str:
        return None
    kind = next(iter(get_args(kind)), kind)
    return text == "True" if kind is bool else kind(text)


def summarise(rows: list[Row]) -> list[Summary]:
    """One line for each plan, number of fit images and kind of fit, in the order of the rows."""
    import pandas as pd

    keys = [(row.plan, row.fit_images, row.sequential) for row in rows]
    values = [(row.accuracy, row.accuracy_delta) for row in rows]
    frame = pd.DataFrame(values, columns=["accuracy", "delta"], index=pd.Index(keys, tupleize_cols=False))
    spread = frame.groupby(level=0, sort=False).agg(["mean", "std", "size"])
    first = dict(reversed(list(zip(keys, rows, strict=True))))
    lines = [_summary(first[key], spread.loc[[key]].iloc[0]) for key in dict.fromkeys(keys)]
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
    """Whether ``other`` is at least as good in accuracy and GFLOPs, and better in one."""
    pair, best = (-other.accuracy_mean, other.gflops), (-line.accuracy_mean, line.gflops)
    return pair != best and all(a <= b for a, b in zip(pair, best, strict=True))
