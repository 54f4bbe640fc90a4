"""That the walk does no more than it says; that its features are right is in test_models.py."""

import pytest
import torch

from tests.conftest import pixels, tiny
from toast_cli.models import factory as models
from toast_cli.plans import STEM, parse_plans
from toast_cli.stages.walk import Encoder, build_trie


@pytest.mark.parametrize(("pool", "tail"), [("token", 1), ("avg", None)])
def test_shared_prefixes_are_computed_once_and_tails_for_one_token(
    pool: str, tail: int | None, monkeypatch: pytest.MonkeyPatch
):
    backbone = tiny(depth=12, global_pool=pool)
    plans = parse_plans("all", 12)
    maps = {plan.spans[0]: torch.nn.Identity() for plan in plans[1:]}
    calls: list[tuple[int, int | None]] = []
    block, fused_blocks = models.Backbone.block, models.Backbone.fused_blocks

    def counted(self: models.Backbone, i: int, healed: dict):
        function = fused_blocks(self, i, healed)[i]
        return {i: lambda latent, extras, rows: calls.append((i, rows)) or function(latent, extras, rows)}

    monkeypatch.setattr(models.Backbone, "block", lambda self, i, *x: calls.append((i, None)) or block(self, i, *x))
    monkeypatch.setattr(models.Backbone, "fused_blocks", counted)
    Encoder(backbone, plans, maps)(pixels(2))
    assert len(calls) == build_trie(plans, 12).evaluations() == 298
    assert sum(plan.spans[0].start >= STEM for plan in plans[1:]) == 78
    last = [rows for i, rows in calls if i == 11]
    assert last.count(None) == (1 if tail else len(last)), "only the untouched model needs all tokens"
    assert len(last) == 1 + 66
    assert all(rows is None for i, rows in calls if i != 11)


def test_the_untouched_model_needs_no_second_copy_of_its_weights():
    backbone = tiny(depth=3)
    assert Encoder(backbone, parse_plans("none", 3), {}).fused == {}
    maps = {parse_plans("0-1", 3)[1].spans[0]: torch.nn.Identity()}
    assert set(Encoder(backbone, parse_plans("0-1", 3), maps).fused) == {2}
