"""A shortened model on disk: ``model.safetensors`` and ``recipe.json``, read back without a hub or running code.

The recipe names timm's architecture and describes every map in plain words; the weights are tensors. Neither can carry
code.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from toast_cli.errors import ToastError
from toast_cli.files import write_atomically
from toast_cli.layers import MapBlock, build, describe
from toast_cli.models.factory import blank
from toast_cli.models.timm_parts import Vit, attach_head, with_blocks
from toast_cli.surgery.parts import BlockPart, Part, StemPart

RECIPE, WEIGHTS = "recipe.json", "model.safetensors"
_FORMAT = "toast-export-1"
# Arguments of timm.create_model that say where weights come from, not what the model looks like.
_NOT_SHAPE = {
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
    "scriptable",
    "exportable",
    "no_jit",
}


def recipe_of(vit: Vit, architecture: Mapping[str, Any], parts: Sequence[Part]) -> dict[str, Any]:
    """The recipe that builds ``vit``, joined from ``parts``: the architecture's blocks by number, maps in plain words.

    Raises ToastError for a map or a head that cannot be described.
    """
    blocks = [
        part.index if isinstance(part, BlockPart) else {"of": str(part), **describe(part.module)}
        for part in parts
        if not isinstance(part, StemPart)
    ]
    head = None if isinstance(vit.head, nn.Identity) else describe(vit.head)
    return {
        "format": _FORMAT,
        "architecture": dict(architecture),
        "blocks": blocks,
        "head": head,
        "classes": vit.num_classes,
    }


def write_weights(folder: Path, vit: nn.Module, dtype: torch.dtype) -> None:
    """Write the weights of ``vit`` to ``model.safetensors``, in ``dtype``."""
    tensors = {name: value.detach().cpu().to(dtype).contiguous() for name, value in vit.state_dict().items()}
    write_atomically(folder / WEIGHTS, safetensors.torch.save(tensors))


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe of the export at ``path``. Raises ToastError if that is not the folder of an export."""
    file = path / RECIPE
    if not file.is_file():
        raise ToastError(f"{path} is not an export: give the folder that toast export wrote, which holds {RECIPE}.")
    try:
        recipe = json.loads(file.read_text())
    except (ValueError, OSError) as e:
        raise ToastError(f"{file} cannot be read ({type(e).__name__}): export the model again.") from e
    if not isinstance(recipe, dict) or recipe.get("format") != _FORMAT:
        raise ToastError(
            f"{file} is not in this version's format, {_FORMAT}: use the version that wrote it, or export the model again."
        )
    return recipe


def load(path: str | Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Load an export as an ordinary timm module in evaluation mode: normalised (N, 3, H, W) -> logits or features.

    Its preprocessing is in ``pretrained_cfg``, where ``timm.data.resolve_model_data_config`` finds it. Loading needs
    no hub and runs no code from the files. Weights stored in half precision are widened to ``dtype``.

    Raises ToastError if ``path`` is not an export in safetensors, or if its files do not belong together.
    """
    path = Path(path).expanduser()
    recipe = read_recipe(path)
    file = path / WEIGHTS
    if recipe.get("weights") is None or not file.is_file():
        raise ToastError(
            f"{path} holds no {WEIGHTS}: load reads exports with format=safetensors; run others with their own runtime."
        )
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != recipe["weights"]:
        raise ToastError(
            f"{file} is not the file that {RECIPE} was written for: it was changed or cut short; export the model again."
        )
    try:
        vit = _build(recipe)
        weights = {name: value.to(dtype) for name, value in safetensors.torch.load(content).items()}
        vit.load_state_dict(weights, assign=True)
        config = recipe["pretrained_cfg"].items()
        sizes = ("input_size", "mean", "std")  # tuples in timm, lists in JSON
        vit.pretrained_cfg = {key: tuple(value) if key in sizes else value for key, value in config}  # type: ignore[assignment]
        vit.default_cfg = vit.pretrained_cfg  # timm's older name for it
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, SafetensorError) as e:
        raise ToastError(
            f"{path / RECIPE} does not describe {WEIGHTS} ({' '.join(str(e).split())[:150]}): export the model again."
        ) from e
    return vit.to(dtype).eval()


def _build(recipe: Mapping[str, Any]) -> Vit:
    """The recipe's model, its weights still to be loaded."""
    name, arguments = recipe["architecture"]["name"], recipe["architecture"]["arguments"]
    foreign = _NOT_SHAPE & arguments.keys()
    if foreign:
        raise ToastError(
            f"The recipe asks timm for {', '.join(sorted(foreign))}, which no export does: it was not written by toast."
        )
    vit = blank(name, arguments)
    with torch.random.fork_rng(devices=[]):
        blocks = [vit.blocks[part] if isinstance(part, int) else MapBlock(build(part)) for part in recipe["blocks"]]
        short = with_blocks(vit, blocks)
        if recipe["head"] is not None:
            attach_head(short, build(recipe["head"]), recipe["classes"])
    return short.requires_grad_(True)
