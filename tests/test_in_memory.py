"""compress: a model shortened in memory."""

import pytest
import torch

from tests.conftest import pixels, tiny
from tests.models.families import FAMILIES
from toast_cli import Plan, Span, compress
from toast_cli.errors import ToastError
from toast_cli.translators.closed_form import Identity, Ridge


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


def test_compress_chooses_the_strength_of_a_ridge_on_images_held_out(monkeypatch: pytest.MonkeyPatch):
    kinds = []
    monkeypatch.setattr(
        Ridge, "fit", lambda self, pair: kinds.append((pair.count, pair.held_out.count)) or Identity.fit(self, pair)
    )
    monkeypatch.setattr(Ridge, "to_module", lambda self: torch.nn.Identity())
    compress(tiny().vit, "0-1", torch.randn(10, 3, 32, 32), "ridge")
    assert [kept / apart for kept, apart in kinds] == [4]


def test_what_cannot_be_compressed_is_named():
    model, images = tiny().vit, torch.randn(4, 3, 32, 32)
    for arguments, sentence in (
        ((torch.nn.Linear(2, 2), "0-1", images), "A Linear cannot be compressed"),
        ((model, "0-7", images), "span 0-7 ends at block 7"),
        ((model, "0-1", images, "linar"), "translator=linar is not known (did you mean linear"),
        ((model, "0-1:mlp", images), "compress takes closed-form translators"),
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
        (torch.randn(2, 3, 16, 16), "The model does not take images of shape (2, 3, 16, 16)"),
        (torch.full((2, 3, 32, 32), torch.nan), "are not finite"),
    ],
)
def test_images_that_compress_cannot_take_are_named(images: object, sentence: str):
    with pytest.raises(ToastError) as caught:
        compress(tiny().vit, "0-1", images)
    assert sentence in str(caught.value)


# Random blocks leave healing nothing to do behind a map that sees the image: it chooses layer by layer, and does little harm.
@pytest.mark.parametrize(("translator", "most"), [("affine", 0.9), ("context", 1.1)])
@pytest.mark.parametrize("plan", ["0-1", "stem-0+1-2"])
def test_healed_blocks_are_nearer_to_the_original(plan: str, translator: str, most: float):
    backbone = tiny(depth=5)
    model, images = backbone.vit.train(), backbone.normalise(pixels(60))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plain, healed = (compress(model, plan, images.split(16), translator, heal=heal) for heal in (False, True))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert healed.training
    assert all(p.requires_grad for p in healed.parameters())
    sizes = [sum(p.numel() for p in short.parameters()) for short in (plain, healed)]
    assert sizes[0] == sizes[1], "no larger than it was"
    model.eval()
    with torch.no_grad():
        features = [vit.eval().forward_features(images)[:, 0] for vit in (model, plain, healed)]
    far, near = ((each - features[0]).norm() for each in features[1:])
    assert near < most * far


def test_what_cannot_be_healed_is_named():
    name, options = FAMILIES["parallel blocks"]
    with pytest.raises(ToastError, match="a ParallelThingsBlock does not end in such layers"):
        compress(tiny(name, **options).vit, "0-1", torch.randn(4, 3, 32, 32), heal=True)
    flexible = tiny(dynamic_img_size=True).vit
    with pytest.raises(ToastError, match=r"images of shape \(4, 3, 64, 64\), and the model was built for 32 pixels"):
        compress(flexible, "0-1", torch.randn(4, 3, 64, 64), heal=True)
