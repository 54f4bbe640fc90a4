"""The names that other libraries give to the weights of a vision transformer, made those that timm knows.

A layout is recognised by names that it has once for each encoder; whatever comes before them is the prefix of the
encoder's weights. Some end as Meta's own names of DINOv2 and DINOv3, which timm's filters turn into timm's.

Shapes: T tokens, D width.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]  # regular expressions and what takes their place, in this order


@dataclass(frozen=True)
class Layout:
    """``marks`` are names without a prefix; ``heads`` are rules for names outside of the prefix.

    ``clip`` says that CLIP has these names, whose activation a file of weights does not tell.
    """

    name: str
    marks: tuple[str, ...]
    rules: Rules
    heads: Rules = ()
    reshaped: Callable[[Weights], Weights] = dict
    clip: bool = False


def converted(layout: Layout, weights: Mapping[str, Tensor], outside: Mapping[str, Tensor]) -> Weights:
    """The encoder's ``weights`` under timm's names, with its classifier if that is among those ``outside`` of its prefix."""
    found = {_renamed(name, layout.rules): tensor for name, tensor in weights.items()}
    heads = {_renamed(name, layout.heads): tensor for name, tensor in outside.items()}
    found |= {name: tensor for name, tensor in heads.items() if name.startswith(("head.", "head_dist."))}
    kept = {name: tensor for name, tensor in found.items() if not name.startswith(_DROPPED)}
    return layout.reshaped(_fused(kept))


def _renamed(name: str, rules: Rules) -> str:
    for old, new in rules:
        name = re.sub(old, new, name)
    return name


_DROPPED = "dropped."
_PART = re.compile(r"(blocks\.\d+\.attn)\.[qkv]\.(weight|bias)")


def _fused(weights: Weights) -> Weights:
    """Queries, keys and values, apart in other libraries, as the one layer that they are in timm. A missing bias is 0."""
    found: Weights = {}
    for name, tensor in weights.items():
        part = _PART.fullmatch(name)
        if part is None:
            found[name] = tensor
            continue
        three = (weights.get(f"{part[1]}.{each}.{part[2]}", torch.zeros_like(tensor)) for each in "qkv")
        found[f"{part[1]}.qkv.{part[2]}"] = torch.cat(list(three))
    return found


def _with_tokens(weights: Weights) -> Weights:
    """CLIP's class embedding (D,) and positions (T, D) as timm's (1, 1, D) and (1, T, D); SigLIP's pooling as timm's."""
    for name in ("cls_token", "pos_embed"):
        if name in weights:
            weights[name] = weights[name].reshape(1, -1, weights[name].shape[-1])
    for end in ("weight", "bias"):
        if f"attn_pool.in_proj_{end}" in weights:
            query, key, value = weights.pop(f"attn_pool.in_proj_{end}").chunk(3)
            weights |= {f"attn_pool.q.{end}": query, f"attn_pool.kv.{end}": torch.cat([key, value])}
    return weights


TRANSFORMERS = Layout(
    "transformers",
    ("embeddings.patch_embeddings.projection.weight",),
    (
        (r"^pooler\.", _DROPPED),
        (r"^embeddings\.distillation_token$", "dist_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^embeddings\.", ""),
        (r"^layernorm\.", "norm."),
        (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.attention\.([qkv])(uery|ey|alue)\.", r".attn.\1."),
        (r"\.attention\.output\.dense\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
        (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
        (r"\.mlp\.weights_in\.", ".mlp.w12."),
        (r"\.mlp\.weights_out\.", ".mlp.w3."),
    ),
    heads=(
        (r"^(cls_)?classifier\.", "head."),
        (r"^distillation_classifier\.", "head_dist."),
    ),
)
TRANSFORMERS_DINOV3 = Layout(
    "transformers",
    ("embeddings.patch_embeddings.weight",),
    (
        (r"^embeddings\.register_tokens$", "storage_tokens"),
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"^embeddings\.", ""),
        (r"^(model\.)?layer\.(\d+)\.", r"blocks.\2."),
        (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
        (r"\.attention\.o_proj\.", ".attn.proj."),
        (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    ),
    reshaped=lambda weights: _gated(weights),
)
TRANSFORMERS_CLIP = Layout(
    "transformers",
    ("embeddings.patch_embedding.weight",),
    (
        (r"^embeddings\.position_ids$", _DROPPED),
        (r"^embeddings\.class_embedding$", "cls_token"),
        (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
        (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
        (r"^pre_la(y|ye)rnorm\.", "norm_pre."),
        (r"^post_layernorm\.", "norm."),
        (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
        (r"\.layer_norm(\d)\.", r".norm\1."),
        (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
        (r"\.self_attn\.out_proj\.", ".attn.proj."),
        (r"^head\.probe$", "attn_pool.latent"),
        (r"^head\.attention\.in_proj_", "attn_pool.in_proj_"),
        (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
        (r"^head\.layernorm\.", "attn_pool.norm."),
        (r"^head\.mlp\.", "attn_pool.mlp."),
    ),
    heads=((r"^visual_projection\.", "head."),),
    reshaped=_with_tokens,
    clip=True,
)
# timm's own filter knows these names, as long as they have their usual prefix.
CLIP = Layout("OpenAI", ("class_embedding", "conv1.weight"), ((r"^", "visual."),), clip=True)
LAYOUTS = (TRANSFORMERS, TRANSFORMERS_DINOV3, TRANSFORMERS_CLIP, CLIP)


def _gated(weights: Weights) -> Weights:
    """DINOv3's MLP, gated or not, under Meta's names."""
    gated = any(".mlp.gate_proj." in name for name in weights)
    names = {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"} if gated else {"up_proj": "fc1", "down_proj": "fc2"}
    rules = tuple((rf"\.mlp\.{old}\.", f".mlp.{new}.") for old, new in names.items())
    return {_renamed(name, rules): tensor for name, tensor in weights.items()}
