"""Exports that hold several plans of one model: one of them read alone, or all of them in memory with every weight once.

Shapes: N images, C classes, F features.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from toast_cli.errors import ToastError, did_you_mean, is_number
from toast_cli.plans import Plan
from toast_cli.surgery.built import built, shapes_in
from toast_cli.surgery.fetched import Export
from toast_cli.surgery.recipe import ELASTIC, RECIPE, WEIGHTS, checksum_of, read_recipe

_MOST_SHOWN, _LONGEST = 8, 2000  # plans in a sentence; letters of a plan


@dataclass(frozen=True)
class Listed:
    """A plan of an export, as its recipe lists it. ``accuracy`` is the run's, None if the recipe has none; ``params`` counts
    the head too, ``gflops`` do not."""

    plan: str
    accuracy: float | None
    params: float | None
    gflops: float | None


class Elastic(nn.Module):
    """Several plans of one model, (N, 3, H, W) -> (N, C) or (N, F), of which one is used at a time.

    Plans share the very parameters that they have in common: another plan takes no time and hardly any memory, and moving
    or training one moves or trains what it shares with others.
    """

    def __init__(self, models: Mapping[str, nn.Module], plans: Sequence[Listed], plan: str) -> None:
        """``models`` by plan; ``plan`` is used first."""
        super().__init__()
        self.models = nn.ModuleDict(models)
        self.plans = tuple(plans)
        self.use(plan)

    def use(self, plan: str) -> "Elastic":
        """Run ``plan`` from now on. Raises ToastError if there is no such plan."""
        self.plan = _known(plan, list(self.models), "The model")
        return self

    @property
    def model(self) -> nn.Module:
        """The plan in use, an ordinary timm module."""
        return self.models[self.plan]

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The preprocessing, the same for all plans."""
        return self.model.pretrained_cfg  # type: ignore[return-value]

    def forward(self, images: Tensor) -> Tensor:
        """Normalised (N, 3, H, W) -> (N, C) or (N, F)."""
        return self.model(images)


def load_elastic(path: str | Path, dtype: torch.dtype = torch.float32) -> Elastic:
    """Load all plans of an export that ``toast export plan=[…]`` wrote; the first in use is the one that a search has chosen, or
    the first of the list. ``path`` is a folder or a repository, as ``load`` takes it.

    Raises ToastError as ``load`` does, and for an export of one plan.
    """
    export = Export.find(path)
    path, recipe = export.folder, read_recipe(export.folder)
    if not is_elastic(recipe):
        raise ToastError(f"{path} holds one plan: use toast_cli.load, or export several with plan=[none,9-11].")
    export.weights(recipe)
    listed, read, parameters = _listed(path, recipe), dict[str, Tensor](), dict[str, nn.Parameter]()
    models = {}
    for number, each in enumerate(listed):
        alone, tensors = _alone(path, recipe, number, read)
        models[each.plan] = built(alone, tensors, dtype)
        _share(models[each.plan], tensors.names, parameters)
    return Elastic(models, listed, _chosen(recipe, list(models)) or listed[0].plan)


def _share(model: nn.Module, names: Mapping[str, str], parameters: dict[str, nn.Parameter]) -> None:
    """Give ``model`` the ``parameters`` that other plans have under the same stored names, and add those that are new."""
    for own, parameter in list(model.named_parameters()):
        module, _, name = own.rpartition(".")
        setattr(model.get_submodule(module), name, parameters.setdefault(names[own], parameter))


def is_elastic(recipe: Mapping[str, Any]) -> bool:
    """Whether it is the recipe of an export with several plans."""
    return recipe.get("format") == ELASTIC


def plan_text(plan: str) -> str:
    """The plan as recipes have it: its spans may have been given in another order."""
    with suppress(ToastError):
        return str(Plan.parse(str(plan)))
    return str(plan)


def of_plan(folder: Path, recipe: Mapping[str, Any], plan: str | None) -> tuple[dict[str, Any], "PlanTensors"]:
    """What one ``plan`` of an export with several would have for a recipe if it were alone, and its tensors.

    Raises ToastError for a plan that the export does not have, if None leaves several to choose from, and for a recipe that
    lists no plans.
    """
    texts = [each.plan for each in _listed(folder, recipe)]
    plan = _chosen(recipe, texts) if plan is None else _known(plan, texts, str(folder))
    if plan is None:
        raise ToastError(f"{folder} holds several plans, {_some(texts)}: say which one, such as plan {texts[-1]}.")
    return _alone(folder, recipe, texts.index(plan), {})


def _alone(
    folder: Path, recipe: Mapping[str, Any], number: int, read: dict[str, Tensor]
) -> tuple[dict[str, Any], "PlanTensors"]:
    """The same for the plan with this ``number``. Tensors in ``read`` are not read again."""
    entry, sums = recipe["plans"][number], recipe.get("tensors")
    own = {key: entry.get(key) for key in ("blocks", "head", "classes")}
    return {**recipe, **own}, PlanTensors(
        folder / WEIGHTS, entry["tensors"], sums if isinstance(sums, dict) else {}, read
    )


def _listed(folder: Path, recipe: Mapping[str, Any]) -> list[Listed]:
    """The plans that ``recipe`` lists. Raises ToastError if it lists none, one twice, or something else."""
    entries = recipe.get("plans")
    listed = [_entry(each) for each in entries] if isinstance(entries, list) else []
    found = [each for each in listed if each is not None]
    if not found or len({each.plan for each in found}) < len(listed):
        raise ToastError(f"{folder / RECIPE} does not list plans and their tensors: export the model again.")
    return found


def _entry(value: object) -> Listed | None:
    """A plan that a recipe lists; None for anything else."""
    plan, names = (value.get("plan"), value.get("tensors")) if isinstance(value, dict) else (None, None)
    if not isinstance(plan, str) or len(plan) > _LONGEST or not isinstance(names, dict) or not isinstance(value, dict):
        return None
    with suppress(ToastError):
        if str(Plan.parse(plan)) == plan and all(isinstance(name, str) for name in names.values()):
            numbers = (value.get(key) for key in ("accuracy", "params", "gflops"))
            return Listed(plan, *(each if is_number(each) else None for each in numbers))
    return None


def _chosen(recipe: Mapping[str, Any], plans: Sequence[str]) -> str | None:
    """The plan that a search has chosen, or the only one."""
    if len(plans) == 1:
        return plans[0]
    chosen = recipe.get("chosen")
    return chosen if isinstance(chosen, str) and chosen in plans else None


def _known(plan: str, plans: Sequence[str], where: str) -> str:
    """One of the ``plans``. Raises ToastError for another."""
    text = plan_text(plan)
    if text not in plans:
        raise ToastError(f"{where} has no plan {text}{did_you_mean(text, plans)}: it has {_some(plans)}.")
    return text


def _some(plans: Sequence[str]) -> str:
    return f"{', '.join(plans[:_MOST_SHOWN])}{', …' * (len(plans) > _MOST_SHOWN)}"


@dataclass(frozen=True)
class PlanTensors:
    """The tensors of one plan: ``names`` says where each is stored, ``sums`` what its checksum is. Those in ``before``
    were read before; what is read is added."""

    file: Path
    names: Mapping[str, str]
    sums: Mapping[str, Any]
    before: dict[str, Tensor]

    def shapes(self) -> dict[str, list[int]]:
        """Their shapes. Raises ValueError if one is not there, or if the file does not hold floats."""
        shapes = shapes_in(self.file)
        missing = [name for name in self.names.values() if name not in shapes]
        if missing:
            raise ValueError(f"{missing[0]} is not there")
        return {own: shapes[name] for own, name in self.names.items()}

    def read(self) -> dict[str, Tensor]:
        """All of them, each once. Raises ToastError if one was changed."""
        with safe_open(self.file, framework="pt") as opened:
            for name in self.names.values():
                if name not in self.before:
                    value = opened.get_tensor(name)
                    if self.sums.get(name) != checksum_of(value):
                        raise ToastError(
                            f"{self.file} is not the file that {RECIPE} was written for: {name[:80]} was changed; export the model again."
                        )
                    self.before[name] = value
        return {own: self.before[name] for own, name in self.names.items()}
