"""Every family through the files of an export, the Python API, and files that were tampered with."""

import json
import pickle
import shutil

import pytest
import timm
import torch

from tests.conftest import pixels, tiny
from tests.models.test_families import FAMILIES
from toast_cli import Plan, Span, compress, load
from toast_cli.errors import ToastError
from toast_cli.layers import ByPosition, Residual, Shift, build, describe
from toast_cli.models.timm_parts import attach_head
from toast_cli.surgery.parts import join, parts_of
from toast_cli.surgery.saved import RECIPE, WEIGHTS, recipe_of, write_weights
from toast_cli.translators.closed_form import Identity, Ridge


def saved(tmp_path, backbone, plan: str = "0-1", dtype: torch.dtype = torch.float32):
    """A shortened model with a head, and the folder it was written to."""
    import hashlib

    chosen = Plan.parse(plan)
    made = parts_of(backbone, chosen, {span: torch.nn.Linear(32, 32) for span in chosen.spans})
    vit = join(made).eval()
    attach_head(vit, torch.nn.Linear(backbone.feature_width, 5), 5)
    write_weights(tmp_path, vit, dtype)
    recipe = recipe_of(vit, backbone.recipe, made)
    recipe |= {"pretrained_cfg": {"num_classes": 5, "input_size": [3, 32, 32]}, "file": WEIGHTS}
    recipe["weights"] = hashlib.sha256((tmp_path / WEIGHTS).read_bytes()).hexdigest()
    (tmp_path / RECIPE).write_text(json.dumps(recipe))
    return vit


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
def test_family_in_memory(family: str):
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    model = backbone.vit.train().requires_grad_(True)
    images = backbone.normalise(pixels())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    short = compress(model, "0-1", images)
    assert short.training
    assert all(p.requires_grad for p in short.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert len(short.blocks) == len(model.blocks) - 1 + 1, "a map stands where the block was"
    short.eval()
    model.eval()
    with torch.no_grad():
        wanted = {}
        handles = [
            model.blocks[i].register_forward_hook(lambda m, a, out, i=i: wanted.update({i: out})) for i in (0, 1)
        ]
        model(images)
        mapped = short.blocks[1](wanted[0])
        for handle in handles:
            handle.remove()
        x, y = wanted[0].flatten(0, 1).double(), wanted[1].flatten(0, 1).double()
        best = x @ torch.linalg.lstsq(x, y, driver="gelsd").solution
        error = ((y - mapped.flatten(0, 1).double()).square().sum() / (y - best).square().sum().clamp(min=1e-9)).item()
    assert error < 1.02, "the least-squares map"


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


def test_every_layer_reads_back():
    module = torch.nn.Sequential(
        torch.nn.LayerNorm(8), Residual(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.SiLU())), torch.nn.GELU(),
        ByPosition([Shift(torch.ones(8)), torch.nn.Linear(8, 8, bias=False)], [slice(0, 1), slice(1, 4)]),
    )  # fmt: skip
    again = build(json.loads(json.dumps(describe(module))))
    again.load_state_dict(module.state_dict())
    x = torch.randn(2, 4, 8)
    assert torch.equal(again(x), module(x))
    with pytest.raises(ToastError, match="A Bilinear cannot be described in an export"):
        describe(torch.nn.Bilinear(2, 2, 2))


def damage(path, change):
    recipe = json.loads((path / RECIPE).read_text())
    change(recipe)
    (path / RECIPE).write_text(json.dumps(recipe))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: (p / RECIPE).unlink(), "is no export"),
        (lambda p: (p / RECIPE).write_text("{"), "cannot be read"),
        (lambda p: (p / WEIGHTS).unlink(), "holds no model.safetensors"),
        (lambda p: (p / WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n"), "is not the file that recipe.json was written for"),
        (lambda p: damage(p, lambda r: r.update(format="other")), "is not of this version's format"),
        (lambda p: damage(p, lambda r: r["architecture"].update(name="resnet18")), "does not describe model.safetensors"),
        (lambda p: damage(p, lambda r: r["architecture"].update(name="hf-hub:a/b")), "knows no architecture"),
        (lambda p: damage(p, lambda r: r["architecture"]["arguments"].update(checkpoint_path="/x")), "asks timm for checkpoint_path"),
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


def test_what_cannot_be_compressed_is_named():
    model, images = tiny().vit, torch.randn(4, 3, 32, 32)
    for arguments, sentence in (
        ((torch.nn.Linear(2, 2), "0-1", images), "A Linear cannot be compressed"),
        ((model, "0-7", images), "span 0-7 ends at block 7"),
        ((model, "0-1", images, "linar"), "translator=linar is not known (did you mean linear"),
        ((model, "0-1:mlp", images), "compress takes closed forms"),
        ((model, "0-1", []), "compress was given no images"),
    ):
        with pytest.raises(ToastError) as caught:
            compress(*arguments)
        assert sentence in str(caught.value)
    short = compress(model, Plan((Span(0, 1, "identity"),)), [images, images], translator="affine")
    assert len(short.blocks) == len(model.blocks) - 1, "nothing stands in the place of an identity"


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (None, "compress was given NoneType for images: give float tensors (N, 3, H, W)"),
        (torch.randn(3, 32, 32), "compress was given torch.float32 of shape (3, 32, 32) for images"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "compress was given torch.uint8 of shape (2, 3, 32, 32)"),
        ([[torch.randn(2, 3, 32, 32), torch.zeros(2)]], "compress was given list for images"),
        (torch.randn(2, 3, 16, 16), "The model takes no images of shape (2, 3, 16, 16)"),
        (torch.full((2, 3, 32, 32), torch.nan), "are not finite"),
    ],
)
def test_images_that_compress_cannot_take_are_named(images: object, sentence: str):
    with pytest.raises(ToastError) as caught:
        compress(tiny().vit, "0-1", images)
    assert sentence in str(caught.value)


def test_compress_chooses_the_strength_of_a_ridge_on_images_held_out(monkeypatch: pytest.MonkeyPatch):
    kinds = []
    monkeypatch.setattr(
        Ridge, "fit", lambda self, pair: kinds.append((pair.count, pair.held_out.count)) or Identity.fit(self, pair)
    )
    monkeypatch.setattr(Ridge, "to_module", lambda self: torch.nn.Identity())
    compress(tiny().vit, "0-1", torch.randn(10, 3, 32, 32), "ridge")
    assert [kept / apart for kept, apart in kinds] == [4]
