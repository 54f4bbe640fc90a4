"""The plain procedure of scripts/bench_sweep.py, written apart from ours, must give what ours gives."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.conftest import pixels, tiny
from toast_cli.data import dataset as data
from toast_cli.models import factory as models
from toast_cli.moments import Moments
from toast_cli.plans import Plan, Span
from toast_cli.stages.walk import Encoder, latents
from toast_cli.surgery import shorten
from toast_cli.translators.closed_form import Linear

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_sweep.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_sweep", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plain_procedure_and_the_walk_agree(script: ModuleType):
    backbone = models.load(
        "digits_vit",
        "vit_tiny_patch16_224",
        checkpoint="pkg://toast_cli/weights/digits_vit.safetensors",
        image_size=8,
        options={"patch_size": 2, "embed_dim": 64, "depth": 12, "num_heads": 4},
    )
    digits = data.load("digits", "scikit-learn", fit_images=100, train_images=60, test_images=20)
    span = Span(8, 10)
    moments = Moments([(8, 10)])
    for batch in script.decoded(digits.fit[0], backbone, 32):
        moments.update(latents(backbone, batch))
    ours = {span: Linear().fit(moments.pair(8, 10)).to_module()}
    theirs = {span: script.naive_fit(script.naive_latents(backbone, digits, 32), span)}
    plan = Plan((span,))
    features = script.naive_encode(backbone, shorten(backbone, plan, theirs), digits.test, 8)
    walked = Encoder(backbone, [Plan(), plan], ours)(next(script.decoded(digits.test, backbone, 20)))[:, 1]
    assert (features - walked).norm() / walked.norm() < 1e-3
    row = script.naive(backbone, digits, 32)
    assert row["blocks_an_image"] == 518
    assert row["whole_s"] > 0


def test_efficiency_counts_what_the_walk_computes(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(script, "products", lambda *_: 2.0)
    monkeypatch.setattr(script, "seconds", lambda call, repeat=5: 1e-3)
    monkeypatch.setattr(script, "timed", lambda call: (1e-3, call()))
    backbone = tiny(depth=3)
    spans = script.paper_spans(3)
    assert spans == [Span(0, 1), Span(0, 2), Span(1, 2)]
    maps = {span: torch.nn.Linear(32, 32, bias=False) for span in spans}
    row = script.efficiency(backbone, pixels(4), maps, torch.float32)
    costs = script.Costs(backbone, maps)
    # blocks 0, 1, 2 of the untouched model, and the map 0-1, after which block 2 is for the class token alone
    expected = costs.ends.gflops + sum(costs.operations[key].gflops for key in (0, 1, 2, Span(0, 1)))
    assert row["walk_tflops"] == pytest.approx(expected / (1e-3 / 2) / 1e3)
    assert row["efficiency"] == pytest.approx(row["walk_tflops"] / 2)
