"""Exports without toast: by timm's own loader, and by the file that is copied beside the weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from tests.conftest import pixels, tiny
from tests.exports import saved
from tests.models.families import FAMILIES
from tests.surgery.test_context import some_map
from toast_cli import load
from toast_cli.layers import ByPosition, Residual, Shift, UnitLength
from toast_cli.surgery import modeling, standalone
from toast_cli.surgery.recipe import RECIPE
from toast_cli.surgery.saved import write_weights


def _recipe(folder: Path) -> dict:
    return json.loads((folder / RECIPE).read_text())


@pytest.mark.parametrize("family", FAMILIES)
def test_timm_loads_what_has_only_blocks(family: str, tmp_path: Path):
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    vit = saved(tmp_path, backbone, "1-2", layer=torch.nn.Identity)
    again, images = load(tmp_path), backbone.normalise(pixels())
    recipe = _recipe(tmp_path) | {"blocks": [0, 1]}  # as folded: the identity is gone
    vit.blocks = vit.blocks[:2]
    write_weights(tmp_path, vit, torch.float32)
    with torch.inference_mode():
        outputs = vit(images)
        assert torch.allclose(again(images), outputs, atol=1e-6)
    found = standalone.add(tmp_path, vit, recipe, images, outputs)
    assert found == standalone.CONFIG
    by_timm = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert len(by_timm.blocks) == 2
    with torch.inference_mode():
        assert torch.equal(by_timm(images), outputs)


@pytest.mark.parametrize(
    ("family", "plan"),
    [
        *((family, "0-1a" if family != "parallel blocks" else "0-1") for family in FAMILIES),
        ("layer scale", "1a-2"),
        ("rotary embeddings, DINOv3", "1a-2"),
    ],
)
def test_the_copied_file_loads_maps_and_half_blocks(family: str, plan: str, tmp_path: Path):
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    vit = saved(tmp_path, backbone, plan, layer=lambda: some_map(backbone.prefix_tokens))
    images = backbone.normalise(pixels())
    with torch.inference_mode():
        outputs = load(tmp_path)(images)
        assert standalone.add(tmp_path, vit, _recipe(tmp_path), images, outputs) == standalone.MODELING
        assert torch.equal(modeling.load(tmp_path)(images), outputs)
    assert (tmp_path / standalone.MODELING).read_bytes() == Path(modeling.__file__).read_bytes()
    assert not (tmp_path / standalone.CONFIG).exists()


def every_layer() -> torch.nn.Module:
    linear, norm = torch.nn.Linear(32, 32), torch.nn.LayerNorm(32)
    deep = torch.nn.Sequential(torch.nn.Linear(32, 16), torch.nn.GELU(), torch.nn.SiLU(), torch.nn.Tanh(), torch.nn.Linear(16, 32, bias=False))  # fmt: skip
    rest = torch.nn.Sequential(norm, torch.nn.Identity(), UnitLength(), Shift(torch.randn(32)), linear)
    return ByPosition([Residual(deep), rest], [slice(0, 1), slice(1, 17)])


def test_it_knows_every_layer_and_imports_no_toast(tmp_path: Path):
    vit, images = saved(tmp_path, tiny(), layer=every_layer), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        outputs = load(tmp_path)(images)
    assert standalone.add(tmp_path, vit, _recipe(tmp_path), images, outputs) == standalone.MODELING
    torch.save({"images": images, "outputs": outputs}, tmp_path / "seen.pt")
    script = (
        "import sys, torch; from modeling import load; seen = torch.load('seen.pt'); torch.set_grad_enabled(False);"
        "assert torch.equal(load()(seen['images']), seen['outputs']); print([m for m in sys.modules if 'toast' in m])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert len(Path(modeling.__file__).read_text().splitlines()) < 150


def test_a_file_that_gives_another_model_is_not_left(tmp_path: Path):
    vit, images = saved(tmp_path, tiny(), layer=lambda: torch.nn.Linear(32, 32)), torch.randn(2, 3, 32, 32)
    assert standalone.add(tmp_path, vit, _recipe(tmp_path), images, torch.zeros(2, 5)) is None
    assert not (tmp_path / standalone.MODELING).exists()
