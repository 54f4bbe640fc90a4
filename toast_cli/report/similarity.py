"""Choose the figures of similarity: matrices of blocks, what spans cost the last latent, how both predict accuracy."""

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from toast_cli.plans import Plan
from toast_cli.report import heatmaps, scatters
from toast_cli.report.findings import Finding
from toast_cli.report.labels import grouped, map_name, name_of, told_apart, with_differences
from toast_cli.report.scatters import Spot
from toast_cli.runs.measured import MEASURES, Similarity

# Of the last latents, MSE is R² without a map on another scale, and cosine and R² without a map go with CKA.
_GUIDES = ("cka", "r2")


def of_similarity(rows: Sequence[Similarity]) -> dict[str, Figure]:
    """One figure for each model and measure, with a panel for each data set; and, for plans of one span, how similar the
    last latents with and without the span are, against how similar the latents at its ends are."""
    pictures: dict[str, Figure] = {}
    for key, own in grouped(rows, "model", "protocol", "precision"):
        told = with_differences(rows, ("model", "protocol", "precision"), key)
        for measure in MEASURES:
            panels: dict[str, dict[tuple[str, str], float]] = {}
            for row in own:
                if (row.kind, row.measure) == ("blocks", measure):
                    panels.setdefault(row.data, {})[row.source, row.target] = row.value
            if not panels:  # rows of a version that did not have the measure
                continue
            pictures[name_of("similarity", measure, told)] = heatmaps.similarities(panels, measure, told)
            if measure not in _GUIDES:
                continue
            plans = [row for row in own if (row.kind, row.measure) == ("plans", measure)]
            names = ("data", "translator", "sequential", "healed", "tokens", "solver", "fit_images")
            for made, group in grouped(plans, *names):
                blocks = panels.get(made[0], {})
                alone = [(row, plan) for row in group if len((plan := Plan.parse(row.target)).spans) == 1]
                points = [
                    (blocks[_ends(plan)], row.value, plan.blocks_removed)
                    for row, plan in alone
                    if _ends(plan) in blocks
                ]
                if len(points) > 2:
                    title = f"{told} on {with_differences(plans, names, made)}: what a span costs the last latent"
                    pictures[name_of("approximation", measure, title)] = scatters.approximation(points, measure, title)
    return pictures


def of_guides(findings: Sequence[Finding], similarities: Sequence[Similarity]) -> dict[str, Figure]:
    """How well CKA and R² predict what a span costs, for each translator."""
    pictures = {}
    for key, group in grouped(findings, "model", "data", "probe", "readout", "protocol", "precision"):
        for measure in _GUIDES:
            alike = {
                (row.source, row.target): row.value
                for row in similarities
                if (row.model, row.data, row.protocol, row.kind, row.measure) == (*key[:2], key[4], "blocks", measure)
            }
            series: dict[str, list[Spot]] = {}
            for f in group:
                if (
                    f.plan != "none"
                    and "+" not in f.plan
                    and ":" not in f.plan  # a translator other than the one that its series is named after
                    and f.fit_data == f.data
                    and _ends(Plan.parse(f.plan)) in alike
                ):
                    series.setdefault(map_name(f, group), []).append(Spot(alike[_ends(Plan.parse(f.plan))], f))
            series = {name: points for name, points in series.items() if len(points) > 4}
            original = next((f.accuracy_mean for f in group if f.plan == "none"), None)
            if series and original is not None:
                told = told_apart(findings, key)
                pictures[name_of("guide", measure, told)] = scatters.guide(series, original, measure, told)
    return pictures


def _ends(plan: Plan) -> tuple[str, str]:
    """The two ends of the plan's first span, as ``similarity.csv`` names them."""
    start, _, end = str(replace(plan.spans[0], translator="")).partition("-")
    return start, end
