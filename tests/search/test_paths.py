import itertools

import numpy as np
import pytest

from toast_cli.plans import Plan, Span, every_half_span
from toast_cli.search.paths import Predictor, best_first, possible, promising, shortest

DEPTH = 6


def every_plan(removed: int, names: tuple[str, ...] = ("",)) -> list[Plan]:
    """By brute force: every set of blocks, its runs being the spans, with every choice of translators."""
    found = []
    for blocks in itertools.combinations(range(DEPTH), removed):
        starts = [block for block in blocks if block - 1 not in blocks]
        ends = [block for block in blocks if block + 1 not in blocks]
        for chosen in itertools.product(names, repeat=len(starts)):
            spans = [Span(start - 1, end, name) for start, end, name in zip(starts, ends, chosen, strict=True)]
            found.append(Plan(tuple(spans)))
    return found


def every_plan_of_halves(depth: int, removed: float) -> list[Plan]:
    """By brute force: every set of half blocks, its runs being the spans."""
    found = []
    for gone in itertools.combinations(range(2 * depth), int(2 * removed)):
        starts = [half for half in gone if half - 1 not in gone]
        ends = [half for half in gone if half + 1 not in gone]
        spans = [Span(start / 2 - 1, end / 2 - 0.5) for start, end in zip(starts, ends, strict=True)]
        found.append(Plan(tuple(spans)))
    return found


@pytest.fixture
def losses() -> dict[Span, float]:
    generator = np.random.default_rng(0)
    spans = [Span(s, e, name) for s in range(-1, DEPTH - 1) for e in range(s + 1, DEPTH) for name in ("", "identity")]
    return {span: float(value) for span, value in zip(spans, generator.random(len(spans)), strict=True)}


@pytest.mark.parametrize("removed", [1, 2, 3, 4])
def test_paths_are_the_best_plans_there_are(losses: dict[Span, float], removed: int):
    predictor = Predictor(losses)
    best = best_first(every_plan(removed, ("", "identity")), predictor)[:5]
    assert best_first(shortest(losses, DEPTH, 4, keep=5)[removed], predictor)[:5] == best


def test_every_number_of_spans_keeps_its_own(losses: dict[Span, float]):
    counts = {len(plan.spans) for plan in shortest(losses, DEPTH, 4, keep=1)[3]}
    assert counts == {1, 2, 3}


@pytest.mark.parametrize("removed", range(1, 6))
def test_how_many_there_are(removed: int):
    assert possible(DEPTH, removed) == len(every_plan(removed))
    assert possible(DEPTH, removed, translators=2) == len(every_plan(removed, ("", "identity")))


@pytest.mark.parametrize("removed", [0.5, 1, 1.5, 2, 2.5])
def test_paths_over_half_blocks(removed: float):
    depth, generator = 4, np.random.default_rng(1)
    losses = {plan.spans[0]: float(generator.random()) for plan in every_half_span(depth) if plan.blocks_removed <= 2.5}
    everything = every_plan_of_halves(depth, removed)
    assert len(everything) == possible(depth, removed, parts=2)
    found = shortest(losses, depth, 2.5, keep=6)
    assert sorted(found) == [0.5, 1, 1.5, 2, 2.5]
    predictor = Predictor(losses)
    assert best_first(found[removed], predictor)[:6] == best_first(everything, predictor)[:6]


def test_what_is_learned_of_a_block_holds_for_half_of_it():
    single = dict.fromkeys((plan.spans[0] for plan in every_half_span(DEPTH)), 0.1)
    measured = {Plan.parse(text): 0.2 for text in ("stem-0+1-2", "stem-0+3-4", "1-2+3-4")}
    measured[Plan.parse("stem-0+1-2")] += 0.6
    predictor = Predictor(single).fit(measured)
    assert predictor(Plan.parse("stem-0a+2a-2")) > predictor(Plan.parse("stem-0a+4a-4")) + 0.1, "0 and 2 leave together"


def test_corrections_learn_what_is_not_additive():
    single = {Span(i - 1, i): 0.1 * (i + 1) for i in range(DEPTH)}
    plans = [plan for plan in every_plan(2) if len(plan.spans) == 2]
    truth = {plan: 1.5 * sum(single[span] for span in plan.spans) for plan in plans}
    predictor = Predictor(single).fit(truth)
    assert predictor.scale_ == pytest.approx(0.5, abs=0.01)
    three = Plan.parse("stem-0+1-2+3-4")
    assert predictor(three) == pytest.approx(1.5 * 0.9, rel=0.02)
    assert predictor(Plan.parse("1-2")) == pytest.approx(0.3), "a single span is what was measured"
    truth[plans[0]] += 0.3
    assert Predictor(single).fit(truth)(plans[0]) > predictor(plans[0]) + 0.1


def test_what_is_learned_of_blocks_holds_for_other_spans():
    single = {Span(i - 1, i + more): 0.1 for i in range(DEPTH) for more in (0, 1)}
    measured = {Plan.parse(text): 0.2 for text in ("stem-0+1-2", "stem-0+3-4", "1-2+3-4")}
    measured[Plan.parse("stem-0+1-2")] += 0.6
    predictor = Predictor(single).fit(measured)
    assert predictor(Plan.parse("stem-0+1-3")) > predictor(Plan.parse("0-1+2-4")) + 0.1, "0 and 2 leave together"


def test_what_is_measured_is_not_promising_again(losses: dict[Span, float]):
    pools = [every_plan(2, ("", "identity")), every_plan(3, ("", "identity"))]
    first = promising(pools, losses, {}, beam=4)
    assert [plan.blocks_removed for plan in first] == [2] * 4 + [3] * 4
    assert list(first.values()) == pytest.approx([sum(losses[span] for span in plan.spans) for plan in first])
    assert promising(pools, losses, first, beam=4) == {}, "as predicted: nothing new"
    dear = {plan: loss + 5 for plan, loss in first.items()}
    assert not dear.keys() & promising(pools, losses, dear, beam=4).keys()
