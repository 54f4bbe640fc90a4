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
from toast_cli.surgery.recipe import ELASTIC, RECIPE, WEIGHTS
from toast_cli.surgery.saved import recipe_of, write_weights
from toast_cli.surgery.shared import Shared


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


def saved_plans(
    folder: Path,
    models: dict[str, tuple[torch.nn.Module, list]],
    backbone: Backbone,
    dtype: torch.dtype = torch.float32,
) -> Shared:
    """An export of several plans, from the model and the parts of each; its recipe is not sealed."""
    shared, plans = Shared(dtype), []
    for plan, (vit, parts) in models.items():
        words = recipe_of(vit, backbone.recipe, parts)
        entry = {
            "plan": plan,
            "accuracy": 0.5,
            "params": 7,
            "gflops": 1.5,
            "tensors": shared.add(plan, vit, words["blocks"]),
        }
        plans.append(entry | {key: words[key] for key in ("blocks", "head", "classes")})
    (folder / WEIGHTS).write_bytes(shared.file())
    recipe = {
        "format": ELASTIC,
        "architecture": words["architecture"],
        "pretrained_cfg": {"num_classes": 5, "input_size": [3, 32, 32]},
        "file": WEIGHTS,
        "plans": plans,
        "tensors": shared.sums,
        "weights": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
    }
    (folder / RECIPE).write_text(json.dumps(recipe))
    return shared


def damage(path: Path, change: Callable[[dict], object]) -> None:
    """Rewrite the recipe of an export."""
    recipe = json.loads((path / RECIPE).read_text())
    change(recipe)
    (path / RECIPE).write_text(json.dumps(recipe))
