"""That nothing in the walk, the fit, healing and the probes makes a program wait for its GPU, shown without one."""

import dataclasses

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from tests.conftest import tiny
from tests.fake_gpu import CUDA, fake_gpu, of, on_gpu
from toast_cli.layers import dense
from toast_cli.models.backbone import Backbone
from toast_cli.plans import HEALED, parse_plans, variants
from toast_cli.probes import BatchedProbe, LinearProbe, MlpProbe
from toast_cli.stages.chain import Chain
from toast_cli.stages.originals import Originals
from toast_cli.stages.walk import Encoder, latents
from toast_cli.translators import Linear
from toast_cli.translators.context import Context
from toast_cli.translators.sums import Sums, Wanted, held_apart

pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available")


def images(backbone: Backbone, count: int = 20) -> torch.Tensor:
    return of((count, *backbone.image_shape), torch.uint8)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu", non_blocking=True),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x[torch.ones(3, dtype=torch.bool)],
        lambda x: x + torch.ones(3).to(CUDA),
        lambda x: torch.ones(3).copy_(x),
    ],
)
def test_what_waits_is_noticed(wrong):
    with fake_gpu(), pytest.raises((AssertionError, DataDependentOutputException, DynamicOutputShapeException)):
        wrong(of((3,)))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2", "eva02_tiny_patch14_224"])
def test_the_walk_never_waits(name):
    backbone = tiny(name, depth=4).on(torch.device("cpu"), torch.bfloat16)
    with fake_gpu():
        on_gpu(backbone)
        plans = parse_plans("all" if name == "vit_tiny_patch16_224" else ["1-2", "stem-1a"], 4)
        maps = {span: on_gpu(dense(torch.zeros(32, 32))) for plan in plans for span in plan.spans}
        found = Encoder(backbone, plans, maps)(images(backbone))
        assert (found.shape, found.device.type) == ((20, len(plans), backbone.feature_width), "cuda")


def moved(sums: Sums) -> None:
    """The bases that sums have chosen from a first batch, on the fake GPU."""
    for moments in (*sums.seen.moments, sums.seen.means, *sums.apart.moments, sums.apart.means):
        for layer, basis in moments._basis.items():
            into = None if basis.into is None else of(basis.into.shape)
            moments._basis[layer] = dataclasses.replace(basis, mean=of(basis.mean.shape, basis.mean.dtype), into=into)


@pytest.mark.parametrize("translator", [Linear(), Linear(tokens="split"), Context([1.0])])
@pytest.mark.parametrize("scored", [True, False])
def test_after_the_first_batch_the_fit_never_waits(translator, scored: bool):
    backbone, numbers = tiny(depth=4), np.arange(20)
    assert 0 < held_apart(numbers, 0.2).sum() < 20
    sums = Sums(
        [Wanted(-1, 1, translator), Wanted(1.5, 3, translator)], backbone.prefix_tokens, backbone.tokens, scored
    )
    first = {layer: torch.randn(20, backbone.tokens, 32) for layer in (-1, 1, 1.5, 3)}
    first[-1][..., 1] = first[-1][..., 0] + 1e-3 * first[-1][..., 1]
    sums.choose_bases(numbers, first)
    assert any(basis.into is not None for basis in sums.seen.moments[-1]._basis.values()), "or whitening is not tried"
    with fake_gpu() as calls:
        moved(sums)
        on_gpu(backbone)
        for batch in (numbers, numbers + 20):
            sums.update(batch, latents(backbone, images(backbone), {2}))
        assert calls.count("aten.mm.default") > 10
    assert sums.seen.moments[-1]._total[-1].device.type == "cuda"


def test_healing_never_waits_between_two_solutions(monkeypatch: pytest.MonkeyPatch, tmp_path):
    backbone, numbers = tiny(depth=4).on(torch.device("cpu"), torch.bfloat16), np.arange(40)
    with fake_gpu():
        on_gpu(backbone)
        healed = [each for each in variants(parse_plans(["0-1", "0-1a"], 4), [40], 4, [HEALED]) if each.healed]
        originals = Originals(tmp_path, backbone, healed, 40, in_memory=True)
        for batch in np.split(numbers, 2):
            originals.add(batch, originals.encode(images(backbone)))
        maps = {key: on_gpu(dense(torch.zeros(32, 32))) for plan in healed for key in plan.maps}
        chain = Chain(originals, backbone, dict(maps), {}, lambda *_: 1 / 0, lambda *_: None)
        seen: list[tuple[int, str, str]] = []

        def solved(block, branch, kept, held_out):
            seen.append((block, branch.name, kept._sums["xx"].device.type))
            return {f"{branch.name}.{name}": of(each.shape) for name, each in branch.last.named_parameters()}

        monkeypatch.setattr(chain, "_solved", solved)
        chain.follow(healed, 40, 20)
    ends = [(block, end, "cuda") for block in (2, 3) for end in ("attn.proj", "mlp.fc2")]
    assert sorted(set(seen)) == sorted([*ends, (1, "mlp.fc2", "cuda")])


@pytest.mark.parametrize("probe", [LinearProbe(epochs=2, batch_size=8), MlpProbe(epochs=2, batch_size=8)])
def test_the_training_of_a_probe_never_reads_from_its_device(probe: BatchedProbe):
    """On ``meta``, which gives its values to nobody: torch takes no gradients on a GPU that is not there."""
    features, labels = np.zeros((20, 3, 32), np.float32), np.arange(20) % 4
    trained = probe.on(torch.device("meta"), None).fit(features, labels, 4, seed=0)
    with pytest.raises(NotImplementedError):
        trained.predict(features)
