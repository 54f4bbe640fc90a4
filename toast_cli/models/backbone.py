"""A timm vision transformer as stem → blocks → readout.

Only this file, timm_parts.py, branches.py, halves.py and fused.py know the names of timm's parts.

Shapes: N images, T tokens, D width, F features (what a probe sees), C classes.
"""

import hashlib
import math
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from typing import Any

import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.models.allowed import require_readout
from toast_cli.models.branches import Branch, with_tensors
from toast_cli.models.fused import FusedBlock, fast_block, layers_of
from toast_cli.models.halves import kept_block
from toast_cli.models.preprocessing import Transform, settings_of, to_pixels
from toast_cli.models.timm_parts import Vit, channels_of, exchanged
from toast_cli.plans import STEM, Kept, Point

_ALWAYS_FP32 = (0, 1)  # blocks

Extras = Mapping[str, Tensor | None]  # what every block takes as well as the latent: for Eva the rotary embedding
FastBlock = Callable[[Tensor, Extras, int | None], Tensor]


class Backbone(nn.Module):
    """A timm vision transformer, cut into the parts that plans are made of.

    Attributes:
        label: its name in tables.
        blocks: L modules, each (N, T, D) -> (N, T, D).
        depth, width, image_size: L, D and the side of its square input in pixels.
        block_dtype: what blocks multiply in. The residual stream stays in fp32, as do the stem, the first two blocks, the
            translators and the readout: they cost little, and in bf16 they would add rounding noise to directions in
            which early latents hardly vary, and a least-squares map would then amplify it.
        preprocessing: the settings of timm's data config that decide what the model sees of an image.
        transform: PIL image in RGB -> uint8 (3, H, W), as ``preprocessing`` says.
        readout_tokens: how many leading tokens the readout looks at; None means all of them.
        readout_kind: ``model`` (its own pooling), or ``paper``: followed by a dense layer and tanh with random weights,
            which the method's reference implementation puts before the probe for ViT and DeiT (the pooler that another
            library adds if a checkpoint has none). DINOv2 has no such layer there.
        head: the classifier that came with the weights, (N, F) -> (N, C), or None. A distilled model's classes are the mean
            of two heads, one for each of two tokens: with its head, its features are both tokens, one after the other, and
            without it their mean.
        notes: what a person should know of how the weights were read.
        recipe: the name and the arguments with which timm can build the model again; empty if they are not known.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        vit: Vit,
        label: str,
        image_size: int,
        head: nn.Linear | None = None,
        readout: str = "model",
        resize: int | None = None,
        recipe: Mapping[str, Any] | None = None,
        block_dtype: torch.dtype = torch.float32,
        in_fp32: Container[int] = _ALWAYS_FP32,
        notes: Sequence[str] = (),
    ) -> None:
        """``resize``: the short side of an image in pixels before the crop; None leaves it to the model's own config.

        ``in_fp32``: the blocks that stay in fp32 whatever ``block_dtype`` is.

        Raises ToastError for an unknown ``readout``, or a model whose blocks cannot be removed one by one.
        """
        super().__init__()
        require_readout(readout)
        if getattr(vit, "rope_mixed", False):
            raise ToastError(
                f"{label} has separate position embeddings for every block, which a shortened model would mix up: such models cannot be used."
            )
        self.vit, self.label, self.image_size, self.head = vit, label, image_size, head
        self.readout_kind, self.resize, self.recipe = readout, resize, dict(recipe or {})
        self.block_dtype, self._in_fp32, self.notes = block_dtype, in_fp32, tuple(notes)
        self.preprocessing = settings_of(vit, image_size, resize)
        self.transform: Transform = to_pixels(self.preprocessing)
        self.register_buffer("mean", torch.tensor(self.preprocessing["mean"]).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.preprocessing["std"]).view(-1, 1, 1), persistent=False)
        dinov2 = "dinov2" in str(getattr(vit, "pretrained_cfg", ""))
        self.pooler: nn.Sequential | None = None if readout == "model" or dinov2 else _random_pooler(self.feature_width)
        self.eval().requires_grad_(False)

    def on(self, device: torch.device, block_dtype: torch.dtype, with_head: bool = True) -> "Backbone":
        """The same model on ``device``, its blocks multiplying in ``block_dtype``, with its head or without."""
        return self.with_vit(self.vit, self.head if with_head else None, block_dtype).to(device)

    def with_vit(
        self, vit: Vit, head: nn.Linear | None, block_dtype: torch.dtype, in_fp32: Container[int] = _ALWAYS_FP32
    ) -> "Backbone":
        """Another model with the preprocessing, the readout and the label of this one."""
        return Backbone(
            vit,
            self.label,
            self.image_size,
            head,
            self.readout_kind,
            self.resize,
            self.recipe,
            block_dtype,
            in_fp32,
            self.notes,
        )

    @property
    def blocks(self) -> nn.Sequential | nn.ModuleList:
        return self.vit.blocks

    @property
    def depth(self) -> int:
        """L, the number of blocks."""
        return len(self.vit.blocks)

    @property
    def width(self) -> int:
        """D, the width of a latent."""
        return self.vit.embed_dim

    @property
    def tokens(self) -> int:
        """T, the number of prefix tokens and patches."""
        return self.vit.num_prefix_tokens + self.vit.patch_embed.num_patches

    @property
    def prefix_tokens(self) -> int:
        """How many tokens come before the patches: class and register tokens."""
        return self.vit.num_prefix_tokens

    @property
    def grid(self) -> tuple[int, int]:
        """The numbers of patches (h, w) below and beside each other."""
        grid: Any = self.vit.patch_embed.grid_size
        return grid

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return channels_of(self.vit), self.image_size, self.image_size

    @property
    def feature_width(self) -> int:
        """F, the width of a feature vector."""
        return self.vit.head_hidden_size * (2 if self._gives_both_tokens else 1)

    @property
    def _gives_both_tokens(self) -> bool:
        own = self.readout_kind == "model" and self.head is not None
        return own and self.head.in_features == 2 * self.vit.head_hidden_size  # type: ignore[union-attr]

    @property
    def readout_tokens(self) -> int | None:
        if self.vit.global_pool != "token" or getattr(self.vit, "attn_pool", None) is not None:
            return None
        return 2 if hasattr(self.vit, "dist_token") else 1

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float (N, C, H, W), scaled and shifted as the model was trained."""
        return (pixels.float() / 255 - self.mean) / self.std

    def stem(self, pixels: Tensor) -> tuple[Tensor, Extras]:
        """uint8 (N, 3, H, W) -> X^(−1) (N, T, D), which enters block 0, and what all blocks take as well as the latent."""
        return self.embed(self.normalise(pixels))

    def embed(self, images: Tensor) -> tuple[Tensor, Extras]:
        """Normalised images (N, 3, H, W) -> X^(−1) (N, T, D), and what all blocks take as well as the latent."""
        x = self.vit._pos_embed(self.vit.patch_embed(images))
        if isinstance(self.vit, Eva):
            x, rotation = x
            return self.vit.norm_pre(x), {"rope": rotation}
        return self.vit.norm_pre(self.vit.patch_drop(x)), {}

    def part(self, kept: Kept) -> nn.Module:
        """A block, or half of one, (N, T, D) -> (N, T, D). Raises ValueError for half of a block that cannot be cut."""
        return kept_block(self.vit.blocks, kept)

    def block(self, i: int, latent: Tensor, extras: Extras, other: nn.Module | None = None) -> Tensor:
        """X^(i−1) (N, T, D) -> X^(i) (N, T, D), by timm's own code; ``other`` is what stands in block i's place, healed or half."""
        block = self.vit.blocks[i] if other is None else other
        with self._autocast(i, latent):
            return block(latent, **extras).to(latent.dtype)

    def healed(self, kept: Kept, tensors: Mapping[str, Tensor]) -> nn.Module:
        """A block or half block with ``tensors`` by name in place of its own, on the model's device."""
        return with_tensors(self.part(kept), {name: each.to(self.mean.device) for name, each in tensors.items()})

    def block_and_middle(self, i: int, latent: Tensor, extras: Extras) -> tuple[Tensor, Tensor]:
        """X^(i−1) (N, T, D) -> what enters block i's second branch, and X^(i), both (N, T, D); by timm's own code."""
        block = self.vit.blocks[i]
        second = _Remembering(block.norm2)  # type: ignore[arg-type]  # of this call alone: others may run at the same time
        after = self.block(i, latent, extras, exchanged(block, modules={"norm2": second}))
        return second.taken.to(latent.dtype), after

    def hidden(self, i: int, branch: Branch, latent: Tensor, extras: Extras) -> Tensor:
        """The hidden layer (N, T, F) of one of block i's branches for x (N, T, D)."""
        with self._autocast(i, latent):
            return branch.hidden(latent, extras)

    def end(self, i: int, branch: Branch, latent: Tensor, hidden: Tensor) -> Tensor:
        """The result (N, T, D) of one of block i's branches for x (N, T, D) and its hidden layer (N, T, F)."""
        with self._autocast(i, latent):
            return branch.end(latent, hidden).to(latent.dtype)

    def _autocast(self, i: int, latent: Tensor) -> torch.autocast:
        return torch.autocast(latent.device.type, torch.bfloat16, enabled=self.multiplies_in_bf16(i))

    def multiplies_in_bf16(self, i: int) -> bool:
        """Whether block i multiplies in bf16."""
        return self.block_dtype == torch.bfloat16 and i not in self._in_fp32

    def is_rounded(self, point: Point) -> bool:
        """Whether X^(``point``) comes out of products in bf16, whose rounding is far coarser than that of TF32."""
        return point > STEM and self.multiplies_in_bf16(math.ceil(point))

    def fused_blocks(self, i: int, modules: Mapping[Hashable, nn.Module]) -> dict[Hashable, FastBlock]:
        """``block(i, latent, extras, module)[:, :rows]`` for each of the ``modules``, as a function (N, T, D) -> (N, rows, D)
        under its key: block i itself, healed ones in its place, and halves of these.

        They are faster than ``block``, equal to it up to rounding, and have one copy of the weights together, and of what is
        healed. Blocks that are not timm's plain ``Block`` are computed as they are.
        """
        parts = layers_of(self.vit.blocks[i])
        if parts is None:
            return {key: self._plain(i, module) for key, module in modules.items()}
        fused = FusedBlock(parts, self.block_dtype if self.multiplies_in_bf16(i) else torch.float32)
        return {key: fast_block(fused, module, parts) for key, module in modules.items()}

    def fused_block(self, i: int) -> FastBlock:
        """The function that ``fused_blocks`` gives for block i itself."""
        return self.fused_blocks(i, {i: self.vit.blocks[i]})[i]

    def _plain(self, i: int, module: nn.Module) -> FastBlock:
        return lambda latent, extras, rows: self.block(i, latent, extras, module)[:, :rows]

    def readout(self, latent: Tensor) -> Tensor:
        """Last latent (N, T, D), or its first ``readout_tokens`` tokens -> features (N, F): final norm, then pooling."""
        normed = self.vit.norm(latent)
        if self._gives_both_tokens:
            return normed[:, :2].flatten(1)
        features = self.vit.forward_head(normed, pre_logits=True)
        return features if self.pooler is None else self.pooler(features)

    def patches(self, latent: Tensor) -> Tensor:
        """Last latent (N, T, D) -> its patch tokens (N, p, D) after the final norm, which some models have behind their pooling."""
        norm: Any = self.vit.norm if not isinstance(self.vit.norm, nn.Identity) else self.vit.fc_norm
        return norm(latent)[:, self.prefix_tokens :]

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> logits (N, C) of the head, or features (N, F) without one."""
        latent, extras = self.stem(pixels)
        for i in range(self.depth):
            latent = self.block(i, latent, extras)
        features = self.readout(latent)
        return features if self.head is None else self.head(features)

    def fingerprint(self) -> str:
        """Hash of the names and values of all the encoder's weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.vit.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


class _Remembering(nn.Module):
    """``module``, and what it was called with last."""

    taken: Tensor

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        self.taken = x
        return self.module(x)


def _random_pooler(width: int) -> nn.Sequential:
    """A dense layer and tanh, with weights from N(0, 0.02²), the same in every run."""
    dense = nn.Linear(width, width)
    with torch.no_grad():
        dense.weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(0))
        dense.bias.zero_()
    return nn.Sequential(dense, nn.Tanh())
