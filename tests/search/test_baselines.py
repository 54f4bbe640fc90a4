"""What others would remove: block influence from its definition, draws that repeat, plans that remove what they should."""

import random
from itertools import combinations
from math import comb
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import pixels, tiny
from toast_cli.errors import ToastError
from toast_cli.plans import Plan
from toast_cli.runs.folder import Folder
from toast_cli.search.baselines import DRAWS, plans_of, random_blocks, without
from toast_cli.search.influence import block_influence
from toast_cli.search.settings import check_names

DEPTH = 5


@pytest.fixture
def job(tmp_path) -> Any:
    """Six fit images in two parts, in batches of up to four; ``passes`` counts how often they are seen."""
    images, parts = pixels(6), [range(4), range(4, 6)]

    def batches(part: range, size: int):
        found.passes += part.start == 0
        for first in range(part.start, part.stop, size):
            some = images[first : min(first + size, part.stop)]
            yield SimpleNamespace(pixels=some, positions=np.arange(len(some)), size=len(some))

    found = SimpleNamespace(
        backbone=tiny(depth=DEPTH), data=SimpleNamespace(fit=parts, seed=0), batches=batches, batch_size=3, passes=0,
        folder=Folder(tmp_path), translator=SimpleNamespace(name="linear"),
    )  # fmt: skip
    return found


def expected_influence(backbone: Any, images: torch.Tensor) -> list[float]:
    """By hooks on timm's own forward pass, all tokens stacked."""
    through = {}
    for i, block in enumerate(backbone.vit.blocks):
        block.register_forward_hook(lambda _, into, out, i=i: through.update({i: (into[0], out)}))
    with torch.inference_mode():
        backbone.vit(backbone.normalise(images))
    pairs = [[latent.double().flatten(0, 1) for latent in through[i]] for i in range(DEPTH)]
    return [1 - torch.cosine_similarity(x, y, dim=1).mean().item() for x, y in pairs]


def test_influence_from_its_definition(job: Any):
    found = block_influence(job)
    assert found == pytest.approx(expected_influence(job.backbone, pixels(6)), abs=1e-6)
    assert min(found) > 1e-3, "far from the tolerance"


def test_influence_takes_one_pass_and_is_kept(job: Any):
    first = block_influence(job)
    assert block_influence(job) == first
    assert job.passes == 1
    job.folder.note(block_influence=first[1:])  # of another model
    assert block_influence(job) == first


def removed(plan: Plan, depth: int) -> set[int]:
    return set(range(depth)) - {step for step in plan.operations(depth) if isinstance(step, int)}


def test_the_least_influential_blocks_leave(job: Any):
    influence = expected_influence(job.backbone, pixels(6))
    found = plans_of(job, ["influence", "last"], [3, 1, 3])
    assert list(found) == [("influence", 1), ("last", 1), ("influence", 3), ("last", 3)]
    for size in (1, 3):
        (plan,) = found["influence", size]
        least = min(combinations(range(DEPTH), size), key=lambda blocks: sum(influence[i] for i in blocks))
        assert removed(plan, DEPTH) == set(least)
    assert [str(found["last", size][0]) for size in (1, 3)] == ["3-4:identity", "1-4:identity"]


def test_influence_is_measured_only_where_it_is_asked_for(job: Any):
    plans_of(job, ["last", "random"], [1, 2])
    assert job.passes == 0


def test_where_the_identity_is_the_runs_own_it_has_no_name(job: Any):
    job.translator.name = "identity"
    assert [str(plan) for plan in plans_of(job, ["last"], [2])["last", 2]] == ["2-4"]


def test_plans_remove_the_blocks_that_are_asked_for():
    generator = random.Random(0)
    for _ in range(200):
        depth = generator.randint(2, 24)
        blocks = generator.sample(range(depth), generator.randint(1, depth - 1))
        plan = without(blocks, "identity")
        assert removed(plan, depth) == set(blocks)
        assert all(left.end < right.start for left, right in zip(plan.spans, plan.spans[1:], strict=False))
        assert {span.translator for span in plan.spans} == {"identity"}
    assert str(without([3, 0, 4, 11], "identity")) == "stem-0:identity+2-4:identity+10-11:identity"


@pytest.mark.parametrize("depth", [2, 6, 7, 12, 24])
def test_draws_are_different_and_all_where_there_are_few(depth: int):
    for size in range(1, depth):
        drawn = random_blocks(depth, size, seed=1)
        assert len(set(drawn)) == len(drawn) == min(DRAWS, comb(depth, size))
        assert all(len(set(blocks)) == size and set(blocks) <= set(range(depth)) for blocks in drawn)
        assert drawn == random_blocks(depth, size, seed=1)
        if comb(depth, size) > 100:
            assert set(drawn) != set(random_blocks(depth, size, seed=2))


def test_draws_favour_no_block():
    """Over 400 seeds each of 12 blocks leaves in a third of the draws of four, within five standard errors."""
    leaves = np.zeros(12)
    for seed in range(400):
        for blocks in random_blocks(12, 4, seed):
            leaves[list(blocks)] += 1
    share = leaves / (400 * DRAWS)
    assert abs(share - 1 / 3).max() < 5 * (1 / 3 * 2 / 3 / (400 * DRAWS)) ** 0.5


def test_names():
    assert check_names(["random", "last", "random"]) == ("random", "last")
    assert check_names([]) == ()
    for given in ("last", None, 3, ["lost"], [3], [["last"]]):
        with pytest.raises(ToastError, match="search.baselines="):
            check_names(given)
