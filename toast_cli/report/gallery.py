"""Choose the figures of a report: rows and findings in, figures by file name out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from toast_cli.plans import Plan, Span, middles
from toast_cli.report import figures
from toast_cli.report.findings import Finding
from toast_cli.report.labels import grouped, map_name, name_of, told_apart, with_differences
from toast_cli.runs.archive import CompleteRun

_PANELS, _LINES = 5, 8


def of_findings(findings: Sequence[Finding], depths: Mapping[str, int]) -> dict[str, Figure]:
    """Heatmaps of spans, trade-offs, sample sizes and transfer; ``depths`` are the models' numbers of blocks."""
    pictures: dict[str, Figure] = {}
    for key, group in grouped(findings, "model", "data", "probe", "readout", "protocol", "precision"):
        original = next((f.accuracy_mean for f in group if f.plan == "none"), None)
        if original is None:
            continue
        own = [f for f in group if f.plan != "none" and f.fit_data == f.data]
        settings = told_apart(findings, key)
        usual = [f for f in own if f.fit_images == _usual([g.fit_images for g in own])]
        pictures |= (
            _spans(own, settings, depths[key[0]]) | _sizes(own, settings, original) | _additivity(usual, settings)
        )
        if len({f.plan for f in usual}) > 2:
            series = {
                map_name(f, group): [(g.gflops_ratio, g.params_ratio, g.accuracy_mean) for g in usual if _same(f, g)]
                for f in usual
            }
            pictures[name_of("trade-offs", settings)] = figures.trade_offs(series, original, settings)
    return pictures | _transfer(findings)


def _usual(sizes: list[int]) -> int | None:
    """The most frequent size; of equally frequent ones, the largest."""
    return max(sizes, key=lambda size: (sizes.count(size), size), default=None)


def _same(one: Finding, other: Finding) -> bool:
    names = ("translator", "tokens", "solver", "sequential", "healed")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _spans(findings: list[Finding], settings: str, depth: int) -> dict[str, Figure]:
    pictures = {}
    for key, group in grouped(findings, "translator", "tokens", "solver", "sequential", "healed", "fit_images"):
        deltas = {f.plan: f.delta_mean for f in group if "+" not in f.plan and ":" not in f.plan}
        if len(deltas) >= depth:
            told = f"{settings}, {map_name(group[0], findings)}"
            told += f", {key[-1]} fit images" if len({f.fit_images for f in findings}) > 1 else ""
            pictures[name_of("spans", told)] = figures.spans(deltas, depth, told)
    return pictures


def _sizes(findings: list[Finding], settings: str, original: float) -> dict[str, Figure]:
    pictures = {}
    for _, group in grouped(findings, "translator", "tokens", "solver", "sequential", "healed"):
        counts = {
            plan: len({f.fit_images for f in group if f.plan == plan}) for plan in dict.fromkeys(f.plan for f in group)
        }
        plans = [plan for plan, count in counts.items() if count >= 3]
        if not plans:
            continue
        lines = {
            plan: [(f.fit_images, f.accuracy_mean, f.accuracy_std or 0.0) for f in group if f.plan == plan]
            for plan in _spread_out(plans, _LINES)
        }
        told = f"{settings}, {map_name(group[0], findings)}"
        pictures[name_of("fit-images", told)] = figures.sample_sizes(lines, original, told)
    return pictures


def _spread_out(plans: list[str], most: int) -> list[str]:
    """At most ``most`` of the plans, evenly spaced from those that remove few blocks to those that remove many."""
    ordered = sorted(plans, key=lambda text: Plan.parse(text).blocks_removed)
    return [ordered[i] for i in np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).astype(int))]


def _additivity(findings: list[Finding], settings: str) -> dict[str, Figure]:
    """Blocks that leave together, apart or as one span, if each of them has been measured alone too."""
    pictures = {}
    for _, group in grouped(findings, "translator", "tokens", "solver"):
        plans = {Plan.parse(f.plan): f for f in group if not f.sequential and not f.healed and ":" not in f.plan}
        changes = {plan: f.delta_mean for plan, f in plans.items() if not middles(plan.points)}  # of whole blocks
        series: dict[str, list[tuple[float, float]]] = {}
        for plan, change in changes.items():
            alone = [
                changes.get(Plan((Span(i, i + 1),)))
                for span in plan.spans
                for i in range(int(span.start), int(span.end))
            ]
            known = [value for value in alone if value is not None]
            if plan.blocks_removed < 2 or len(known) < len(alone):
                continue
            long = "one span, two or three blocks" if plan.blocks_removed <= 3 else "one span, four blocks or more"
            kind = long if len(plan.spans) == 1 else "apart"
            series.setdefault(kind, []).append((sum(known), change))
        if len(series) > 1 and "apart" in series:
            told = f"{settings}, {map_name(group[0], findings)}"
            pictures[name_of("additivity", told)] = figures.additivity(dict(sorted(series.items())), told)
    return pictures


def _transfer(findings: Sequence[Finding]) -> dict[str, Figure]:
    """Accuracy change by fit data × data, if some translators were fitted on another data set."""
    pictures = {}
    names = (
        "model",
        "translator",
        "plan",
        "tokens",
        "solver",
        "sequential",
        "healed",
        "fit_images",
        "probe",
        "readout",
        "protocol",
        "precision",
    )
    fitted = [f for f in findings if f.plan != "none"]
    for key, group in grouped(fitted, *names):
        sets = sorted({f.fit_data for f in group} | {f.data for f in group})
        if len({(f.fit_data, f.data) for f in group}) < 3 or all(f.fit_data == f.data for f in group):
            continue
        values = np.full((len(sets), len(sets)), np.nan)
        for f in group:
            values[sets.index(f.fit_data), sets.index(f.data)] = f.delta_mean
        told = f"{key[0]}, {key[1]}, plan {with_differences(fitted, names[2:], key[2:])}"
        panel = {"": (values, sets)}
        pictures[name_of("transfer", told)] = figures.matrices(
            panel,
            "accuracy change (points in the cells)",
            told,
            ("fitted on", "used on"),
            lambda value: f"{100 * value:+.1f}",
        )
    return pictures


def of_projections(runs: Sequence[CompleteRun]) -> dict[str, Figure]:
    """The test images by the original's leading components: the original next to the best plans as more blocks leave.

    Of several runs with the same model, data set and translator, the one with the most plans is shown.
    """
    pictures = {}
    fullest = {
        (row.model, row.data, row.translator): run
        for run in sorted(runs, key=lambda run: len({row.plan for row in run.rows}))
        for row in run.rows[:1]
    }
    for run in fullest.values():
        stored, first = run.projection, [row for row in run.rows if row.seed == run.rows[0].seed]
        if stored is None or len(first) < 2:
            continue
        best: dict[float, int] = {}
        for number, row in enumerate(first[1:], start=1):
            kept = best.setdefault(row.blocks_removed, number)
            if row.accuracy > first[kept].accuracy:
                best[row.blocks_removed] = number
        chosen = [best[removed] for removed in sorted(best)]
        chosen = [
            chosen[i] for i in np.unique(np.linspace(0, len(chosen) - 1, min(_PANELS - 1, len(chosen))).astype(int))
        ]
        panels = {
            ("original" if number == 0 else first[number].plan): stored["points"][number] for number in [0, *chosen]
        }
        told = f"{first[0].model} on {first[0].data}, {first[0].translator}"
        picture = figures.projections(panels, stored["labels"], stored["explained"].tolist(), told)
        pictures[name_of("projection", told)] = picture
    return pictures
