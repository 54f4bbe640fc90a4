"""compress: a model shortened in memory."""

import pytest
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

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


SIZE = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 5}


class Pooled(VisionTransformer):
    """As in MAE's code for fine-tuning: a pooling of its own, and no final norm before it."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.norm, self.norm_of_mean = torch.nn.Identity(), torch.nn.LayerNorm(32)

    def forward_features(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm_of_mean(x[:, 1:].mean(1))

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x if pre_logits else self.head(x)


class Prompted(VisionTransformer):
    """Tokens of its own behind the class token, as visual prompts are; a dictionary of outputs."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.prompts = torch.nn.Parameter(torch.randn(1, 4, 32))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self._pos_embed(self.patch_embed(x))
        x = torch.cat([x[:, :1], self.prompts.expand(len(x), -1, -1), x[:, 1:]], 1)
        return {"logits": self.forward_head(self.norm(self.blocks(x)))}


class PromptedEverywhere(Prompted):
    """Other prompts before each block."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._pos_embed(self.patch_embed(x))
        for block in self.blocks:
            x = block(torch.cat([x[:, :1], self.prompts.expand(len(x), -1, -1), x[:, -16:]], 1))
        return self.forward_head(self.norm(x))


class Counting(VisionTransformer):
    """It adds up what all its blocks give, each with a weight of its own."""

    def forward_features(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        x, total = self._pos_embed(self.patch_embed(x)), 0
        for number, block in enumerate(self.blocks):
            x = block(x)
            total = total + (number + 1) * x
        return self.norm(total)


def spread(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.2, generator=generator)
    return model.eval()


def output(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = model(images)
    return found["logits"] if isinstance(found, dict) else found


@pytest.mark.parametrize("kind", [VisionTransformer, Eva, Pooled, Prompted])
@pytest.mark.parametrize("plan", ["0-2", "stem-1"])
def test_a_class_of_ones_own_keeps_its_forward(kind: type, plan: str):
    """The original with a least-squares map behind the span's first block, and nothing in the place of the others."""
    model, images = spread(kind(**SIZE)), torch.randn(60, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    short = compress(model, plan, images)
    assert len(short.blocks) == (2 if plan == "stem-1" and kind is not Prompted else 3), (
        "a map folds into timm's own stem"
    )
    start, end = (0, 2) if plan == "0-2" else (-1, 1)
    seen: dict[str, torch.Tensor] = {}
    first, last = model.blocks[start + 1], model.blocks[end]
    with torch.no_grad():
        handles = [
            first.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0])),
            last.register_forward_hook(lambda _, __, out: seen.update(y=out)),
        ]
        model(images)
        for handle in handles:
            handle.remove()
        x, y = (each.flatten(0, 1).double() for each in (seen["x"], seen["y"]))
        best = torch.linalg.lstsq(x, y, driver="gelsd").solution
        handles = [
            block.register_forward_hook(lambda _, inputs, __: inputs[0]) for block in model.blocks[start + 1 : end]
        ]
        handles.append(last.register_forward_hook(lambda _, inputs, __: (inputs[0].double() @ best).float()))
        wanted = output(model, images)
        for handle in handles:
            handle.remove()
    assert (output(short, images) - wanted).abs().max() < 1e-3 * wanted.abs().max()
    assert (output(model, images) - wanted).abs().max() > 1e-2 * wanted.abs().max(), "the plan must do something"


@pytest.mark.parametrize(
    ("kind", "heal", "sentence"),
    [
        (PromptedEverywhere, False, "does not run its blocks once each, one after the other, as timm's does"),
        (Counting, False, "The forward of Counting does something else with fewer blocks, as if it counted them"),
        (Prompted, True, "heal=True was given a Prompted, whose forward makes tokens in its own way: use heal=False."),
    ],
)
def test_a_forward_that_fewer_blocks_would_change_is_refused(kind: type, heal: bool, sentence: str):
    with pytest.raises(ToastError) as error:
        compress(spread(kind(**SIZE)), "0-2", torch.randn(30, 3, 32, 32), heal=heal)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    "options", [{"img_size": (64, 32)}, {"in_chans": 1}, {"in_chans": 4}, {"global_pool": "", "num_classes": 0}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_that_only_compress_takes(options: dict, dtype: torch.dtype):
    model = spread(VisionTransformer(**{**SIZE, **options})).to(dtype)
    height, width = model.patch_embed.img_size
    images = torch.randn(40, options.get("in_chans", 3), height, width, dtype=dtype)
    short = compress(model, "0-2", images, "affine")
    assert short(images).shape == model(images).shape
    assert next(short.parameters()).dtype == dtype


def test_layers_of_ones_own_inside_a_block():
    """As LoRA wraps linear layers: a shift is not folded into what is not a linear layer."""

    class Wrapped(torch.nn.Module):
        def __init__(self, layer: torch.nn.Linear) -> None:
            super().__init__()
            self.layer, self.more = layer, torch.nn.Linear(layer.in_features, layer.out_features, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) + self.more(x)

    model = VisionTransformer(**SIZE)
    for block in model.blocks:
        block.mlp.fc2 = Wrapped(block.mlp.fc2)
    assert len(compress(spread(model), "0-2", torch.randn(30, 3, 32, 32), "shift").blocks) == 3


def test_a_wrapped_model_is_named_with_what_is_inside():
    with pytest.raises(
        ToastError,
        match="A DataParallel cannot be compressed: give a timm VisionTransformer or Eva, such as its .module.",
    ):
        compress(torch.nn.DataParallel(VisionTransformer(**SIZE)), "0-1", torch.randn(4, 3, 32, 32))
