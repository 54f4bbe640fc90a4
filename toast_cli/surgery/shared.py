"""The tensors of several plans of one model, each stored once, under a name that says whose it is.

Plans share what they have in common to the bit: the stem, the blocks that stay, the maps of the same spans. What a plan has
for itself (its head, healed blocks, a bias that a shift was folded into) is stored beside that with the plan in its name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from toast_cli.surgery.recipe import checksum_of
from toast_cli.surgery.saved import weights_of


class Shared:
    """Tensors by the names that they are stored under, in ``dtype``. ``sums`` has the checksum of each, and ``alone`` counts the
    bytes of the files that the models would have one by one."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.alone = dtype, 0
        self.tensors: dict[str, Tensor] = {}
        self.sums: dict[str, str] = {}
        self._known: dict[tuple[str, str], str] = {}

    def add(self, plan: str, vit: nn.Module, blocks: Sequence[Any]) -> dict[str, str]:
        """Add the model of ``plan`` with the ``blocks`` of its recipe; returns where each of its tensors is stored."""
        weights = weights_of(vit, self.dtype)
        self.alone += len(safetensors.torch.save(weights))
        return {own: self._place(_part(own, blocks), plan, value) for own, value in weights.items()}

    def _place(self, part: str, plan: str, value: Tensor) -> str:
        """The name under which ``value`` is stored: that of the ``part``, or a name of the plan's own if others have it."""
        found = checksum_of(value)
        if (part, found) not in self._known:
            name = f"{part}@{plan}" if part in self.tensors else part
            self._known[part, found] = name
            self.tensors[name], self.sums[name] = value, found
        return self._known[part, found]

    def file(self) -> bytes:
        """All of them as a safetensors file."""
        return safetensors.torch.save(self.tensors)


def _part(own: str, blocks: Sequence[str | int | Mapping[str, Any]]) -> str:
    """What a tensor of a model is, whatever the place of its block there: that of block 9, or of the map 7-9@500."""
    if not own.startswith("blocks."):
        return own
    _, place, rest = own.split(".", 2)
    block = blocks[int(place)]
    if isinstance(block, Mapping):
        return f"maps.{block['of']}.{rest.removeprefix('map.')}"
    return f"blocks.{str(block).partition('.')[0]}.{rest}"
