"""Checkpoints in the names of other libraries: the features are those of a vision transformer written by hand."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from tests.conftest import pixels
from tests.models import by_hand
from tests.models.by_hand import CLIP, DIM, DINOV2, SIZE, VIT, forward, renamed, weights
from toast_cli.models import Backbone
from toast_cli.models import factory as models
from toast_cli.stages.walk import latents


def quick(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def loaded(folder: Path, found: dict[str, Tensor], name: str, **options: object) -> Backbone:
    save_file({key: value.contiguous() for key, value in found.items()}, folder / "w.safetensors")
    return models.load("m", name, str(folder / "w.safetensors"), image_size=by_hand.SIDE, options=SIZE | options)


def tokens(backbone: Backbone) -> Tensor:
    """All tokens after the final norm, of the pictures that ``expected`` gets."""
    with torch.inference_mode():
        return backbone.vit.norm(latents(backbone, pixels())[by_hand.DEPTH - 1])


def close(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and (found - wanted).abs().max().item() < 1e-5 * wanted.abs().max().item()


@pytest.mark.parametrize("prefix", ["", "vit.", "model.vit."])
def test_transformers_vit(prefix: str, tmp_path: Path):
    own = weights()
    head = {
        f"{prefix.removesuffix('vit.')}classifier.{end}": torch.randn(shape)
        for end, shape in (("weight", (5, DIM)), ("bias", (5,)))
    }
    backbone = loaded(tmp_path, renamed(own, VIT, prefix) | (head if prefix else {}), "vit_small_patch16_224")
    wanted = forward(own, backbone.normalise(pixels()))
    assert close(tokens(backbone), wanted)
    if prefix:
        assert close(backbone(pixels()), F.linear(wanted[:, 0], *head.values()))


def test_transformers_deit_with_its_two_classifiers(tmp_path: Path):
    own = weights(prefix=2)
    own["dist_token"] = torch.randn(1, 1, DIM)
    heads = {f"{name}_classifier.weight": torch.randn(5, DIM) for name in ("cls", "distillation")}
    backbone = loaded(tmp_path, renamed(own, VIT, "deit.") | heads, "deit_small_distilled_patch16_224")
    wanted = forward(own, backbone.normalise(pixels()))
    assert close(tokens(backbone), wanted)
    logits = sum(wanted[:, i] @ head.T for i, head in enumerate(heads.values())) / 2
    assert close(backbone(pixels()), logits), "the mean of both, each of its own token"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vit_small_patch14_dinov2", {}),
        ("vit_small_patch14_reg4_dinov2", {"registers": 4}),
        ("vit_giant_patch14_dinov2", {"swiglu": True}),
        ("vit_giant_patch14_reg4_dinov2", {"registers": 4, "swiglu": True}),
    ],
)
@pytest.mark.parametrize("library", ["Meta", "Meta without a mask token", "transformers"])
def test_dinov2(name: str, kind: dict, library: str, tmp_path: Path):
    own = weights(scale=True, **kind)
    stored = own if "without" in library else own | {"mask_token": torch.zeros(1, DIM)}
    stored = renamed(stored, DINOV2) if library == "transformers" else stored
    backbone = loaded(tmp_path, stored, name)
    assert close(tokens(backbone), forward(own, backbone.normalise(pixels())))


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_transformers_clip(prefix: str, tmp_path: Path):
    own = weights()
    own |= {"norm_pre.weight": torch.rand(DIM) + 0.5, "norm_pre.bias": torch.randn(DIM)}
    del own["patch_embed.proj.bias"]
    stored = renamed(own, CLIP, prefix)
    stored[f"{prefix}embeddings.class_embedding"] = own["cls_token"][0, 0]
    stored[f"{prefix}embeddings.position_embedding.weight"] = own["pos_embed"][0]
    stored[f"{prefix}embeddings.position_ids"] = torch.arange(17)[None]
    beside = {
        "text_model.embeddings.token_embedding.weight": torch.ones(3, DIM),
        "visual_projection.weight": torch.randn(7, DIM),
    }
    backbone = loaded(tmp_path, stored | (beside if prefix else {}), "vit_base_patch16_clip_quickgelu_224")
    wanted = forward(own, backbone.normalise(pixels()), quick, eps=1e-5)
    assert close(tokens(backbone), wanted)
    assert not backbone.notes
    if prefix:
        assert close(backbone(pixels()), wanted[:, 0] @ beside["visual_projection.weight"].T)


def test_openais_clip_says_that_its_activation_is_not_known(tmp_path: Path):
    own = weights()
    own |= {"norm_pre.weight": torch.rand(DIM) + 0.5, "norm_pre.bias": torch.randn(DIM)}
    del own["patch_embed.proj.bias"]
    swaps = (
        ("blocks.", "transformer.resblocks."), ("norm_pre", "ln_pre"), ("norm1", "ln_1"), ("norm2", "ln_2"), ("norm.", "ln_post."),
        ("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
        ("patch_embed.proj", "conv1"),
    )  # fmt: skip
    stored = {"positional_embedding": own.pop("pos_embed")[0], "class_embedding": own.pop("cls_token")[0, 0]}
    for key, value in own.items():
        for old, new in swaps:
            key = key.replace(old, new)
        stored[key] = value
    own |= {"cls_token": stored["class_embedding"][None, None], "pos_embed": stored["positional_embedding"][None]}
    text = {"transformer.resblocks.0.ln_1.weight": torch.ones(8), "logit_scale": torch.ones(())}
    for wrapped in ({f"visual.{key}": value for key, value in stored.items()} | text, stored):
        right = loaded(tmp_path, wrapped, "vit_base_patch16_clip_quickgelu_224")
        assert close(tokens(right), forward(own, right.normalise(pixels()), quick, eps=1e-5))
        assert not right.notes
        plain = loaded(tmp_path, wrapped, "vit_base_patch16_clip_224")
        assert close(tokens(plain), forward(own, plain.normalise(pixels()), F.gelu, eps=1e-5))
        (note,) = plain.notes
        assert note.endswith(
            "does not say its activation: if it is OpenAI's own CLIP, use model.name=vit_base_patch16_clip_quickgelu_224, or its features will be off"
        )


def test_dinov3_under_metas_names_and_those_of_transformers(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Its rotary embeddings are timm's; the yardstick is the same model with its weights under timm's own names."""
    truth = models.load("m", "vit_small_patch16_dinov3_qkvb", pretrained=False, image_size=32, options=SIZE)
    for parameter in truth.vit.parameters():
        parameter.normal_(0.02, 0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    meta, other = {"mask_token": torch.zeros(1, DIM)}, {"embeddings.mask_token": torch.zeros(1, 1, DIM)}
    for key, value in truth.vit.state_dict().items():
        name = (
            key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma").replace("reg_token", "storage_tokens")
        )
        layer = (
            name.replace("blocks.", "layer.").replace("attn.proj", "attention.o_proj").replace("mlp.fc1", "mlp.up_proj")
        )
        layer = (
            layer.replace("ls1.gamma", "layer_scale1.lambda1")
            .replace("ls2.gamma", "layer_scale2.lambda1")
            .replace("mlp.fc2", "mlp.down_proj")
        )
        layer = layer.replace("patch_embed.proj", "embeddings.patch_embeddings").replace(
            "storage_tokens", "embeddings.register_tokens"
        )
        layer = layer.replace("cls_token", "embeddings.cls_token")
        if key.endswith("_bias"):
            stem = key.removesuffix("q_bias").removesuffix("v_bias")
            parts = [
                truth.vit.state_dict()[f"{stem}q_bias"],
                torch.full((DIM,), 3.0),
                truth.vit.state_dict()[f"{stem}v_bias"],
            ]
            meta[f"{stem}qkv.bias"] = torch.cat(parts)  # the bias of keys is masked
            meta[f"{stem}qkv.bias_mask"] = torch.ones(3 * DIM)
            short = stem.replace("blocks.", "layer.").replace("attn.", "attention.")
            other |= {f"{short}q_proj.bias": parts[0], f"{short}v_proj.bias": parts[2]}
        elif key.endswith("qkv.weight"):
            meta[name] = value
            short = layer.replace("attn.qkv.weight", "attention.{}_proj.weight")
            other |= {short.format(part): each for part, each in zip("qkv", value.chunk(3), strict=True)}
        else:
            meta[name], other[layer] = value, value
    for stored in (meta, other):
        backbone = loaded(tmp_path, stored, "vit_small_patch16_dinov3_qkvb")
        assert torch.equal(tokens(backbone), tokens(truth))
    with pytest.raises(
        models.ToastError, match="its queries and values have biases, and the model has none; choose the one with _qkvb"
    ):
        loaded(tmp_path, meta, "vit_small_patch16_dinov3")
    bare = {key: torch.zeros_like(value) if key.endswith("qkv.bias") else value for key, value in meta.items()}
    assert loaded(tmp_path, bare, "vit_small_patch16_dinov3").depth == by_hand.DEPTH
    assert capsys.readouterr().out == "", "timm prints a line for each block"
