"""Several plans of a run as one export: every plan as it would be exported alone, and what they share stored once.

Shapes: N images, C classes, F features.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toast_cli.files import write_atomically
from toast_cli.stages.deploy import deployed
from toast_cli.stages.exported import beside, compare, images_of, made_of, versions, write_recipe
from toast_cli.stages.exporting import Settings
from toast_cli.stages.reopen import Reopened
from toast_cli.surgery.formats import read_plan, torch_dtype
from toast_cli.surgery.recipe import ELASTIC, WEIGHTS, checksum, without_folders
from toast_cli.surgery.saved import recipe_of
from toast_cli.surgery.shared import Shared

_ACCURACIES = ("accuracy", "accuracy_mean", "accuracy_after")  # in rows of results.csv, front.csv and finetune.csv


def name_of(rows: Sequence[Any]) -> str:
    """What the plans of ``rows`` are called together in the name of a folder."""
    plans = " ".join(row.plan for row in rows)
    return f"{len(rows)}_plans_{hashlib.sha256(plans.encode()).hexdigest()[:6]}"


def made_of_all(run: Reopened, rows: Sequence[Any], settings: Settings) -> dict[str, Any]:
    """What an export of the plans of all ``rows`` is made of, of which the first is that of ``run``."""
    made = made_of(run, settings)
    shared = {key: value for key, value in made.items() if key not in ("sequential", "healed")}  # each row says it
    return shared | {
        "plan": [row.plan for row in rows],
        "chosen": next((row.plan for row in rows if getattr(row, "chosen", False)), None),
        "row": without_folders([asdict(row) for row in rows]),
    }


def write_plans(folder: Path, runs: Iterable[Reopened], settings: Settings, made: Mapping[str, Any]) -> str:
    """Write the models of ``runs``, opened one after the other, and their recipe, which says what they are ``made`` of; compare
    each with the model in memory on test images.

    Returns a sentence about it, with ``{out}`` for the folder. Raises ToastError if one differs.
    """
    shared, plans, common = Shared(torch_dtype(settings.dtype)), list[dict[str, Any]](), dict[str, Any]()
    images, mine = list[Tensor](), list[Tensor]()
    for run in runs:
        model, parts = deployed(run, settings.has_head, settings.seed)
        words = recipe_of(model, run.job.backbone.recipe, parts)
        common = {"architecture": words["architecture"], "pretrained_cfg": model.pretrained_cfg}
        plan = str(run.variant)
        plans.append(
            {
                "plan": plan,
                "accuracy": next((run.row[key] for key in _ACCURACIES if key in run.row), None),
                "params": sum(p.numel() for p in model.parameters()),
                "gflops": run.row["gflops"],
                **{key: words[key] for key in ("blocks", "head", "classes")},
                "tensors": shared.add(plan, model, words["blocks"]),
            }
        )
        images = images or list(images_of(run.job, settings.images))  # the same for all
        with torch.inference_mode():
            mine += [model(batch) for batch in images]
    write_atomically(folder / WEIGHTS, shared.file())
    recipe = {"format": ELASTIC, **common, **made, "versions": versions(), "plans": plans, "tensors": shared.sums}
    recipe["weights"] = checksum(folder / WEIGHTS)
    write_recipe(folder, recipe)
    theirs = [run(batch) for run in (read_plan(folder, each["plan"]) for each in plans) for batch in images]
    recipe["compared"] = compare(torch.cat(mine), torch.cat(theirs), settings)
    write_recipe(folder, recipe | beside(folder))
    return (
        f"{len(plans)} plans in one file, {shared.alone / 1e6:.1f} MB if each had its own: "
        'toast_cli.load_elastic("{out}") switches between them'
    )
