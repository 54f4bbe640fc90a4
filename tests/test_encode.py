"""That the walk does no more than it says; that its features are right is in test_models.py."""

import pytest
import torch

from tests.conftest import pixels, tiny
from toast_cli import models
from toast_cli.encode import Encoder, build_trie
from toast_cli.plans import STEM, parse_plans


@pytest.mark.parametrize(("pool", "tail"), [("token", 1), ("avg", None)])
def test_shared_prefixes_are_computed_once_and_tails_for_one_token(
    pool: str, tail: int | None, monkeypatch: pytest.MonkeyPatch
):
    backbone = tiny(depth=12, global_pool=pool)
    plans = parse_plans("all", 12)
    maps = {plan.spans[0]: torch.nn.Identity() for plan in plans[1:]}
    calls: list[tuple[int, int | None]] = []
    block = models.Backbone.block
    monkeypatch.setattr(
        models.Backbone, "block", lambda self, i, x, rows=None: calls.append((i, rows)) or block(self, i, x, rows)
    )
    Encoder(backbone, plans, maps)(pixels(2))
    assert len(calls) == build_trie(plans, 12).evaluations() == 298
    assert sum(plan.spans[0].start >= STEM for plan in plans[1:]) == 78
    last = [rows for i, rows in calls if i == 11]
    assert last.count(None) == (1 if tail else len(last)), "only the untouched model needs all tokens"
    assert len(last) == 1 + 66
    assert all(rows is None for i, rows in calls if i != 11)


def test_leading_rows_looks_at_no_other_query(monkeypatch: pytest.MonkeyPatch):
    backbone = tiny()
    seen: list[int] = []
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v: seen.append(q.shape[-2]) or attend(q, k, v)
    )
    latent = backbone.stem(pixels(2))
    assert models.leading_rows(backbone.blocks[0], latent, 1).shape == (2, 1, 32)
    assert seen == [1]
