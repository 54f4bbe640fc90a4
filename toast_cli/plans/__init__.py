"""Spans of blocks, plans made of them, and plans as they are fitted."""

from toast_cli.plans.spans import STEM, Plan, Span, every_span, pairs_of_blocks, parse_plans, single_blocks
from toast_cli.plans.variants import (
    HEALED,
    INDEPENDENT,
    SEQUENTIAL,
    Fit,
    HealedBlock,
    Map,
    PlanLike,
    Prefix,
    Step,
    Variant,
    block_of,
    step_block,
    variants,
)

__all__ = [
    "HEALED",
    "INDEPENDENT",
    "SEQUENTIAL",
    "STEM",
    "Fit",
    "HealedBlock",
    "Map",
    "Plan",
    "PlanLike",
    "Prefix",
    "Span",
    "Step",
    "Variant",
    "block_of",
    "every_span",
    "pairs_of_blocks",
    "parse_plans",
    "single_blocks",
    "step_block",
    "variants",
]
