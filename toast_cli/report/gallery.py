"""Choose the figures of a report: rows and findings in, figures by file name out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from toast_cli.plans import Plan, Span, middles
from toast_cli.report import heatmaps, scatters
from toast_cli.report.findings import Finding
from toast_cli.report.labels import grouped, map_name, name_of, told_apart, with_differences
from toast_cli.report.scatters import Spot
from toast_cli.report.trade_offs import trade_offs

_LINES = 8


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
        several = len({f.fit_images for f in own}) > 1
        pictures |= _spans(usual, settings, depths[key[0]], several) | _sizes(own, settings, original)
        pictures |= _additivity(usual, settings, original)
        if len({f.plan for f in usual}) > 2:
            series = {map_name(f, group): [g for g in usual if _same(f, g)] for f in usual}
            pictures[name_of("trade-offs", settings)] = trade_offs(series, original, settings)
    return pictures | _transfer(findings)


def _usual(sizes: list[int]) -> int | None:
    """The most frequent size; of equally frequent ones, the largest."""
    return max(sizes, key=lambda size: (sizes.count(size), size), default=None)


def _same(one: Finding, other: Finding) -> bool:
    names = ("translator", "tokens", "solver", "sequential", "healed")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _spans(findings: list[Finding], settings: str, depth: int, several: bool) -> dict[str, Figure]:
    """Heatmaps of the usual number of fit images; ``several``: there are other numbers, whose heatmaps would look alike."""
    pictures = {}
    for _, group in grouped(findings, "translator", "tokens", "solver", "sequential", "healed"):
        single = [f for f in group if "+" not in f.plan and ":" not in f.plan]
        if len(single) >= depth:
            told = f"{settings}, {map_name(group[0], findings)}"
            told += f", {group[0].fit_images} fit images" if several else ""
            deltas, noise = {f.plan: f.delta_mean for f in single}, {f.plan for f in single if f.within_noise}
            pictures[name_of("spans", told)] = heatmaps.spans(deltas, depth, told, noise)
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
        pictures[name_of("fit-images", told)] = scatters.sample_sizes(lines, original, told)
    return pictures


def _spread_out(plans: list[str], most: int) -> list[str]:
    """At most ``most`` of the plans, evenly spaced from those that remove few blocks to those that remove many."""
    ordered = sorted(plans, key=lambda text: Plan.parse(text).blocks_removed)
    return [ordered[i] for i in np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).astype(int))]


def _additivity(findings: list[Finding], settings: str, original: float) -> dict[str, Figure]:
    """Blocks that leave together, apart or as one span, if each of them has been measured alone too."""
    pictures = {}
    for _, group in grouped(findings, "translator", "tokens", "solver"):
        plans = {Plan.parse(f.plan): f for f in group if not f.sequential and not f.healed and ":" not in f.plan}
        changes = {plan: f.delta_mean for plan, f in plans.items() if not middles(plan.points)}  # of whole blocks
        series: dict[str, list[Spot]] = {}
        for plan in changes:
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
            series.setdefault(kind, []).append(Spot(sum(known), plans[plan]))
        if len(series) > 1 and "apart" in series:
            told = f"{settings}, {map_name(group[0], findings)}"
            pictures[name_of("additivity", told)] = scatters.additivity(dict(sorted(series.items())), original, told)
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
        values, noise = np.full((len(sets), len(sets)), np.nan), set()
        for f in group:
            cell = sets.index(f.fit_data), sets.index(f.data)
            values[cell] = 100 * f.delta_mean
            noise |= {cell} if f.within_noise else set()
        told = f"{key[0]}, {key[1]}, plan {with_differences(fitted, names[2:], key[2:])}"
        panels = {"": heatmaps.Panel(values, sets, sets, noise)}
        pictures[name_of("transfer", told)] = heatmaps.matrices(
            panels, heatmaps.changes(values, 1.0), f"{told}: accuracy change", ("fitted on", "used on")
        )
    return pictures
