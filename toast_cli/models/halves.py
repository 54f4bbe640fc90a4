"""Half blocks: one branch of a pre-norm block that stays without the other.

A pre-norm block is x + s·attention(norm(x)), then x + s·mlp(norm(x)), with LayerScale s; between the two lies a point of
plans. Blocks whose branches run side by side, or that normalise afterwards, have no such point.
"""

from collections.abc import Iterable
from typing import Any

from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.plans import ATTENTION, Kept, Plan, middles


class HalfBlock(nn.Module):
    """x + s·inside(norm(x)), with the modules of a block's attention or of its MLP, shared with it, under the names they have there."""

    def __init__(self, block: nn.Module, part: str) -> None:
        super().__init__()
        self.number, self.inside = (1, "attn") if part == ATTENTION else (2, "mlp")
        for name in (f"norm{self.number}", self.inside, f"ls{self.number}", f"drop_path{self.number}"):
            if hasattr(block, name):
                self.add_module(name, getattr(block, name))
        if isinstance(block, EvaBlock):
            self.register_parameter(f"gamma_{self.number}", getattr(block, f"gamma_{self.number}"))
        self.train(block.training)

    def forward(self, latent: Tensor, **others: Any) -> Tensor:
        """(N, T, D) -> (N, T, D). ``others`` is what attention takes as well: masks, rotary embeddings."""
        normed = getattr(self, f"norm{self.number}")(latent)
        inside = getattr(self, self.inside)
        added = inside(normed, **others) if self.inside == "attn" else inside(normed)
        if hasattr(self, f"ls{self.number}"):
            added = getattr(self, f"ls{self.number}")(added)
        elif (scale := getattr(self, f"gamma_{self.number}")) is not None:
            added = scale * added
        return latent + getattr(self, f"drop_path{self.number}")(added)


def kept_block(blocks: nn.Sequential | nn.ModuleList, kept: Kept) -> nn.Module:
    """One of a model's ``blocks``, or half of one. Raises ValueError for half of a block that cannot be cut."""
    if isinstance(kept, int):
        return blocks[kept]
    block = blocks[kept.block]
    if not _can_be_cut(block):
        raise ValueError(f"a {type(block).__name__} has no latent between its attention and its MLP")
    return HalfBlock(block, kept.part)


def can_be_halved(blocks: Iterable[nn.Module]) -> bool:
    """Whether there is a latent between the attention and the MLP of each of the ``blocks``."""
    return all(map(_can_be_cut, blocks))


def require_halves(plans: Iterable[Plan], blocks: nn.Sequential | nn.ModuleList) -> None:
    """Raises ToastError if a plan cuts one of a model's ``blocks`` that has no latent between its attention and its MLP."""
    for plan in plans:
        for number in sorted(middles(plan.points)):
            if number < len(blocks) and not _can_be_cut(blocks[number]):
                raise ToastError(
                    f"plan {plan} cuts block {number} between its attention and its MLP, and a {type(blocks[number]).__name__} has no latent "
                    "there: use plans of whole blocks, such as 9-11."
                )


def _can_be_cut(block: nn.Module) -> bool:
    return type(block) is Block or type(block) is EvaBlock
