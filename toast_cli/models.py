"""Any timm vision transformer as stem → blocks → readout. The only file that knows timm.

Shapes: N images, T tokens, D width, F features (what a probe sees).
"""

import copy
import hashlib
import importlib.resources
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from PIL import Image
from safetensors import SafetensorError
from timm.data import create_transform, resolve_data_config
from timm.layers.attention import Attention
from timm.models import load_state_dict
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from toast_cli.errors import ToastError, did_you_mean, require_flag, reraise_disk

# A checkpoint may have these though the encoder has not.
_HEADS = ("head.", "head_dist.")
_PACKAGE = "pkg://"
_UNREADABLE = (
    OSError, EOFError, SafetensorError, pickle.UnpicklingError, RuntimeError, KeyError, AttributeError, TypeError,
)  # fmt: skip


class Backbone(nn.Module):
    """A timm vision transformer, cut into the parts that plans are made of; the classifier head is not among them.

    Attributes:
        label: the name it goes by in tables.
        blocks: L modules, each (N, T, D) -> (N, T, D).
        depth, width, image_size: L, D and the side of its square input in pixels.
        block_dtype: what blocks multiply in; bfloat16 is by autocast, which keeps the residual stream in fp32. The stem,
            the translators and the readout stay in fp32: they cost little, and bf16 there fills the stem's null space
            with rounding noise, which a least-squares map then amplifies.
        transform: PIL image in RGB -> uint8 (3, H, W), as the model's own data config asks, at ``image_size``.
        readout_tokens: how many leading tokens the readout looks at; None means all of them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vit: VisionTransformer, label: str, image_size: int) -> None:
        super().__init__()
        config = resolve_data_config({"input_size": (3, image_size, image_size)}, model=vit)
        self.vit = vit
        self.label = label
        self.image_size = image_size
        self.transform: Callable[[Image.Image], Tensor] = create_transform(
            **{key: config[key] for key in ("input_size", "interpolation", "crop_pct", "crop_mode")}, normalize=False
        )
        self.register_buffer("mean", torch.tensor(config["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(3, 1, 1), persistent=False)
        self.block_dtype = torch.float32
        self.eval().requires_grad_(False)

    @property
    def blocks(self) -> nn.Sequential:
        return self.vit.blocks

    @property
    def depth(self) -> int:
        return len(self.vit.blocks)

    @property
    def width(self) -> int:
        return self.vit.embed_dim

    @property
    def tokens(self) -> int:
        """T, prefix tokens and patches."""
        return self.vit.num_prefix_tokens + self.vit.patch_embed.num_patches

    @property
    def feature_width(self) -> int:
        """F."""
        return self.vit.head_hidden_size

    @property
    def readout_tokens(self) -> int | None:
        if self.vit.global_pool != "token" or self.vit.attn_pool is not None:
            return None
        return 2 if hasattr(self.vit, "dist_token") else 1

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> float, scaled and shifted as the model was trained."""
        return (pixels.float() / 255 - self.mean) / self.std

    def stem(self, pixels: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> X^(−1) (N, T, D), what enters block 0."""
        x = self.vit.patch_embed(self.normalise(pixels))
        return self.vit.norm_pre(self.vit.patch_drop(self.vit._pos_embed(x)))

    def block(self, i: int, latent: Tensor, rows: int | None = None) -> Tensor:
        """X^(i−1) (N, T, D) -> X^(i) (N, T, D), or its leading tokens (N, rows, D) alone."""
        with torch.autocast(latent.device.type, torch.bfloat16, enabled=self.block_dtype == torch.bfloat16):
            block = self.vit.blocks[i]
            return (block(latent) if rows is None else leading_rows(block, latent, rows)).to(latent.dtype)

    def readout(self, latent: Tensor) -> Tensor:
        """Last latent (N, T, D), or its first ``readout_tokens`` tokens -> features (N, F): final norm, then pooling."""
        return self.vit.forward_head(self.vit.norm(latent), pre_logits=True)

    def shortened(self, operations: Sequence[nn.Module]) -> VisionTransformer:
        """A deep copy of the timm model whose blocks are copies of ``operations``, in order."""
        rest = copy.copy(self.vit)
        rest._modules = {**self.vit._modules, "blocks": nn.Sequential(*operations)}
        return copy.deepcopy(rest)

    def fingerprint(self) -> str:
        """Hash of the names and values of all weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.vit.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


def leading_rows(block: nn.Module, latent: Tensor, rows: int) -> Tensor:
    """``block(latent)[:, :rows]`` (N, rows, D) of ``latent`` (N, T, D), without computing the other rows.

    All tokens serve as keys and values, only the leading ones as queries and in the MLP. Blocks of another kind than
    timm's pre-norm ``Block`` with plain attention are computed whole.
    """
    if type(block) is not Block or type(block.attn) is not Attention or getattr(block.attn, "gate", None) is not None:
        return block(latent)[:, :rows]
    attention = block.attn
    n, t, _ = latent.shape
    inner = attention.num_heads * attention.head_dim
    query_weight, pair_weight = attention.qkv.weight.split([inner, 2 * inner])
    query_bias, pair_bias = (None, None) if attention.qkv.bias is None else attention.qkv.bias.split([inner, 2 * inner])
    x = block.norm1(latent)  # (N, T, D)
    heads = (attention.num_heads, attention.head_dim)
    query = F.linear(x[:, :rows], query_weight, query_bias).view(n, rows, *heads).transpose(1, 2)  # (N, H, rows, D/H)
    key, value = F.linear(x, pair_weight, pair_bias).view(n, t, 2, *heads).permute(2, 0, 3, 1, 4)  # (N, H, T, D/H)
    mixed = F.scaled_dot_product_attention(attention.q_norm(query), attention.k_norm(key), value)
    mixed = attention.norm(mixed.transpose(1, 2).reshape(n, rows, inner))
    x = latent[:, :rows] + block.ls1(attention.proj(mixed))
    return x + block.ls2(block.mlp(block.norm2(x)))


def load(
    label: str,
    name: str,
    checkpoint: str | None = None,
    pretrained: bool = True,
    image_size: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """A timm vision transformer by ``name``, with weights from ``checkpoint``, else the hub, else (``pretrained=False``) random.

    Position embeddings are resized to ``image_size`` (default: the size of the model's own config). ``options`` go to
    the constructor (``depth``, ``embed_dim``, …). A checkpoint is a safetensors file, or a torch file of plain tensors;
    ``pkg://`` names one inside the package.

    Raises ToastError for an unknown name, a model that is no vision transformer, or weights that are missing or do not fit.
    """
    arguments = {"num_classes": 0, **(options or {})}
    if image_size is not None:
        arguments["img_size"] = image_size
    vit = _create(str(name), require_flag(pretrained, "model.pretrained") and checkpoint is None, arguments)
    if checkpoint is not None:
        _load_checkpoint(vit, str(checkpoint))
    return Backbone(vit, label, image_size or vit.patch_embed.img_size[0])


def _create(name: str, pretrained: bool, arguments: dict[str, Any]) -> VisionTransformer:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ToastError(
            f"model.name={name} is not known to timm {timm.__version__}{did_you_mean(architecture, timm.list_models())}: "
            "use a name that timm.list_models('*vit*') lists."
        )
    tags = timm.list_pretrained(architecture)
    if tag and name not in tags:
        raise ToastError(
            f"model.name={name}: {architecture} has no weights tagged '{tag}'; it has {', '.join(tags) or 'none'}."
        )
    with torch.device("meta"):  # a look at what it is, before anything is fetched
        kind = type(timm.create_model(architecture, pretrained=False))
    if not issubclass(kind, VisionTransformer):
        raise ToastError(
            f"model.name={name} is a {kind.__name__}: only models of timm's VisionTransformer class can be used."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # random weights are the same in every run, so that a dry test can be resumed
            return cast(VisionTransformer, timm.create_model(name, pretrained=pretrained, **arguments))
    except Exception as e:
        reraise_disk(e)
        raise _cannot_create(name, pretrained, arguments, e) from e


def _cannot_create(name: str, pretrained: bool, arguments: dict[str, Any], error: Exception) -> ToastError:
    if isinstance(error, GatedRepoError | RepositoryNotFoundError):
        return ToastError(
            f"The hub does not give out the weights of {name} without permission: accept their terms on the hub and set HF_TOKEN, "
            "or give model.checkpoint=<file>."
        )
    if pretrained and not isinstance(error, TypeError | AssertionError) and "size mismatch" not in str(error):
        return ToastError(
            f"The weights of {name} could not be fetched from the hub ({type(error).__name__}): give model.checkpoint=<file>, set HF_HOME "
            "to a cache that holds them, or try the pipeline with model.pretrained=false."
        )
    reason = " ".join(str(error).split())[:200]
    return ToastError(f"timm cannot build {name} with {arguments}: {reason}; check model.image_size and model.options.")


def _load_checkpoint(vit: VisionTransformer, checkpoint: str) -> None:
    path = checkpoint_path(checkpoint)
    if not path.is_file():
        raise ToastError(
            f"model.checkpoint={checkpoint} is not a file: give the path of a safetensors or torch weights file."
        )
    try:
        weights = load_state_dict(str(path), weights_only=True)
    except _UNREADABLE as e:
        raise ToastError(
            f"model.checkpoint={checkpoint} cannot be read as weights ({type(e).__name__}): it must be a safetensors file, or a torch "
            "file that holds nothing but tensors (toast executes no pickle)."
        ) from e
    try:
        missing, unexpected = vit.load_state_dict(checkpoint_filter_fn(weights, vit), strict=False)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError) as e:
        raise ToastError(
            f"model.checkpoint={checkpoint} does not fit the model: {' '.join(str(e).split())[:300]}"
        ) from e
    foreign = [key for key in unexpected if not key.startswith(_HEADS)]
    if missing or foreign:
        named = "; ".join(
            f"{len(keys)} {what}, such as {keys[0]}"
            for what, keys in (("weights are missing", missing), ("are unknown", foreign))
            if keys
        )
        raise ToastError(
            f"model.checkpoint={checkpoint} does not fit the model ({named}): choose the model it was saved from."
        )


def checkpoint_path(checkpoint: str) -> Path:
    """The file that ``model.checkpoint`` names; ``pkg://toast_cli/…`` lies inside the installed package."""
    if checkpoint.startswith(_PACKAGE):
        package, _, inside = checkpoint.removeprefix(_PACKAGE).partition("/")
        return Path(str(importlib.resources.files(package))) / inside
    return Path(checkpoint).expanduser()
