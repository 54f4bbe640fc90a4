"""Print how alike latents are, and where the pictures of it are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from toast_cli.folders import from_here
from toast_cli.plans import Plan
from toast_cli.report.screen import WHOLE, say, show, to_copy
from toast_cli.runs.measured import Similarity
from toast_cli.runs.rows import Number

_HEADINGS = {"cka": "CKA", "cosine": "cosine", "mse": "MSE", "r2": "R² linear", "r2_identity": "R² no map"}
_Line = tuple[str, Number, Mapping[str, float]]  # what is compared, the blocks that leave, a value for each measure


def meaning_of(rows: Sequence[Similarity]) -> list[Similarity]:
    """The rows of one ``similarity.csv`` as today's measures.

    Versions of toast that had no ``r2_identity`` called it ``r2`` where it was between plans.
    """
    if any(row.measure == "r2_identity" for row in rows):
        return list(rows)
    return [replace(row, measure="r2_identity") if (row.kind, row.measure) == ("plans", "r2") else row for row in rows]


def print_similarity(rows: Sequence[Similarity], path: Path) -> None:
    """Print each block's output beside what enters it, the last latents of plans, and the pictures in the folder ``path``."""
    head = rows[0]
    blocks = _blocks([row for row in rows if row.kind == "blocks"])
    _table(
        f"{head.model} on {head.data}, {head.fit_images} images: each block's output beside what enters it",
        blocks,
        "block",
    )
    plans = _plans([row for row in rows if row.kind == "plans"])
    if plans:
        shown = plans if len(plans) <= WHOLE else _closest(plans)
        say("")
        _table("The last latent of the untouched model beside that of plans", shown, "plan")
        if len(shown) < len(plans):
            say("")
            say(f"The plan of least MSE of {len(plans)} for each number of blocks removed; similarity.csv has all.")
    say("")
    say(
        "R² linear: what a least-squares map of the first explains of the second; R² no map: as it is. 1 is alike, for MSE 0."
    )
    pictures = sorted(path.glob("*.png"))
    say(f"{len(pictures)} pictures, as .png and .pdf, in {from_here(path)}:")
    for picture in pictures:
        to_copy(picture.stem)


def _blocks(rows: Sequence[Similarity]) -> list[_Line]:
    """A line for each block: its number, and the measures of what enters it (source) and what leaves it (target)."""
    values = {(row.source, row.target, row.measure): row.value for row in rows}
    layers = list(dict.fromkeys(row.source for row in rows))
    layers.sort(key=lambda name: -1 if name == "stem" else int(name))
    return [
        (after, 1, {name: values[before, after, name] for name in _HEADINGS if (before, after, name) in values})
        for before, after in pairwise(layers)
    ]


def _plans(rows: Sequence[Similarity]) -> list[_Line]:
    """A line for each plan that was compared, with its number of fit images if there are several."""
    several = len({row.fit_images for row in rows}) > 1
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        found.setdefault((row.target, row.fit_images), {})[row.measure] = row.value
    return [
        (f"{plan} ({images} fit images)" if several else plan, Plan.parse(plan).blocks_removed, values)
        for (plan, images), values in found.items()
    ]


def _closest(lines: Sequence[_Line]) -> list[_Line]:
    best: dict[Number, _Line] = {}
    for line in sorted(lines, key=lambda line: (line[1], line[2]["mse"])):
        best.setdefault(line[1], line)
    return list(best.values())


def _table(title: str, lines: Sequence[_Line], what: str) -> None:
    def value(name: str) -> Callable[[_Line], str]:
        return lambda line: _text(line[2][name]) if name in line[2] else ""

    columns: list[tuple[str, Callable[[_Line], str]]] = [
        (what, lambda line: line[0]),
        ("blocks", lambda line: f"-{line[1]}" if what == "plan" else ""),
    ]
    show(title, lines, columns + [(heading, value(name)) for name, heading in _HEADINGS.items()])


def _text(value: float) -> str:
    """Three decimals; a value too large for them with three digits."""
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.2e}"
