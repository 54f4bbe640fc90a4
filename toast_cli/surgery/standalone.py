"""What lets an export in safetensors load without toast: ``config.json`` where only blocks are left, which timm builds by itself,
and ``modeling.py`` where maps or half blocks stay.

Either is kept only if the model that it gives does exactly what the export does.
"""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toast_cli.errors import out_of_memory
from toast_cli.files import write_atomically
from toast_cli.models.factory import by_timm
from toast_cli.surgery import modeling

CONFIG, MODELING = "config.json", "modeling.py"


def add(folder: Path, vit: nn.Module, recipe: Mapping[str, Any], images: Tensor, outputs: Tensor) -> str | None:
    """Add the file that loads the export of ``vit`` in ``folder`` without toast; returns its name, None if there is none.

    ``images`` are normalised, (N, 3, H, W), and ``outputs`` is what the export makes of them, (N, C) or (N, F).
    """

    def does_the_same(load: Callable[[], nn.Module]) -> bool:
        try:
            with torch.random.fork_rng(devices=[]), torch.inference_mode():
                return torch.equal(load().eval()(images), outputs)
        except Exception as e:  # timm raises what it likes for what it cannot build; the export is whole without it
            if out_of_memory(e):
                raise
            return False

    if all(isinstance(block, int) for block in recipe["blocks"]) and isinstance(vit.head, nn.Linear | nn.Identity):
        write_atomically(folder / CONFIG, json.dumps(_config(vit, recipe), indent=2) + "\n")
        if does_the_same(lambda: by_timm(folder)):
            return CONFIG
        (folder / CONFIG).unlink()
    shutil.copyfile(modeling.__file__, folder / MODELING)
    if does_the_same(lambda: modeling.load(folder)):
        return MODELING
    (folder / MODELING).unlink()
    return None


def _config(vit: nn.Module, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's ``local-dir:`` and ``hf-hub:`` read."""
    architecture, depth = recipe["architecture"], len(recipe["blocks"])
    return {
        "architecture": architecture["name"],
        "num_classes": vit.num_classes,
        "num_features": vit.num_features,
        "global_pool": vit.global_pool,
        "model_args": {**architecture["arguments"], "depth": depth, "num_classes": vit.num_classes},
        "pretrained_cfg": {
            **copy.deepcopy(recipe["pretrained_cfg"]),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
