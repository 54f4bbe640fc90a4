"""Spans of blocks, and plans made of them: parse, enumerate, validate, print.

Blocks are 0 … L−1. The latent X^(i) is the output of block i; X^(−1), the output of the *stem*, is what enters block 0.
Removing the span (s, e) replaces blocks s+1 … e by one translator X^(e) ≈ T(X^(s)). Its ends may lie inside a block too,
between its attention and its MLP (see points.py): then half of that block leaves.

Plan text: ``9-11`` is one span, ``stem-2`` starts at the stem, ``2-3+9-11`` has two spans, ``none`` has none;
``2-3:identity+9-11`` names a translator of its own for the first span. ``8-9a`` removes block 9's attention alone,
``9a-9`` its MLP, ``9a-11`` its MLP and blocks 10 and 11.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from toast_cli.errors import ToastError
from toast_cli.plans.points import STEM, Kept, Point, is_point, kept_between, parse_point, point_text, whole

_SPAN = re.compile(r"(stem|\d{1,9}a?)-(\d{1,9}a?)(?::(\w+))?", re.ASCII)


@dataclass(frozen=True, order=True)
class Span:
    """What lies between two points leaves: blocks ``start + 1 … end`` if both are whole. ``start`` is −1 (the stem) or more,
    and less than ``end``.

    ``translator`` names the translator that takes its place; if empty, it is the run's own. Raises ToastError for
    other bounds.
    """

    start: Point
    end: Point
    translator: str = ""

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if not is_point(point := getattr(self, name)):
                raise ToastError(
                    f"span ({self.start}, {self.end}) is not between points: give halves of whole numbers."
                )
            object.__setattr__(self, name, whole(point))
        if not STEM <= self.start < self.end:
            inside = (
                "; 9a, between block 9's attention and its MLP, comes before 9" if (self.start + self.end) % 1 else ""
            )
            raise ToastError(f"span {self} must start before it ends: write s-e with s < e, or stem-e{inside}.")

    def __str__(self) -> str:
        own = f":{self.translator}" if self.translator else ""
        return f"{point_text(self.start)}-{point_text(self.end)}{own}"

    @property
    def blocks_removed(self) -> float:
        """How many blocks leave, an int unless it is half a block more."""
        return whole(self.end - self.start)

    @classmethod
    def parse(cls, text: str) -> "Span":
        """The inverse of ``str``. Raises ToastError for text that is not a span."""
        match = _SPAN.fullmatch(text.strip())
        if match is None:
            shown = text if len(text) <= 60 else f"{text[:60]}…"
            raise ToastError(
                f"span {shown!r} is not understood: write s-e (blocks s+1 to e leave), such as 9-11 or stem-2; 8-9a is block 9's attention alone."
            )
        start, end, translator = match.groups(default="")
        return cls(parse_point(start), parse_point(end), translator)


@dataclass(frozen=True, order=True)
class Plan:
    """Disjoint spans, in order, removed together. Raises ToastError for spans that overlap.

    Spans may chain: (0, 2) and (2, 5). The plan without spans is the untouched model.
    """

    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", tuple(sorted(self.spans)))
        for left, right in zip(self.spans, self.spans[1:], strict=False):
            if right.start < left.end:
                raise ToastError(
                    f"spans {left} and {right} overlap: the spans of one plan must be disjoint, such as 2-3+9-11."
                )

    def __str__(self) -> str:
        return "+".join(map(str, self.spans)) or "none"

    @property
    def blocks_removed(self) -> float:
        """How many blocks leave, an int unless it is half a block more."""
        return whole(sum(span.blocks_removed for span in self.spans))

    @property
    def points(self) -> set[Point]:
        """The ends of its spans."""
        return {point for span in self.spans for point in (span.start, span.end)}

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """The inverse of ``str``. Raises ToastError for text that is not a plan."""
        return cls() if text.strip() == "none" else cls(tuple(Span.parse(part) for part in text.split("+")))

    def operations(self, depth: int, end: Point | None = None) -> tuple["Kept | Span", ...]:
        """The shortened model from stem to readout: an int is a block that stays, a Half the one branch of a block that stays,
        and a Span the translator in its place. With ``end``, what leads to the latent X^(``end``), behind all spans.

        Raises ToastError if a span ends past the last of the ``depth`` blocks.
        """
        operations: list[Kept | Span] = []
        position: Point = STEM
        for span in self.spans:
            if span.end > depth - 1:
                where = f"at block {span.end}" if span.end % 1 == 0 else f"in block {math.ceil(span.end)}"
                raise ToastError(f"span {span} ends {where}, but the model's {depth} blocks are 0 to {depth - 1}.")
            operations += [*kept_between(position, span.start), span]
            position = span.end
        return (*operations, *kept_between(position, depth - 1 if end is None else end))


def every_span(depth: int) -> list[Plan]:
    """One plan for each of the L(L+1)/2 spans of a model with L = ``depth`` blocks, those from the stem first."""
    return [Plan((Span(s, e),)) for s in range(STEM, depth - 1) for e in range(s + 1, depth)]


def every_half_span(depth: int) -> list[Plan]:
    """One plan for each of the L(2L+1) spans between the 2L + 1 points of a model with L = ``depth`` blocks, those from the
    stem first."""
    points = [STEM + number / 2 for number in range(2 * depth + 1)]
    return [Plan((Span(s, e),)) for s in points for e in points if s < e]


def single_blocks(depth: int) -> list[Plan]:
    """One plan for each block, removed on its own."""
    return [Plan((Span(i - 1, i),)) for i in range(depth)]


def pairs_of_blocks(depth: int) -> list[Plan]:
    """One plan for every two blocks that are not neighbours, each with its own translator."""
    return [Plan((Span(i - 1, i), Span(j - 1, j))) for i in range(depth) for j in range(i + 2, depth)]


_NAMED = {"all": every_span, "halves": every_half_span, "single": single_blocks, "pairs": pairs_of_blocks}


def parse_plans(spans: str | Iterable[str], depth: int) -> list[Plan]:
    """The plans that ``spans=`` on the command line asks for, each once, the untouched model always first.

    ``spans`` is ``all``, ``halves``, ``single``, ``pairs``, several of these (``all+pairs``), one plan's text or a list of such
    texts; ``depth`` is the model's number of blocks. Raises ToastError for anything else.
    """
    names = _names(spans)
    plans = [plan for name in names for plan in _NAMED[name](depth)] if names else written_plans(spans)
    for plan in plans:
        plan.operations(depth)
    return list(dict.fromkeys([Plan(), *plans]))


def written_plans(spans: str | Iterable[str]) -> list[Plan]:
    """The plans that ``spans`` writes out; none if it names a set of them, such as ``all``, which depends on a model's depth.

    Raises ToastError for what is no plan of any model.
    """
    if _names(spans):
        return []
    texts = [spans] if isinstance(spans, str) or not isinstance(spans, Iterable) else list(spans)
    if not texts:
        raise ToastError("spans is empty: use all, single or a list of plans such as [9-11,2-3+9-11].")
    return [_parse(text) for text in texts]


def _names(spans: object) -> list[str]:
    """The sets of plans that ``spans`` names; none if it is anything else."""
    names = spans.split("+") if isinstance(spans, str) else []
    return names if all(name in _NAMED for name in names) else []


def _parse(text: object) -> Plan:
    if not isinstance(text, str):
        raise ToastError(f"spans has the entry {text!r}: use all, single or a list of plans such as [9-11,2-3+9-11].")
    return Plan.parse(text)
