"""A shortened model on disk: ``model.safetensors`` and ``recipe.json``, read back without running code.

The recipe names timm's architecture and describes every map in plain words; the weights are tensors. Neither can carry
code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.files import write_atomically
from toast_cli.models.timm_parts import Vit
from toast_cli.plans import Kept
from toast_cli.surgery.built import Stored, built, shapes_in
from toast_cli.surgery.elastic import is_elastic, of_plan, plan_text
from toast_cli.surgery.fetched import Export
from toast_cli.surgery.parts import BlockPart, Part, StemPart
from toast_cli.surgery.recipe import FORMAT, WEIGHTS, intact, read_recipe
from toast_cli.surgery.words import describe


def recipe_of(vit: Vit, architecture: Mapping[str, Any], parts: Sequence[Part]) -> dict[str, Any]:
    """The recipe that builds ``vit``, joined from ``parts``: the architecture's blocks by number, half ones as
    ``9.attention`` or ``9.mlp``, maps in plain words.

    Raises ToastError for a map or a head that cannot be described.
    """
    blocks = [
        _word(part.kept) if isinstance(part, BlockPart) else {"of": str(part), **describe(part.module)}
        for part in parts
        if not isinstance(part, StemPart)
    ]
    head = None if isinstance(vit.head, nn.Identity) else describe(vit.head)
    return {
        "format": FORMAT,
        "architecture": dict(architecture),
        "blocks": blocks,
        "head": head,
        "classes": vit.num_classes,
    }


def write_weights(folder: Path, vit: nn.Module, dtype: torch.dtype) -> None:
    """Write the weights of ``vit`` to ``model.safetensors``, in ``dtype``."""
    write_atomically(folder / WEIGHTS, safetensors.torch.save(weights_of(vit, dtype)))


def weights_of(vit: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights of ``vit`` as a file holds them, in ``dtype``, by name."""
    return {name: value.detach().cpu().to(dtype).contiguous() for name, value in vit.state_dict().items()}


def load(path: str | Path, dtype: torch.dtype = torch.float32, plan: str | None = None) -> nn.Module:
    """Load an export as an ordinary timm module in evaluation mode: normalised (N, 3, H, W) -> logits or features.

    Its preprocessing is in ``pretrained_cfg``, where ``timm.data.resolve_model_data_config`` finds it. Loading runs no
    code from the files. Weights stored in half precision are widened to ``dtype``. ``path`` is a folder, or as text a
    repository on the hub, ``<user>/<name>`` or ``<user>/<name>@<revision>``; a folder of that name comes first. Of an
    export with several plans, only the tensors of ``plan`` are read; without one it is the plan that a search has chosen.

    Raises ToastError if ``path`` is not an export in safetensors, if its files were changed or do not belong together,
    if a weight is not a finite number, if it holds no such plan or several to choose from, and for what the hub does not
    have, does not give out or cannot send.
    """
    export = Export.find(path)
    recipe = read_recipe(export.folder)
    alone, stored = of_one(export.folder, recipe, plan)
    file = export.weights(recipe)
    if not is_elastic(recipe):
        intact(file, recipe)
    return built(alone, stored, dtype)


def of_one(folder: Path, recipe: Mapping[str, Any], plan: str | None) -> tuple[Mapping[str, Any], Stored]:
    """What the ``recipe`` of an export says of one ``plan``, and its tensors, which may still have to be fetched.

    Raises ToastError if it holds no such plan, or if None leaves several to choose from.
    """
    if is_elastic(recipe):
        return of_plan(folder, recipe, plan)
    if plan is not None and plan_text(plan) != recipe.get("plan"):
        raise ToastError(f"{folder} holds one plan, {recipe.get('plan')}, and not {plan}: leave the plan out.")
    return recipe, _Whole(folder / WEIGHTS)


@dataclass(frozen=True)
class _Whole:
    """The tensors of a file that holds one model."""

    file: Path

    def shapes(self) -> dict[str, list[int]]:
        return shapes_in(self.file)

    def read(self) -> dict[str, Tensor]:
        return safetensors.torch.load(self.file.read_bytes())


def _word(kept: Kept) -> int | str:
    return kept if isinstance(kept, int) else str(kept)
