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
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from PIL import Image
from safetensors import SafetensorError
from timm.data import create_transform, resolve_data_config
from timm.layers import Mlp
from timm.layers.attention import Attention
from timm.models import load_state_dict
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from toast_cli.errors import ToastError, did_you_mean, require_flag, reraise_disk
from toast_cli.fused import BlockParts, FusedBlock

# A checkpoint may have these though the encoder has not.
_HEADS = ("head.", "head_dist.")
_PACKAGE = "pkg://"
_ALWAYS_FP32 = 2  # how many of the first blocks
_UNREADABLE = (
    OSError, EOFError, SafetensorError, pickle.UnpicklingError, RuntimeError, KeyError, AttributeError, TypeError,
)  # fmt: skip


class Backbone(nn.Module):
    """A timm vision transformer, cut into the parts that plans are made of; the classifier head is not among them.

    Attributes:
        label: the name it goes by in tables.
        blocks: L modules, each (N, T, D) -> (N, T, D).
        depth, width, image_size: L, D and the side of its square input in pixels.
        block_dtype: what blocks multiply in; the residual stream stays in fp32, and so do the stem, blocks 0 and 1,
            the translators and the readout: they cost little, and bf16 there fills directions in which early latents hardly
            vary with rounding noise, which a least-squares map then amplifies.
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

    def block(self, i: int, latent: Tensor) -> Tensor:
        """X^(i−1) (N, T, D) -> X^(i) (N, T, D), by timm's own code."""
        rounded = self.block_dtype == torch.bfloat16 and i >= _ALWAYS_FP32
        with torch.autocast(latent.device.type, torch.bfloat16, enabled=rounded):
            return self.vit.blocks[i](latent).to(latent.dtype)

    def fused_block(self, i: int) -> Callable[[Tensor, int | None], Tensor]:
        """``block(i, latent)[:, :rows]`` as a function of ``latent`` and ``rows``, faster and equal up to rounding.

        It has its own copy of the weights. Blocks of another kind than timm's plain ``Block`` are computed as they are.
        """
        parts = _parts(self.vit.blocks[i])
        if parts is None:
            return lambda latent, rows: self.block(i, latent)[:, :rows]
        return FusedBlock(parts, self.block_dtype)

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


def _parts(block: nn.Module) -> BlockParts | None:
    """The parts of timm's pre-norm ``Block``; None for a block of another kind."""
    if type(block) is not Block or type(block.attn) is not Attention or type(block.mlp) is not Mlp:
        return None
    attention, mlp = block.attn, block.mlp
    between = (attention.q_norm, attention.k_norm, attention.norm, mlp.norm)
    if getattr(attention, "gate", None) is not None or not all(isinstance(module, nn.Identity) for module in between):
        return None
    norm1, norm2, fc1, fc2 = block.norm1, block.norm2, mlp.fc1, mlp.fc2
    if not isinstance(norm1, nn.LayerNorm) or not isinstance(norm2, nn.LayerNorm):
        return None
    if not isinstance(fc1, nn.Linear) or not isinstance(fc2, nn.Linear):
        return None
    scale1, scale2 = (getattr(scale, "gamma", None) for scale in (block.ls1, block.ls2))
    return BlockParts(
        norm1, attention.qkv, attention.num_heads, attention.proj, scale1, norm2, fc1, mlp.act, fc2, scale2
    )


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
