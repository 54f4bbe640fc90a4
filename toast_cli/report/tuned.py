"""Fine-tuned models as tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from toast_cli.report.tables import Table
from toast_cli.runs.measured import Tuned

# Settings of fine-tuning that have columns of their own, are averaged over, or only say where things are.
_SHOWN = ("seeds", "spans", "data.seed", "data.label", "translator._target_", "data.path", "fit_data.path")
_OF_MAPS = ("translator.", "fit.", "fit_data.", "data.fit_", "tune.train_maps")  # irrelevant without a map


def of_tuned(entries: Sequence[tuple[Tuned, dict[str, Any]]]) -> list[Table]:
    """A table for each model: accuracy before and after fine-tuning, means over seeds.

    There is a line for each choice of the settings that differ. Every row comes with the settings of its run by dotted
    key.
    """
    models = dict.fromkeys(row.model for row, _ in entries)
    return [_of_tuned(model, [entry for entry in entries if entry[0].model == model]) for model in models]


def _of_tuned(model: str, entries: list[tuple[Tuned, dict[str, Any]]]) -> Table:
    keys = [key for key in dict.fromkeys(key for _, found in entries for key in found) if key not in _SHOWN]
    keys = [key for key in keys if not key.startswith(("model.", "data.source", "data.config"))]
    extras = [key for key in keys if len({str(found.get(key)) for row, found in entries if row.blocks_removed}) > 1]
    groups: dict[tuple[str, ...], dict[tuple[int, int], Tuned]] = {}
    for row, found in sorted(entries, key=lambda entry: entry[0].blocks_removed):
        told = ["–" if not row.blocks_removed and key.startswith(_OF_MAPS) else str(found.get(key)) for key in extras]
        seen = groups.setdefault((row.data, row.translator or "–", *told, row.plan), {})
        seen.setdefault((row.data_seed, row.seed), row)  # the untouched model is tuned alike, whatever the maps are
    head = ["data", "translator", *(key.removeprefix("tune.").replace("_", " ") for key in extras), "plan"]
    head += ["params", "GFLOPs", "original", "before", "after", "seeds"]
    lines = [_tuned(key, list(found.values())) for key, found in groups.items()]
    no_ranks: list[int | None] = [None] * len(head)
    return Table(f"{model}: accuracy before and after fine-tuning", head, [(line, no_ranks) for line in lines], note="")


def _tuned(key: tuple[str, ...], group: list[Tuned]) -> list[str]:
    def spread(values: list[float]) -> str:
        deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        return f"{np.mean(values):.4f}{deviation}"

    accuracies = [
        spread([getattr(row, name) for row in group])
        for name in ("accuracy_original", "accuracy_before", "accuracy_after")
    ]
    return [*key, f"{group[0].params_ratio:.3f}", f"{group[0].gflops_ratio:.3f}", *accuracies, str(len(group))]
