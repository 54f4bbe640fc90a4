"""That the walk does no more than it says; that its features are right is in test_models.py."""

import pytest
import torch

from tests.conftest import pixels, tiny
from toast_cli.models import factory as models
from toast_cli.plans import STEM, Plan, parse_plans, variants
from toast_cli.stages.walk import Encoder, build_trie, latents


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


@pytest.mark.usefixtures("two_threads")
def test_latents_of_two_threads_are_those_of_one():
    backbone, images = tiny(depth=3), pixels(5)
    found = latents(backbone, images, {1})
    torch.set_num_threads(1)
    alone = latents(backbone, images, {1})
    assert list(found) == list(alone) == [STEM, 0, 0.5, 1, 2]
    assert all(torch.equal(found[layer], alone[layer]) for layer in alone)
    assert all(len(each) == 5 and not each.requires_grad for each in found.values())


class Asked(torch.nn.Module):
    """A map that notes whether a GPU would round the factors of its products."""

    def __init__(self, plan: Plan, notes: dict[str, bool]) -> None:
        super().__init__()
        self.plan, self.notes = plan, notes

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        self.notes[str(self.plan)] = torch.backends.cuda.matmul.allow_tf32
        return latent


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fitted", [False, True])
def test_gpus_round_maps_of_latents_that_are_rounded_already_and_nothing_else(dtype: torch.dtype, fitted: bool):
    plans = parse_plans(["stem-1", "0-1", "0a-1", "1-2", "1a-2", "2-3", "2a-3"], 4)
    steps = variants(plans, [8], 4) if fitted else plans
    notes: dict[str, bool] = {}
    maps = {
        (each.maps if fitted else each.spans)[0]: Asked(plan, notes)
        for each, plan in zip(steps, plans, strict=True)
        if plan.spans
    }
    Encoder(tiny(depth=4).on(torch.device("cpu"), dtype), steps, maps)(pixels(2))
    rounded = {"2-3", "2a-3"} if dtype == torch.bfloat16 else set()
    assert {plan for plan, asked in notes.items() if asked} == rounded
    assert len(notes) == 7
    assert not torch.backends.cuda.matmul.allow_tf32, "the rest of the program is exact"


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("images", "tolerance"), [(64, 0.0), (5, 2e-6)])
def test_threads_with_images_of_their_own_give_what_all_give_together(images: int, tolerance: float):
    plans = parse_plans(["1-2", "0-1+2a-3", "stem-1", "1-3"], 4)
    maps = {span: torch.nn.Identity() for plan in plans for span in plan.spans}
    encoder, batch = Encoder(tiny(depth=4), plans, maps), pixels(images)
    apart, together = encoder(batch), encoder.encode(batch)
    assert torch.equal(apart[:, 0], together[:, 0]), "the untouched model, bit for bit"
    # products of very few rows, the class tokens of some images, may add up in another order
    torch.testing.assert_close(apart, together, rtol=0, atol=tolerance)
