"""Plans as they are fitted: which map takes a span's place, what it was fitted on, and which blocks behind it are healed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from toast_cli.plans.points import Half, Kept, Point
from toast_cli.plans.spans import Plan, Span

_NO_SPANS = Plan()


class PlanLike(Protocol):
    """A plan or a variant of one: the operations of a shortened model, where ``block_of`` tells blocks from maps."""

    def operations(self, depth: int) -> tuple[Any, ...]: ...


@dataclass(frozen=True, order=True)
class Map:
    """What takes a span's place: its translator, fitted on ``fit_images`` images. Written ``9-11@500``.

    Its sources are latents of the model without the spans of ``after``, written ``9-11@500~2-3``; if there are none, of
    the untouched model. If ``healed``, the blocks in between were healed: ``9-11@500~2-3~healed``.
    """

    span: Span
    fit_images: int
    after: Plan = _NO_SPANS
    healed: bool = False

    def __str__(self) -> str:
        after = f"~{self.after}{'~healed' * self.healed}" if self.after.spans else ""
        return f"{self.span}@{self.fit_images}{after}"

    @classmethod
    def parse(cls, text: str) -> "Map":
        """The inverse of ``str``."""
        span, _, rest = text.partition("@")
        images, _, rest = rest.partition("~")
        after, _, healed = rest.partition("~")
        return cls(Span.parse(span), int(images), Plan.parse(after or "none"), healed == "healed")

    def source(self, depth: int) -> "Prefix":
        """The operations that lead to its sources in a model of ``depth`` blocks."""
        before = Variant(self.after, self.fit_images, sequential=not self.healed, healed=self.healed)
        return Prefix(before.operations(depth, self.span.start))


@dataclass(frozen=True)
class HealedBlock:
    """Block ``block`` or half of it, its last layers refitted on ``fit_images`` images to what it receives in the model without
    the spans of ``after``, all of which end before it. Written ``6@500~2-5``, or ``6.mlp@500~2-6a``."""

    block: Kept
    fit_images: int
    after: Plan

    def __str__(self) -> str:
        return f"{self.block}@{self.fit_images}~{self.after}"


Step: TypeAlias = Kept | Map | HealedBlock


def kept_of(operation: object) -> Kept | None:
    """The block or half block that an operation of a plan is, healed or not; None for a map."""
    kept = operation.block if isinstance(operation, HealedBlock) else operation
    return kept if isinstance(kept, int | Half) else None


def block_of(operation: object) -> int | None:
    """The number of the block that an operation of a plan is, whole or half, healed or not; None for a map."""
    kept = kept_of(operation)
    return kept.block if isinstance(kept, Half) else kept


@dataclass(frozen=True)
class Prefix:
    """The first operations of a shortened model, from the stem to some latent."""

    steps: tuple[Step, ...]

    def operations(self, depth: int) -> tuple[Step, ...]:
        return self.steps


class Fit(NamedTuple):
    """What is fitted on what a plan's shortened model really produces, behind its first map; at most one is true.

    ``sequential``: further maps. ``healed``: the blocks that stay, and further maps.
    """

    sequential: bool = False
    healed: bool = False


INDEPENDENT, SEQUENTIAL, HEALED = Fit(), Fit(sequential=True), Fit(healed=True)


@dataclass(frozen=True)
class Variant:
    """A plan with maps fitted on ``fit_images`` images; the untouched model needs none.

    If ``sequential``, each map after the first is fitted on what the model with the earlier maps really produces. If
    ``healed``, it is too, and so are the last layers of every block that stays behind the first map.
    """

    plan: Plan
    fit_images: int
    sequential: bool = False
    healed: bool = False

    def __str__(self) -> str:
        return str(self.plan)

    @property
    def maps(self) -> tuple[Map, ...]:
        found = []
        for number, span in enumerate(self.plan.spans):
            after = Plan(self.plan.spans[: number * (self.sequential or self.healed)])
            found.append(Map(span, self.fit_images, after, self.healed and bool(after.spans)))
        return tuple(found)

    def healed_blocks(self, depth: int) -> list[HealedBlock]:
        """The blocks that stay behind the first map, if they are healed."""
        return [step for step in self.operations(depth) if isinstance(step, HealedBlock)]

    def operations(self, depth: int, end: Point | None = None) -> tuple[Step, ...]:
        """``Plan.operations`` with a Map for each Span, and a HealedBlock for each block or half block that is healed."""
        maps, steps, spans = self.maps, list[Step](), 0
        for step in self.plan.operations(depth, end):
            if isinstance(step, Span):
                steps.append(maps[spans])
                spans += 1
            elif self.healed and spans:
                steps.append(HealedBlock(step, self.fit_images, Plan(self.plan.spans[:spans])))
            else:
                steps.append(step)
        return tuple(steps)


def variants(
    plans: Iterable[Plan], sizes: Iterable[int], depth: int, fits: Iterable[Fit] = (INDEPENDENT,)
) -> list[Variant]:
    """Every plan with each number of fit images and each kind of fit; the untouched model comes first, and only once.

    A fit that changes nothing is not listed: a sequential one of a single span, and a healed one where no block of the
    model's ``depth`` stays behind the first map.
    """
    plans, fits = list(plans), list(fits)
    wanted = [_variant(plan, size, fit, depth) for size in sizes for fit in fits for plan in plans]
    return [Variant(Plan(), 0), *dict.fromkeys(variant for variant in wanted if variant.plan.spans)]


def _variant(plan: Plan, size: int, fit: Fit, depth: int) -> Variant:
    if fit.healed and Variant(plan, size, healed=True).healed_blocks(depth):
        return Variant(plan, size, healed=True)
    return Variant(plan, size, fit != INDEPENDENT and len(plan.spans) > 1)
