"""A vision transformer written plainly from its description, its weights under Meta's names, and under those of transformers.

Nothing here uses timm: it is what checkpoints in other libraries' names are compared with. D is the width, 4 by 4 the grid.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

DIM, DEPTH, HEADS, PATCH, SIDE = 24, 2, 3, 8, 32
SIZE = {"embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "patch_size": PATCH}


def weights(registers: int = 0, scale: bool = False, swiglu: bool = False, prefix: int = 1) -> dict[str, Tensor]:
    """Random weights under Meta's names of DINOv2, which are timm's where it has only one linear layer for each purpose."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    found = {
        "cls_token": random(1, 1, DIM),
        "pos_embed": random(1, 16 + prefix, DIM),
        "patch_embed.proj.weight": random(DIM, 3, PATCH, PATCH),
        "patch_embed.proj.bias": random(DIM),
    }
    if registers:
        found["register_tokens"] = random(1, registers, DIM)
    layers = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}
    layers |= (
        {"mlp.w12": (128, DIM), "mlp.w3": (DIM, 64)}
        if swiglu
        else {"mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM)}
    )
    for i in range(DEPTH):
        for norm in ("norm1", "norm2"):
            found |= {f"blocks.{i}.{norm}.weight": 1 + random(DIM), f"blocks.{i}.{norm}.bias": random(DIM)}
        for name, (rows, columns) in layers.items():
            found |= {f"blocks.{i}.{name}.weight": random(rows, columns), f"blocks.{i}.{name}.bias": random(rows)}
        if scale:
            found |= {f"blocks.{i}.ls{n}.gamma": 0.5 + random(DIM) for n in (1, 2)}
    return found | {"norm.weight": 1 + random(DIM), "norm.bias": random(DIM)}


def forward(
    w: dict[str, Tensor], images: Tensor, act: Callable[[Tensor], Tensor] = F.gelu, eps: float = 1e-6
) -> Tensor:
    """Normalised images (N, 3, H, W) -> all tokens after the final norm (N, T, D)."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (DIM,), w[f"{name}.weight"], w[f"{name}.bias"], eps) if f"{name}.weight" in w else x

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = (
        F.conv2d(images, w["patch_embed.proj.weight"], w.get("patch_embed.proj.bias"), stride=PATCH)
        .flatten(2)
        .transpose(1, 2)
    )
    leading = [w[name] for name in ("cls_token", "dist_token") if name in w]
    x = torch.cat([*(each.expand(len(x), -1, -1) for each in leading), x], 1) + w["pos_embed"]
    if "register_tokens" in w:
        x = torch.cat([x[:, :1], w["register_tokens"].expand(len(x), -1, -1), x[:, 1:]], 1)
    x = norm(x, "norm_pre")
    for i in range(DEPTH):
        block = f"blocks.{i}"
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").unflatten(
            -1, (3, HEADS, -1)
        )  # (N, T, 3, heads, d)
        q, k, v = (each.transpose(1, 2) for each in qkv.unbind(2))
        attended = (q @ k.mT / (DIM / HEADS) ** 0.5).softmax(-1) @ v
        x = x + w.get(f"{block}.ls1.gamma", torch.ones(DIM)) * linear(
            attended.transpose(1, 2).flatten(2), f"{block}.attn.proj"
        )
        inside = norm(x, f"{block}.norm2")
        if f"{block}.mlp.w12.weight" in w:
            gate, value = linear(inside, f"{block}.mlp.w12").chunk(2, -1)
            out = linear(F.silu(gate) * value, f"{block}.mlp.w3")
        else:
            out = linear(act(linear(inside, f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
        x = x + w.get(f"{block}.ls2.gamma", torch.ones(DIM)) * out
    return norm(x, "norm")


# Meta's names and those of transformers: of ViT and DeiT, of DINOv2, and of CLIP.
_SHARED = {
    "pos_embed": "embeddings.position_embeddings", "cls_token": "embeddings.cls_token", "dist_token": "embeddings.distillation_token",
    "register_tokens": "embeddings.register_tokens", "mask_token": "embeddings.mask_token",
    "patch_embed.proj": "embeddings.patch_embeddings.projection", "norm": "layernorm", "blocks": "encoder.layer",
    "attn.qkv": "attention.attention.{}", "attn.proj": "attention.output.dense",
}  # fmt: skip
VIT = _SHARED | {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
DINOV2 = _SHARED | {
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    "mlp.w12": "mlp.weights_in",
    "mlp.w3": "mlp.weights_out",
}
CLIP = {
    "pos_embed": "embeddings.position_embedding.weight", "cls_token": "embeddings.class_embedding", "patch_embed.proj": "embeddings.patch_embedding",
    "norm_pre": "pre_layrnorm", "norm": "post_layernorm", "blocks": "encoder.layers", "norm1": "layer_norm1", "norm2": "layer_norm2",
    "attn.qkv": "self_attn.{}_proj", "attn.proj": "self_attn.out_proj",
}  # fmt: skip


def renamed(w: dict[str, Tensor], names: dict[str, str], prefix: str = "") -> dict[str, Tensor]:
    """The same weights under the ``names`` of another library, with queries, keys and values apart."""
    parts = ("q", "k", "v") if names is CLIP else ("query", "key", "value")
    found: dict[str, Tensor] = {}
    for name, tensor in w.items():
        place, number, inside = "", "", name
        if name.startswith("blocks."):
            _, number, inside = name.split(".", 2)
            place = f"{names['blocks']}.{number}."
        stem, dot, end = inside.rpartition(".")
        new = names.get(inside) or names.get(stem, stem) + dot + end
        if "{}" in new:
            found |= {
                prefix + place + new.format(part): each.clone()
                for part, each in zip(parts, tensor.chunk(3), strict=True)
            }
        else:
            found[prefix + place + new] = tensor.clone()
    return found
