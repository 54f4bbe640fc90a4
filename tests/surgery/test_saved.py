"""Every family through the files of an export, and files that were tampered with."""

import pickle
import shutil

import pytest
import timm
import torch

from tests.conftest import pixels, tiny
from tests.exports import damage, saved
from tests.models.families import FAMILIES
from toast_cli import load
from toast_cli.errors import ToastError
from toast_cli.models.halves import HalfBlock
from toast_cli.surgery.recipe import RECIPE, WEIGHTS


@pytest.mark.parametrize("family", FAMILIES)
def test_family_reads_back(family: str, tmp_path):
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    vit, again = saved(tmp_path, backbone), load(tmp_path)
    images = backbone.normalise(pixels())
    with torch.inference_mode():
        assert torch.allclose(again(images), vit(images), atol=1e-6)  # older versions of torch are not exact to the bit
        assert torch.equal(again.forward_head(again.forward_features(images)), again(images))
        found = again.forward_intermediates(images, indices=[0, 1], intermediates_only=True)
    assert (len(found), len(again.blocks)) == (2, 3)
    assert type(again) is type(backbone.vit)
    assert again.num_features == backbone.width
    assert again.num_classes == 5
    assert timm.data.resolve_model_data_config(again)["input_size"] == (3, 32, 32)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("plan", ["0-1a", "1a-2", "0a-1a"])
def test_family_reads_back_with_half_blocks(family: str, plan: str, tmp_path):
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    if family == "parallel blocks":
        saved(tmp_path, backbone)
        damage(tmp_path, lambda recipe: recipe["blocks"].__setitem__(0, "0.mlp"))
        with pytest.raises(ToastError, match="a ParallelThingsBlock has no latent between its attention and its MLP"):
            load(tmp_path)
        return
    vit, again = saved(tmp_path, backbone, plan), load(tmp_path)
    images = backbone.normalise(pixels())
    with torch.inference_mode():
        assert torch.allclose(again(images), vit(images), atol=1e-6)
    assert sum(type(block) is HalfBlock for block in again.blocks) == {"0-1a": 1, "1a-2": 1, "0a-1a": 2}[plan]
    assert {name for name, _ in again.named_parameters()} == {name for name, _ in vit.named_parameters()}


@pytest.mark.slow
def test_a_loaded_model_is_an_ordinary_one(tmp_path):
    saved(tmp_path, tiny())
    model = load(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(pickle.loads(pickle.dumps(model))(images), model(images))
    model.train()(images).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert load(tmp_path, dtype=torch.float64)(images.double()).dtype == torch.float64
    model.eval()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)  # captured whole; needs no C++ compiler
        assert torch.allclose(compiled(images), model(images), atol=1e-6)
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        model.reset_classifier(0)
        assert torch.equal(model(images), features), "the head can be taken off"


def test_half_precision_is_half_the_file(tmp_path):
    sizes = {}
    for dtype in (torch.float32, torch.float16):
        folder = tmp_path / str(dtype)
        folder.mkdir()
        vit = saved(folder, tiny(), dtype=dtype)
        sizes[dtype] = (folder / WEIGHTS).stat().st_size
        images = torch.randn(2, 3, 32, 32)
        assert torch.allclose(load(folder)(images), vit(images), atol=3e-2)
    assert sizes[torch.float16] < 0.6 * sizes[torch.float32]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: (p / RECIPE).unlink(), "is not an export"),
        (lambda p: (p / RECIPE).write_text("{"), "cannot be read"),
        (lambda p: (p / WEIGHTS).unlink(), "holds no model.safetensors"),
        (lambda p: (p / WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n"), "is not the file that recipe.json was written for"),
        (lambda p: damage(p, lambda r: r.update(format="other")), "is not in this version's format"),
        (lambda p: damage(p, lambda r: r["architecture"].update(name="resnet18")), "does not describe model.safetensors"),
        (lambda p: damage(p, lambda r: r["architecture"].update(name="hf-hub:a/b")), "knows no architecture"),
        (lambda p: damage(p, lambda r: r["architecture"]["arguments"].update(checkpoint_path="/x")), "with 'checkpoint_path': '/x': give only"),
        (lambda p: damage(p, lambda r: r["blocks"].__setitem__(1, {"kind": "os.system"})), "names a layer 'os.system'"),
        (lambda p: damage(p, lambda r: r["blocks"].__setitem__(1, {"kind": "linear"})), "describes a map that cannot be built"),
        (lambda p: damage(p, lambda r: r["blocks"].__setitem__(1, 99)), "does not describe model.safetensors"),
        (lambda p: damage(p, lambda r: r["blocks"].pop()), "does not describe model.safetensors"),
        (lambda p: damage(p, lambda r: r.pop("architecture")), "does not describe model.safetensors"),
    ],
)  # fmt: skip
def test_what_was_tampered_with_is_named(tmp_path, change, sentence: str):
    saved(tmp_path / "it" if (tmp_path / "it").mkdir() is None else tmp_path, tiny())
    change(tmp_path / "it")
    with pytest.raises(ToastError) as caught:
        load(tmp_path / "it")
    assert sentence in str(caught.value)
    shutil.rmtree(tmp_path / "it")
