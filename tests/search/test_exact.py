"""Costs, stars and choices, computed again from shapes and whole numbers by trying everything; ties included."""

import random
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.runs.test_results import row as result
from toast_cli.layers import Shift
from toast_cli.models import factory as models
from toast_cli.plans import INDEPENDENT, SEQUENTIAL, Map, Plan, Span, Variant, variants
from toast_cli.runs.results import summarise
from toast_cli.runs.rows import Row
from toast_cli.runs.searched import Candidate, Found
from toast_cli.search import front
from toast_cli.search.budget import Budget
from toast_cli.search.held_out import Score
from toast_cli.search.measured import Survey
from toast_cli.search.sizes import Sizes
from toast_cli.surgery.costs import Costs

# The embedded model: 8 × 8 pixels in patches of 2 × 2, a class token, 12 blocks of width 64, MLPs 4 times as wide.
DEPTH, D, PATCHES, PATCH, WIDER = 12, 64, 16, 3 * 2 * 2, 4
T = PATCHES + 1
KINDS = ("", "identity", "shift")  # dense maps by default
IMAGES = 40
SEEDS = range(6)


def spans_of(text: str) -> list[tuple[int, int, str]]:
    """(start, end, kind) of each span of a plan's text."""
    spans = []
    for part in [] if text == "none" else text.split("+"):
        bounds, _, kind = part.partition(":")
        start, _, end = bounds.partition("-")
        spans.append((-1 if start == "stem" else int(start), int(end), kind))
    return spans


def cost(text: str) -> tuple[int, int]:
    """Parameters and FLOPs of a plan, from the shapes alone."""
    norms, attention, mlp = 2 * 2 * D, 4 * D * D + 4 * D, 2 * WIDER * D * D + WIDER * D + D
    block = (norms + attention + mlp, 2 * T * (4 * D * D + 2 * WIDER * D * D) + 2 * 2 * T * T * D)
    stem = (PATCH * D + D + D + T * D, 2 * PATCHES * PATCH * D)  # projection, class token, positions
    params, flops = stem[0] + 2 * D, stem[1]  # and the last norm
    spans = spans_of(text)
    stay = DEPTH - sum(end - start for start, end, _ in spans)
    params, flops = params + stay * block[0], flops + stay * block[1]
    chains: list[list[tuple[int, int, str]]] = []
    for span in spans:
        if chains and chains[-1][-1][1] == span[0]:
            chains[-1].append(span)
        else:
            chains.append([span])
    for chain in chains:
        kinds = [kind for _, _, kind in chain if kind != "identity"]
        if (
            "" in kinds and chain[0][0] != -1
        ):  # behind the stem all maps fold into it, and a shift into the block before it
            shifted = "shift" in kinds[kinds.index("") :]  # one dense map for the whole chain, with a bias for a shift
            params, flops = params + D * D + D * shifted, flops + 2 * T * D * D
    return params, flops


def random_plans(draw: random.Random, count: int) -> list[Plan]:
    """Plans of a few short spans: many of equal cost, some of whose spans chain."""
    plans = set()
    while len(plans) < count:
        position, spans = -1, []
        for _ in range(draw.randint(1, 4)):
            start = position + draw.randint(0, 2)
            end = start + draw.randint(1, 2)
            if end >= DEPTH - 1:
                break
            spans.append(Span(start, end, draw.choice(KINDS)))
            position = end
        if spans:
            plans.add(Plan(tuple(spans)))
    plans = sorted(plans)
    draw.shuffle(plans)
    return plans


@pytest.fixture(scope="module")
def costs() -> Costs:
    options = {"patch_size": 2, "embed_dim": D, "depth": DEPTH, "num_heads": 4}
    backbone = models.load("v", "vit_tiny_patch16_224", pretrained=False, image_size=8, options=options)
    ends = {(s, s + length) for s in range(-1, DEPTH) for length in (1, 2)} | {(0, end) for end in range(1, 9)}
    made = {
        "": lambda: torch.nn.Linear(D, D, bias=False),
        "identity": torch.nn.Identity,
        "shift": lambda: Shift(torch.ones(D)),
    }
    maps = {Map(Span(*end, kind), 5): made[kind]() for end in ends for kind in KINDS}
    with torch.inference_mode():
        return Costs(backbone, maps)


def columns(costs: Costs, plan: Plan) -> dict[str, Any]:
    return costs.columns(Variant(plan, 5))


@pytest.mark.parametrize("seed", SEEDS)
def test_costs_are_those_of_the_shapes(costs: Costs, seed: int):
    original = cost("none")
    for plan in [Plan(), *random_plans(random.Random(seed), 60)]:
        params, flops = cost(str(plan))
        assert columns(costs, plan) == {
            "params": params,
            "params_ratio": params / original[0],
            "gflops": flops / 1e9,
            "gflops_ratio": flops / original[1],
        }


@pytest.mark.parametrize("seed", SEEDS)
def test_stars_of_a_summary(costs: Costs, seed: int):
    draw = random.Random(seed)
    plans = [plan for plan in random_plans(draw, 150) if plan.blocks_removed < 4]  # many of equal cost
    right = {str(plan): draw.sample(draw.choice([[30, 31, 33], [31, 31, 32], [30, 31, 31]]), 3) for plan in plans}
    rows = [
        Row(**{
            **vars(result(text, number, count / IMAGES)), **columns(costs, Plan.parse(text)), "test_images": IMAGES,
            "accuracy_original": 33 / IMAGES, "accuracy_delta": count / IMAGES - 33 / IMAGES,
        })
        for text, counts in right.items()
        for number, count in enumerate(counts)
    ]  # fmt: skip
    stars = {line.plan for line in summarise(rows) if line.best_trade_off}
    expected = set()
    for text, counts in right.items():
        mine = (sum(counts), -cost(text)[1])
        others = [(sum(other), -cost(name)[1]) for name, other in right.items()]
        if not any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in others):
            expected.add(text)
    assert stars == expected


def measured_by_chance(
    costs: Costs, draw: random.Random, count: int = 50
) -> tuple[Survey, dict[str, tuple[float, int]]]:
    """A survey of random plans, and the loss and number of right answers of each by its text. The original has 33."""
    results, survey = {}, Survey.__new__(Survey)
    survey.costs, survey.measured, survey.refitted, survey.positions = costs, {}, {}, np.arange(IMAGES)
    survey.job = SimpleNamespace(  # type: ignore[assignment]
        data=SimpleNamespace(fit_sizes=[5]),
        backbone=costs.backbone,
        plans=[Plan((Span(0, 1, kind),)) for kind in KINDS],
        folder=SimpleNamespace(record={"latency": [1.0, -0.0625, 0.03125, 0.0, 0.015625]}),
    )
    singles = [Plan((Span(0, length),)) for length in range(1, 9)]  # a rival for each number of blocks
    for plan in [*random_plans(draw, count), *singles]:
        loss, right = draw.choice([0.25, 0.5, 0.75]), draw.randint(27, 33)
        results[str(plan)] = loss, right
        survey.measured[plan] = Candidate(
            model="m", data="d", translator="linear", plan=str(plan), blocks_removed=plan.blocks_removed, round=0,
            loss_predicted=None, loss=loss, loss_original=0.25, held_out_accuracy=right / IMAGES,
            held_out_accuracy_original=33 / IMAGES, held_out_images=IMAGES, params_ratio=1.0, gflops_ratio=1.0,
        )  # fmt: skip
    return survey, results


def removed(text: str) -> int:
    return sum(end - start for start, end, _ in spans_of(text))


def time(text: str) -> Fraction:
    """What the record of the fixture says of a block less, and of a map of each kind."""
    kinds = [kind for _, _, kind in spans_of(text)]
    each = {"": Fraction(1, 32), "identity": Fraction(0), "shift": Fraction(1, 64)}
    return 1 - Fraction(removed(text), 16) + sum(each[kind] for kind in kinds)


def at_most(share: Fraction, given: float) -> bool:
    """By the decimal that is given, or because it is the very share, as a table shows it."""
    return share <= Fraction(str(given)) or repr(float(share)) == repr(given)


def expected_answer(budget: Budget, results: dict[str, tuple[float, int]]) -> str | None:
    """By trying every plan against every other."""
    original = cost("none")
    fit = []
    for text, (_, right) in results.items():
        params, flops = (Fraction(own, whole) for own, whole in zip(cost(text), original, strict=True))
        checks = [
            removed(text) >= (budget.blocks or 0),
            budget.params is None or at_most(params, budget.params),
            budget.gflops is None or at_most(flops, budget.gflops),
            budget.latency is None or at_most(time(text), budget.latency),
            budget.accuracy_drop is None or at_most(Fraction(33 - right, IMAGES), budget.accuracy_drop),
        ]
        if all(checks):
            fit.append(text)

    def rank(text: str) -> tuple:
        loss, flops = results[text][0], cost(text)[1]
        numbers = (loss, flops) if budget.accuracy_drop is None else (flops, loss)
        return *numbers, len(spans_of(text)), spans_of(text)

    return next((one for one in fit if all(rank(one) <= rank(other) for other in fit)), None)


def budgets(draw: random.Random, results: dict[str, tuple[float, int]]) -> list[Budget]:
    """Budgets that plans meet exactly: shares of some of them as a table shows them, and decimals."""
    original = cost("none")
    params, flops = ([cost(text)[which] / original[which] for text in results] for which in (0, 1))
    return [
        Budget(),
        Budget(blocks=draw.randint(1, 5)),
        *(Budget(params=draw.choice(params)) for _ in range(4)),
        *(Budget(gflops=draw.choice(flops)) for _ in range(4)),
        Budget(gflops=0.85, params=draw.choice(params)),
        Budget(latency=draw.choice([0.8125, 0.75, 0.84375]), blocks=2),
        *(Budget(accuracy_drop=drop) for drop in (0.025, 0.05, 0.075, 0.1, 0.15)),
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_search_answers_and_its_best_for_each_number_of_blocks(costs: Costs, seed: int):
    draw = random.Random(seed)
    survey, results = measured_by_chance(costs, draw)
    for budget in budgets(draw, results):
        sizes = Sizes(survey, budget)
        answer = expected_answer(budget, results)
        assert answer is not None, "each of these budgets is met by a plan"
        expected = {answer}
        for blocks in {removed(text) for text in results}:
            of_these = {text: found for text, found in results.items() if removed(text) == blocks}
            small = Budget(budget.blocks, budget.params, budget.gflops, budget.latency)
            expected.add(expected_answer(small, of_these) or answer)
        assert {str(plan) for plan in front.best_measured(survey, sizes)} == expected
        chosen = sizes.budget.choose(
            survey.measured, sizes, lambda p: survey.measured[p].loss, lambda p: front._lost(survey.measured[p])
        )
        assert str(chosen) == answer


@pytest.mark.parametrize("seed", SEEDS)
def test_the_front_and_its_chosen_plan(costs: Costs, seed: int, monkeypatch: pytest.MonkeyPatch):
    """Every plan is fitted again in both ways, with other losses and accuracies."""
    draw = random.Random(seed)
    survey, measured = measured_by_chance(costs, draw, count=12)
    plans = list(survey.measured)
    final = variants(plans, [5], 12, (INDEPENDENT, SEQUENTIAL))
    scores = {each: (draw.choice([0.25, 0.375, 0.5]), draw.randint(27, 33)) for each in final}
    scores[final[0]] = 0.25, 33
    judged = {each: Score(loss, n / IMAGES, IMAGES) for each, (loss, n) in scores.items()}
    monkeypatch.setattr(survey, "scores", lambda _: judged)
    rows = [
        Row(**{**vars(result(str(each), 0, 0.9)), **columns(costs, each.plan), "sequential": each.sequential})
        for each in final
    ]
    job: Any = SimpleNamespace(
        variants=final, backbone=costs.backbone, folder=SimpleNamespace(rows=lambda *_: summarise(rows))
    )
    better = {}
    for plan in plans:
        both = [scores[each] for each in final if each.plan == plan]
        better[str(plan)] = min(both, key=lambda score: score[0])
    for budget in budgets(draw, measured):
        sizes = Sizes(survey, budget)
        monkeypatch.setattr(sizes, "time", lambda _: None)
        found: list[Found] = front.front_of(job, plans, survey, sizes, len(KINDS))
        answer = expected_answer(budget, better) if budget != Budget() else None
        assert [line.plan for line in found if line.chosen] == ([answer] if answer else [])
        for line in found:
            loss, right = better[line.plan]
            assert (line.loss, line.held_out_accuracy_delta) == (loss, (right - 33) / IMAGES)
            beaten = [name for name, other in better.items() if other[0] < loss and cost(name)[1] <= cost(line.plan)[1]]
            assert line.best_trade_off == (not beaten)


def test_a_decimal_allows_as_many_images_as_it_says():
    plan = Plan.parse("0-1")
    for images in (7, 100, 300, 1000, 1437, 50_000):
        for percent in range(1, 100):
            given, most = float(f"0.{percent:02}"), percent * images // 100  # whole numbers below
            for original in (images, images - 1):
                for right, allowed in ((original - most, True), (original - most - 1, False)):
                    if right < 0:
                        continue
                    drop = front._drop(right / images, original / images, images)
                    chosen = Budget(accuracy_drop=given).choose(
                        [plan], lambda _: {"gflops": 1.0}, lambda _: 0.0, lambda _, drop=drop: drop
                    )
                    assert (chosen is not None) == allowed, (images, percent, right)
