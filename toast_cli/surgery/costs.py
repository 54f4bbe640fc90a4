"""Parameters and FLOPs of a shortened model as it would be deployed: the encoder, without a probe or a head, but with the
projection that compares images with texts.

Both are whole numbers until they are written, so that plans of equal cost have equal numbers in every table.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from toast_cli.models.backbone import Backbone
from toast_cli.plans import Kept, Plan, PlanLike, block_of
from toast_cli.surgery.folding import fold, merge
from toast_cli.surgery.parts import BlockPart, MapPart, StemPart, parts_of


@dataclass(frozen=True)
class Cost:
    """``params`` is a count; ``flops`` are floating point operations per image, two for a multiply-add."""

    params: int
    flops: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.params + other.params, self.flops + other.flops)

    @property
    def gflops(self) -> float:
        return self.flops / 1e9


class Costs:
    """The costs of any plan of one backbone: the sum over its operations, each counted once, on one image.

    ``projection`` is what a probe makes use of behind the features (N, F), if anything: it counts too.
    """

    def __init__(self, backbone: Backbone, maps: Mapping[Any, nn.Module], projection: nn.Module | None = None) -> None:
        device = backbone.mean.device
        pixels = torch.zeros(1, *backbone.image_shape, dtype=torch.uint8, device=device)
        with torch.inference_mode():
            latent, _ = backbone.stem(pixels)  # (1, T, D)
            features = backbone.readout(latent)  # (1, F)
        everything = sum(p.numel() for p in backbone.vit.parameters())
        inside = sum(p.numel() for p in backbone.blocks.parameters())
        ends = _flops(lambda x: backbone.readout(latent).sum() + backbone.stem(x)[0].sum(), pixels)
        self.backbone, self.maps, self.latent = backbone, maps, latent
        self.ends = Cost(everything - inside, ends) + (_cost(projection, features) if projection else Cost(0, 0))
        self.operations: dict[Hashable, Cost] = {
            **{i: _cost(block, latent) for i, block in enumerate(backbone.blocks)},
            **{key: _cost(module, latent) for key, module in maps.items() if block_of(key) is None},
        }
        self._merge = cache(merge)  # thousands of plans share the same folded parts

    def of(self, plan: PlanLike) -> Cost:
        """Parameters and FLOPs of the shortened model of ``plan``; maps that fold into other weights cost nothing."""
        folded = fold(parts_of(self.backbone, plan, self.maps), self._merge)
        return sum((self._of_part(part) for part in folded if not isinstance(part, StemPart)), start=self.ends)

    def _of_part(self, part: BlockPart | MapPart) -> Cost:
        if isinstance(part, BlockPart):
            return self._of_kept(part.kept)
        return self.operations[part.keys[0]] if len(part.keys) == 1 else _cost(part.module, self.latent)

    def _of_kept(self, kept: Kept) -> Cost:
        if kept not in self.operations:  # a half block, of which most runs have none
            self.operations[kept] = _cost(self.backbone.part(kept), self.latent)
        return self.operations[kept]

    def columns(self, plan: PlanLike) -> dict[str, Any]:
        """The same as columns ``params``, ``params_ratio``, ``gflops`` and ``gflops_ratio``, ratios to the original."""
        cost, original = self.of(plan), self.of(Plan())
        return {
            "params": cost.params,
            "params_ratio": cost.params / original.params,
            "gflops": cost.gflops,
            "gflops_ratio": cost.flops / original.flops,
        }


def _cost(module: nn.Module, latent: Tensor) -> Cost:
    return Cost(sum(p.numel() for p in module.parameters()), _flops(module, latent))


def _flops(function: Callable[[Tensor], object], argument: Tensor) -> int:
    """FLOPs of one call, with attention written out as two products: fused kernels have been counted as nothing."""
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function(argument)
    return counter.get_total_flops()
