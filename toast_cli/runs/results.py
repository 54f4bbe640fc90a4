"""Write and read tables of rows as CSV, and average rows over seeds."""

import csv
import dataclasses
import io
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from statistics import mean, stdev
from types import NoneType
from typing import Any, get_args, get_type_hints

from toast_cli.errors import ToastError
from toast_cli.files import write_atomically
from toast_cli.runs.rows import Number, Row, Summary

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")  # a spreadsheet would compute such text; one more ' keeps it text
_BOOLS = {"True": True, "False": False}


def write_csv(path: Path, rows: Iterable[Any], kind: type) -> None:
    """Write all rows (of dataclass ``kind``) at once, atomically, as ``csv_of`` has them."""
    write_atomically(path, csv_of(rows, kind))


def read_csv(path: Path, kind: type) -> list[Any]:
    """The rows of a file that ``write_csv`` wrote; none if there is no file. Raises ToastError for anything else."""
    return rows_of(path.read_bytes(), kind, path) if path.is_file() else []


def csv_of(rows: Iterable[Any], kind: type) -> str:
    """The rows (of dataclass ``kind``) as CSV, floats as the shortest text that reads back exactly.

    Text that a spreadsheet would take for a formula gets a ``'`` before it, which ``rows_of`` takes off.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    lines = chain([names], ([getattr(row, name) for name in names] for row in rows))
    return "".join(",".join(map(_cell, line)) + "\n" for line in lines)


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    if isinstance(value, str) and _FORMULA.match(text):
        text = f"'{text}"
    # csv.writer leaves a lone carriage return unquoted, and csv.reader then refuses it
    return '"{}"'.format(text.replace('"', '""')) if re.search('[,"\r\n]', text) else text


def rows_of(text: str | bytes, kind: type, path: Path) -> list[Any]:
    """The inverse of ``csv_of``. Raises ToastError for any other text, with the ``path`` and the line at fault."""
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")  # what is not UTF-8 is refused below, with its line
    types = _columns(text.partition("\n")[0].removesuffix("\r"), kind)
    if not types:
        raise ToastError(
            f"{path} does not have the columns that this version of toast writes: move it away, or use fresh=true."
        )
    reader, rows, number = csv.reader(_whole_lines(text), strict=True), [], 1
    try:
        next(reader)  # the columns
        number = 2
        for cells in reader:
            if cells:  # an empty line is no row
                rows.append(kind(*map(_parse, zip(cells, types, strict=True))))
            number = reader.line_num + 1  # a row may have several lines
    except (csv.Error, KeyError, ValueError) as e:
        raise ToastError(f"Line {number} of {path} cannot be read: restore the file, or use fresh=true.") from e
    return rows


def _columns(head: str, kind: type) -> list[Any]:
    """The types of the columns that the line ``head`` names; none if a file of ``kind`` has no such head.

    Columns are only ever added at the end, with a default: a file of an earlier version ends before them.
    """
    types, optional = get_type_hints(kind), [f.default is not dataclasses.MISSING for f in dataclasses.fields(kind)]
    count = head.count(",") + 1
    known = head == ",".join(list(types)[:count]) and all(optional[count:])
    return list(types.values())[:count] if known else []


def _whole_lines(text: str) -> Iterator[str]:
    """Raises ValueError for a line that is cut short, has a NUL, or was not UTF-8."""
    for line in io.StringIO(text, newline="\n"):
        if not line.endswith("\n") or "\0" in line:
            raise ValueError(f"the line {line!r} is damaged")
        line.encode()
        yield line


def _parse(cell: tuple[str, Any]) -> Any:
    text, kind = cell
    allowed = get_args(kind)
    if text == "" and NoneType in allowed:
        return None
    if set(allowed) == set(get_args(Number)):
        return float(text) if "." in text else int(text)
    kind = next(iter(allowed), kind)
    if kind is str:
        return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
    return _BOOLS[text] if kind is bool else kind(text)


def summarise(rows: list[Row]) -> list[Summary]:
    """One line for each plan, number of fit images and kind of fit, in the order of the rows."""
    import pandas as pd

    groups = pd.DataFrame(rows).groupby(["plan", "fit_images", "sequential", "healed"], sort=False)
    lines = [_summary([rows[number] for number in own.index]) for _, own in groups]
    return [dataclasses.replace(line, best_trade_off=not any(_beats(other, line) for other in lines)) for line in lines]


def _summary(seeds: Sequence[Row]) -> Summary:
    """The line of one plan's rows."""
    first = seeds[0]
    errors = [row.ece for row in seeds if row.ece is not None]
    shared = {name: getattr(first, name) for name in Summary.__annotations__ if hasattr(first, name)}
    shared["ece"] = float(mean(errors)) if len(errors) == len(seeds) else None
    spread = spread_of(seeds)
    return Summary(
        **shared,
        seeds=len(seeds),
        accuracy_mean=spread.accuracy_mean,
        accuracy_std=spread.accuracy_std,
        accuracy_delta_mean=spread.delta_mean,
        accuracy_delta_std=spread.delta_std,
        best_trade_off=False,
        accuracy_delta_relative_mean=spread.delta_relative_mean,
    )


@dataclasses.dataclass(frozen=True)
class Spread:
    """Means and sample standard deviations of accuracies and of their changes; deviations are None for one row.

    ``delta_relative_mean`` is the mean of the changes' shares of the original's accuracy; None if one of these is 0.
    """

    accuracy_mean: float
    accuracy_std: float | None
    delta_mean: float
    delta_std: float | None
    delta_relative_mean: float | None


def spread_of(rows: Sequence[Row]) -> Spread:
    """Over a plan's rows, from whole numbers of images, so that equal results give equal numbers."""
    right, original = (
        [_share(getattr(row, name), row.test_images) for row in rows] for name in ("accuracy", "accuracy_original")
    )
    gained = [share - before for share, before in zip(right, original, strict=True)]
    accuracy_std, delta_std = (float(stdev(each)) if len(rows) > 1 else None for each in (right, gained))
    relative = float(mean(map(operator.truediv, gained, original))) if all(original) else None
    return Spread(float(mean(right)), accuracy_std, float(mean(gained)), delta_std, relative)


def relative_change(accuracy: float, original: float, images: int) -> float | None:
    """(accuracy − original) / original, from whole numbers of right answers in ``images``; None if the original has none."""
    before = _share(original, images)
    return float((_share(accuracy, images) - before) / before) if before else None


def _share(accuracy: float, images: int) -> Fraction:
    """The accuracy as a whole number of right answers in so many ``images``; as it is if it is no such share."""
    share = Fraction(round(accuracy * images), images)
    return share if float(share) == accuracy else Fraction(accuracy)


def _beats(other: Summary, line: Summary) -> bool:
    """Whether ``other`` is at least as good in accuracy and operations, and better in one."""
    pair, best = ((-each.accuracy_mean, round(each.gflops * 1e9)) for each in (other, line))
    return pair != best and all(a <= b for a, b in zip(pair, best, strict=True))
