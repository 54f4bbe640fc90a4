"""A timm vision transformer as stem → blocks → readout. With timm_parts.py the only file that knows the names of timm's parts.

Shapes: N images, T tokens, D width, F features (what a probe sees).
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.layers import Mlp
from timm.layers.attention import Attention
from timm.models.eva import Eva
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from toast_cli.errors import ToastError, did_you_mean
from toast_cli.fused import BlockParts, FusedBlock
from toast_cli.timm_parts import Vit

_ALWAYS_FP32 = 2  # how many of the first blocks
READOUTS = ("model", "paper")


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
        readout_kind: ``model`` (its own pooling), or ``paper``: behind that a dense layer and tanh with random weights, which
            is what the method's reference implementation puts before the probe for ViT and DeiT (the pooler that another
            library adds where a checkpoint has none). DINOv2 has no such layer there.
        head: the classifier that came with the weights, (N, F) -> (N, C), or None.
        recipe: the name and the arguments by which timm builds the model anew; empty if they are not known.
    """

    mean: Tensor
    std: Tensor
    _rotation: Tensor | None

    def __init__(
        self,
        vit: Vit,
        label: str,
        image_size: int,
        head: nn.Linear | None = None,
        readout: str = "model",
        resize: int | None = None,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        """``resize``: the short side of an image in pixels, before the crop; default as the model's own config has it.

        Raises ToastError for a model whose blocks cannot be taken out one by one.
        """
        super().__init__()
        if readout not in READOUTS:
            raise ToastError(
                f"readout={readout} is not known{did_you_mean(str(readout), READOUTS)}: use model (its own pooling), or paper (a random dense "
                "layer and tanh behind it, for ViT and DeiT)."
            )
        asked = {"input_size": (3, image_size, image_size), **({"crop_pct": image_size / resize} if resize else {})}
        config = resolve_data_config(asked, model=vit)
        if getattr(vit, "rope_mixed", False):
            raise ToastError(
                f"{label} has position embeddings of its own for every block, which a shortened model would mix up: such models cannot be used."
            )
        self.vit = vit
        self.label = label
        self.recipe = dict(recipe or {})
        self.image_size = image_size
        self.transform: Callable[[Image.Image], Tensor] = create_transform(
            **{key: config[key] for key in ("input_size", "interpolation", "crop_pct", "crop_mode")}, normalize=False
        )
        self.preprocessing = {
            key: config[key] for key in ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
        }
        self.register_buffer("mean", torch.tensor(config["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(3, 1, 1), persistent=False)
        self.block_dtype = torch.float32
        self.head = head
        self.readout_kind = readout
        dinov2 = "dinov2" in str(vit.pretrained_cfg)
        self.pooler: nn.Sequential | None = None if readout == "model" or dinov2 else _random_pooler(self.feature_width)
        self.eval().requires_grad_(False)

    @property
    def blocks(self) -> nn.Sequential | nn.ModuleList:
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
    def prefix_tokens(self) -> int:
        """How many tokens come before the patches: class and register tokens."""
        return self.vit.num_prefix_tokens

    @property
    def feature_width(self) -> int:
        """F."""
        return self.vit.head_hidden_size

    @property
    def readout_tokens(self) -> int | None:
        if self.vit.global_pool != "token" or getattr(self.vit, "attn_pool", None) is not None:
            return None
        return 2 if hasattr(self.vit, "dist_token") else 1

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> float, scaled and shifted as the model was trained."""
        return (pixels.float() / 255 - self.mean) / self.std

    def stem(self, pixels: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> X^(−1) (N, T, D), what enters block 0."""
        return self.embed(self.normalise(pixels))

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> X^(−1) (N, T, D)."""
        x = self.vit._pos_embed(self.vit.patch_embed(images))
        if isinstance(self.vit, Eva):
            x, self._rotation = x
            return self.vit.norm_pre(x)
        return self.vit.norm_pre(self.vit.patch_drop(x))

    def block(self, i: int, latent: Tensor) -> Tensor:
        """X^(i−1) (N, T, D) -> X^(i) (N, T, D), by timm's own code."""
        with torch.autocast(latent.device.type, torch.bfloat16, enabled=self.rounds(i)):
            return self.vit.blocks[i](latent, **self.beside).to(latent.dtype)

    def rounds(self, i: int) -> bool:
        """Whether block i multiplies in bf16."""
        return self.block_dtype == torch.bfloat16 and i >= _ALWAYS_FP32

    @property
    def beside(self) -> dict[str, Tensor | None]:
        """What a block takes beside the latent: for Eva the rotary embedding, which is the same for all images."""
        return {"rope": self._rotation} if isinstance(self.vit, Eva) else {}

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
        features = self.vit.forward_head(self.vit.norm(latent), pre_logits=True)
        return features if self.pooler is None else self.pooler(features)

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


def _random_pooler(width: int) -> nn.Sequential:
    """Dense and tanh, weights from N(0, 0.02²), the same in every run."""
    dense = nn.Linear(width, width)
    with torch.no_grad():
        dense.weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(0))
        dense.bias.zero_()
    return nn.Sequential(dense, nn.Tanh())
