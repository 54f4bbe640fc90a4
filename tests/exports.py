"""A shortened model as an export, and an export that was tampered with."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch

from toast_cli import Plan
from toast_cli.models.backbone import Backbone
from toast_cli.models.timm_parts import attach_head
from toast_cli.surgery.parts import join, parts_of
from toast_cli.surgery.saved import RECIPE, WEIGHTS, recipe_of, write_weights


def saved(
    folder: Path,
    backbone: Backbone,
    plan: str = "0-1",
    dtype: torch.dtype = torch.float32,
    layer: Callable[[], torch.nn.Module] = lambda: torch.nn.Linear(32, 32),
) -> torch.nn.Module:
    """The model with a map, a ``layer``, in place of the plan's blocks and a head of five classes, which is written to the folder too."""
    chosen = Plan.parse(plan)
    made = parts_of(backbone, chosen, {span: layer() for span in chosen.spans})
    vit = join(made).eval()
    attach_head(vit, torch.nn.Linear(backbone.feature_width, 5), 5)
    write_weights(folder, vit, dtype)
    recipe = recipe_of(vit, backbone.recipe, made)
    recipe |= {"pretrained_cfg": {"num_classes": 5, "input_size": [3, 32, 32]}, "file": WEIGHTS}
    recipe["weights"] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / RECIPE).write_text(json.dumps(recipe))
    return vit


def damage(path: Path, change: Callable[[dict], object]) -> None:
    """Rewrite the recipe of an export."""
    recipe = json.loads((path / RECIPE).read_text())
    change(recipe)
    (path / RECIPE).write_text(json.dumps(recipe))
