"""Choose the figures of similarity: matrices of blocks, what spans cost the last latent, how both predict accuracy."""

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from toast_cli.plans import Plan
from toast_cli.report import figures
from toast_cli.report.findings import Finding
from toast_cli.report.labels import grouped, map_name, name_of, told_apart, with_differences
from toast_cli.runs.rows import MEASURES, Similarity


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
            pictures[name_of("similarity", measure, told)] = figures.similarities(panels, measure, told)
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
                    pictures[name_of("approximation", measure, title)] = figures.approximation(points, measure, title)
    return pictures


def of_guides(findings: Sequence[Finding], similarities: Sequence[Similarity]) -> dict[str, Figure]:
    """How well CKA and R² predict what a span costs, for each translator."""
    pictures = {}
    for key, group in grouped(findings, "model", "data", "probe", "readout", "protocol", "precision"):
        for measure in ("cka", "r2"):
            alike = {
                (row.source, row.target): row.value
                for row in similarities
                if (row.model, row.data, row.protocol, row.kind, row.measure) == (*key[:2], key[4], "blocks", measure)
            }
            series: dict[str, list[tuple[float, float]]] = {}
            for f in group:
                if (
                    f.plan != "none"
                    and "+" not in f.plan
                    and ":" not in f.plan  # a translator other than the one that its series is named after
                    and f.fit_data == f.data
                    and _ends(Plan.parse(f.plan)) in alike
                ):
                    point = (alike[_ends(Plan.parse(f.plan))], f.delta_mean)
                    series.setdefault(map_name(f, group), []).append(point)
            series = {name: points for name, points in series.items() if len(points) > 4}
            if series:
                told = told_apart(findings, key)
                pictures[name_of("guide", measure, told)] = figures.guide(series, measure, told)
    return pictures


def _ends(plan: Plan) -> tuple[str, str]:
    """The two ends of the plan's first span, as ``similarity.csv`` names them."""
    start, _, end = str(replace(plan.spans[0], translator="")).partition("-")
    return start, end
