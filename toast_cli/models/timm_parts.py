"""The parts of a timm vision transformer that can be exchanged: its blocks, its head, and layers that a map can fold into.

Only this file, backbone.py, branches.py, halves.py and fused.py know the names of timm's parts. Shapes: N images, T tokens, D width, C classes, F features.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar

from timm.layers import PatchEmbed
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from toast_cli.layers import exact
from toast_cli.models.halves import HalfBlock

# Eva is timm's name for transformers with rotary position embeddings, DINOv3 among them.
FAMILIES = (VisionTransformer, Eva)
Vit = VisionTransformer | Eva
_Module = TypeVar("_Module", bound=nn.Module)


def channels_of(vit: Vit) -> int:
    """How many channels the images have that ``vit`` takes."""
    return next(each.in_channels for each in vit.patch_embed.modules() if isinstance(each, nn.Conv2d))


def with_blocks(vit: Vit, operations: Sequence[nn.Module]) -> Vit:
    """A deep copy of ``vit`` whose blocks are copies of ``operations``, in order."""
    blocks = nn.ModuleList(operations) if isinstance(vit, Eva) else nn.Sequential(*operations)
    short = copy.deepcopy(exchanged(vit, modules={"blocks": blocks}))
    short.feature_info = [{**vit.feature_info[0], "module": f"blocks.{i}"} for i in range(len(blocks))]
    return short


def attach_head(vit: Vit, head: nn.Module, classes: int) -> None:
    """Make ``head`` (N, F) -> (N, C) the model's classifier.

    Of a distilled model's two heads each becomes a copy, so their mean is ``head``; one for both tokens side by side,
    (N, 2F) -> (N, C), becomes the two whose mean it is.
    """
    vit.num_classes = classes
    if hasattr(vit, "head_dist"):
        vit.head, vit.head_dist = _halves(head, vit.head_hidden_size)  # type: ignore[assignment]
    else:
        vit.head = head  # type: ignore[assignment]  # timm's own is a Linear


def _halves(head: nn.Module, width: int) -> tuple[nn.Module, nn.Module]:
    """Two heads (N, F) -> (N, C), F being ``width``, whose mean is ``head``."""
    if not isinstance(head, nn.Linear) or head.in_features != 2 * width:
        return head, copy.deepcopy(head)
    halves = [nn.Linear(width, head.out_features, bias=head.bias is not None) for _ in range(2)]
    for half, weight in zip(halves, head.weight.detach().chunk(2, dim=1), strict=True):
        half.load_state_dict({"weight": 2 * weight} | ({} if head.bias is None else {"bias": head.bias.detach()}))
    return halves[0], halves[1]


def block_then_shift(block: nn.Module, shift: Tensor) -> nn.Module | None:
    """``block``, or half of one, and then x + ``shift`` (D,) as one, through the bias of its last layer; None if that cannot be done.

    All other weights are shared with ``block``.
    """
    if not isinstance(block, Block | EvaBlock | HalfBlock):
        return None
    inside, end, number = "mlp", "fc2", 2
    if isinstance(block, HalfBlock) and block.inside == "attn":
        inside, end, number = "attn", "proj", 1
    branch = getattr(block, inside)
    last = getattr(branch, end, None)
    gamma = getattr(getattr(block, f"ls{number}", None), "gamma", None)
    scale = getattr(block, f"gamma_{number}", gamma)
    if not isinstance(last, nn.Linear) or last.bias is None:
        return None
    if scale is not None and not (scale.abs() > 1e-6).all():
        return None  # LayerScale blocks the bias there
    added = exact(shift) if scale is None else exact(shift) / exact(scale)
    bias = (exact(last.bias) + added).to(last.bias)  # on whatever device the shift is
    shifted = exchanged(branch, modules={end: exchanged(last, tensors={"bias": bias})})
    return exchanged(block, modules={inside: shifted})


def stem_then_affine(vit: Vit, weight: Tensor, bias: Tensor) -> Vit | None:
    """A model whose X^(−1) is ``vit``'s X^(−1) W + b; None if the stem is not linear in the pixels or cannot hold b.

    W maps the patch projection, the prefix tokens and the position embeddings; b is added once to every token, through the
    position embeddings if there are any. All other weights are shared with ``vit``.

    Args:
        weight: W (D, D), bias: b (D,), both float64 on the CPU.
    """
    patches = vit.patch_embed
    linear = isinstance(patches, PatchEmbed) and isinstance(patches.proj, nn.Conv2d)
    if not linear or not isinstance(patches.norm, nn.Identity) or not isinstance(vit.norm_pre, nn.Identity):
        return None
    positions, kernel = vit.pos_embed, patches.proj.bias
    if positions is None and kernel is None:
        return None  # nothing can take b

    def mapped(tensor: Tensor, and_bias: bool) -> Tensor:
        """Rows (N, D) of a weight times W, plus b if ``and_bias``."""
        return (exact(tensor) @ weight + (bias if and_bias else 0)).to(tensor)

    own = patches.proj.weight  # (D, 3, P, P)
    projection = {"weight": mapped(own.movedim(0, -1), False).movedim(-1, 0).contiguous()}
    if kernel is not None:
        projection["bias"] = mapped(kernel, positions is None)
    # If the position embeddings do not cover the prefix tokens, those tokens take b themselves.
    apart = positions is None or vit.no_embed_class
    prefix = {name: getattr(vit, name, None) for name in ("cls_token", "reg_token", "dist_token")}
    tensors = {name: mapped(token, apart) for name, token in prefix.items() if token is not None}
    if positions is not None:
        tensors["pos_embed"] = mapped(positions, True)
    embed = exchanged(patches, modules={"proj": exchanged(patches.proj, tensors=projection)})
    return exchanged(vit, modules={"patch_embed": embed}, tensors=tensors)


def exchanged(
    module: _Module, modules: Mapping[str, nn.Module] | None = None, tensors: Mapping[str, Tensor] | None = None
) -> _Module:
    """A copy of ``module`` with some of its own parts or tensors exchanged; it shares the others with the original."""
    copied = copy.copy(module)
    copied._modules = {**module._modules, **(modules or {})}
    parameters = {
        name: nn.Parameter(tensor, requires_grad=module._parameters[name].requires_grad)  # type: ignore[union-attr]
        for name, tensor in (tensors or {}).items()
    }
    copied._parameters = {**module._parameters, **parameters}
    return copied
