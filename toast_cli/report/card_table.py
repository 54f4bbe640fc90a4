"""The accuracy of exported plans beside the untouched model's, as its model card shows it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toast_cli.report.card_plans import plans_of
from toast_cli.report.findings import Finding, findings_of
from toast_cli.report.tables import in_markdown
from toast_cli.runs.archive import CompleteRun
from toast_cli.runs.contents import RESULTS

_HEAD = ("plan", "blocks removed", "accuracy", "change", "95% interval", "params", "GFLOPs")


def accuracy_of(recipe: Mapping[str, Any], run: Path) -> Iterator[str]:
    """A table in Markdown and what its numbers are: the lines of the plans of ``recipe`` in the complete ``run``."""
    plans = plans_of(recipe)
    if recipe.get("fine_tuned"):
        yield from _table(list(dict.fromkeys(line for plan in plans for line in _tuned(plan["row"]))))
        yield from _of_tuned(plans[0])
        return
    findings = _findings(plans, run)
    yield from _table([_line(found) for found in findings])
    yield from _of_run(plans, findings)


def check_numbers(run: Path) -> None:
    """Raises ToastError if the numbers of the complete ``run`` cannot be read, before anything is computed for a card."""
    if (run / RESULTS).is_file():
        findings_of([CompleteRun.read(run)])


def _findings(plans: Sequence[Mapping[str, Any]], run: Path) -> list[Finding]:
    """Those of the untouched model and of the ``plans``, each with the most fit images."""
    found = findings_of([CompleteRun.read(run)])
    shown = [each for each in found if each.plan == "none"][:1]
    for recipe in plans:
        fit = [recipe["plan"], recipe.get("sequential", False), recipe.get("healed", False)]
        mine = [each for each in found if [each.plan, each.sequential, each.healed] == fit and each.plan != "none"]
        shown += sorted(mine, key=lambda each: each.fit_images)[-1:]
    return shown


def _table(lines: list[tuple[str, ...]]) -> Iterator[str]:
    for line in (_HEAD, ("---",) * len(_HEAD), *lines):
        yield f"| {' | '.join(line)} |"


def _line(found: Finding) -> tuple[str, ...]:
    spread = "" if found.accuracy_std is None else f" ± {found.accuracy_std:.4f}"
    low, high = found.delta_low, found.delta_high
    return (
        in_markdown(found.plan),
        str(found.blocks_removed),
        f"{found.accuracy_mean:.4f}{spread}",
        "" if found.plan == "none" else f"{found.delta_mean:+.4f}",
        "" if low is None or high is None else f"{low:+.4f} … {high:+.4f}",
        _size(found.params, found.params_ratio),
        _cost(found.gflops, found.gflops_ratio),
    )


def _tuned(row: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The untouched model, the plan with a probe, and the plan fine-tuned."""
    plan, removed = in_markdown(row["plan"]), str(row["blocks_removed"])
    params, gflops = row["params"] / row["params_ratio"], row["gflops"] / row["gflops_ratio"]
    sizes = (_size(row["params"], row["params_ratio"]), _cost(row["gflops"], row["gflops_ratio"]))

    def change(key: str) -> str:
        return f"{row[key] - row['accuracy_original']:+.4f}"

    return [
        ("none", "0", f"{row['accuracy_original']:.4f}", "", "", _size(round(params), 1.0), _cost(gflops, 1.0)),
        (f"{plan}, not tuned", removed, f"{row['accuracy_before']:.4f}", change("accuracy_before"), "", *sizes),
        (f"{plan}, fine-tuned", removed, f"{row['accuracy_after']:.4f}", change("accuracy_after"), "", *sizes),
    ]


def _size(params: int, ratio: float) -> str:
    return f"{params:,}{f' ({ratio:.3f})' if ratio != 1 else ''}"


def _cost(gflops: float, ratio: float) -> str:
    return f"{gflops:.4g}{f' ({ratio:.3f})' if ratio != 1 else ''}"


_SIZES = "Params and GFLOPs (for one image) are those of the encoder, without a classifier; in brackets their share of the untouched model's."


def _of_run(plans: Sequence[Mapping[str, Any]], findings: list[Finding]) -> Iterator[str]:
    """What the numbers of a run or a search are."""
    row, last = plans[0]["row"], findings[-1]
    seeds = (
        f"means over {last.runs} seeds of the probe, ± their standard deviation,"
        if last.runs > 1
        else "of one seed of the probe,"
    )
    fitted = (
        f" The maps were fitted on {last.fit_images} images of {in_markdown(last.fit_data)}." if last.fit_images else ""
    )
    yield ""
    yield (
        f"Accuracies are shares of {last.test_images} test images of {in_markdown(row['data'])}, {seeds} with the probe {in_markdown(last.probe)}, "
        f"measured in {in_markdown(last.precision)}.{fitted}"
    )
    if last.delta_low is not None:
        interval = "The interval is" if len(findings) == 2 else "The intervals are"
        yield f"{interval} the paired bootstrap of the change over these test images, which chose nothing."
    elif last.plan != "none":
        yield "There is no interval, since the run has not kept what its probes predicted."
    yield _SIZES
    seed = plans[0].get("probe_seed")
    if seed is None:
        yield "The probe is not in the file."
    elif len(plans) > 1:
        yield f"The classifiers in the file are the probes of seed {seed}, one for each plan."
    elif "accuracy" in row:
        yield f"The classifier in the file is the probe of seed {seed}, with an accuracy of {row['accuracy']:.4f}."
    else:
        yield f"The classifier in the file is the probe of seed {seed}."


def _of_tuned(recipe: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers of a fine-tuned model are."""
    row = recipe["row"]
    yield ""
    yield (
        f"Accuracies are shares of {row['test_images']} test images of {in_markdown(row['data'])}, of one seed ({row['seed']}), after epoch "
        f"{row['best_epoch']} of {row['epochs']} on {row['train_images']} train images, measured in {in_markdown(row['precision'])}."
    )
    yield "There are no intervals: fine-tuning does not keep what was predicted. Test images chose nothing."
    yield _SIZES
