"""Do the errors of maps predict what single spans cost? They need no features: one pass over the fit images.

    python scripts/map_errors.py outputs/search/*      # folders of finished searches

For each folder: the rank correlation of three errors with the held-out losses that the search has measured, among spans that
remove equally many blocks (averaged over these sizes) and over all spans; and the share of the spans of each size that
would have to be measured to include those of the plans found, if the spans with the least error were measured first.

    R²         1 − that of the fit, over all tokens and dimensions
    readout    the share of a dimension's variation that the map leaves, at the tokens that the readout looks at, averaged
    whitened   the same along the directions in which these targets vary equally
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from toast_cli.moments import Moments
from toast_cli.plans import Plan, Span
from toast_cli.runs.folder import Folder
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Candidate, Found
from toast_cli.stages.fit import load_maps
from toast_cli.stages.job import Fitted, Job
from toast_cli.stages.reopen import job_of
from toast_cli.stages.walk import latents

_LIFT = 1e-3  # of the mean variance: directions below it are rounding
AUTO = dict.fromkeys(("device", "batch_size", "workers"), "auto")
ERRORS = ("R²", "readout", "whitened")


def errors(job: Job, folder: Path) -> dict[Span, dict[str, float]]:
    """The errors of every map of the job's single spans, all fitted in ``folder``."""
    fitted = load_maps(job, Folder(folder), job.maps)
    built = {key: module.double() for key, module in job.modules(Fitted(fitted, {})).items()}
    rows = job.backbone.readout_tokens
    # A pair for each map: the target, and what the map leaves of it, at the readout's tokens alone.
    sums = Moments([(key, key.span.end) for key in built])
    for part in job.data.fit:
        for batch in job.batches(part, job.batch_size):
            if len(batch.positions):
                found = {
                    layer: latent[:, :rows].double() for layer, latent in latents(job.backbone, batch.pixels).items()
                }
                left = {key: found[key.span.end] - module(found[key.span.start]) for key, module in built.items()}
                sums.update({**found, **left})
    result = {}
    for key in built:
        pair = sums.pair(key, key.span.end)
        result[key.span] = dict(zip(ERRORS, (1 - fitted[key].r2_, *_shares(pair.xx, pair.centred().yy)), strict=True))
    return result


def _shares(left: Tensor, varies: Tensor) -> Iterator[float]:
    """The shares left, by dimension and whitened, from sums of products (D, D)."""
    variances = varies.diagonal()
    floor = _LIFT * variances.mean()
    yield (left.diagonal() / variances.clamp(min=floor)).mean().item()
    yield (torch.linalg.solve(varies + floor * torch.eye(len(varies)), left).trace() / len(varies)).item()


def report(folder: Path) -> None:
    """Print a line for each error."""
    plans = {Plan.parse(row.plan): row.loss for row in read_csv(folder / "search.csv", Candidate) if row.round == 0}
    with TemporaryDirectory() as scratch:
        found = errors(job_of(folder, [Plan(), *plans], AUTO, Path(scratch)), folder)
    losses = {plan.spans[0]: loss for plan, loss in plans.items()}
    sizes = {
        size: [span for span in losses if span.blocks_removed == size] for size in {s.blocks_removed for s in losses}
    }
    taken = {span for row in read_csv(folder / "front.csv", Found) for span in Plan.parse(row.plan).spans}
    print(f"{folder}: {len(losses)} single spans")
    for name in ERRORS:

        def agree(spans: list[Span], name: str = name) -> float:
            return spearmanr([found[span][name] for span in spans], [losses[span] for span in spans])[0]

        needed = max(
            np.mean([found[other][name] <= found[span][name] for other in sizes[span.blocks_removed]]) for span in taken
        )
        within = {
            kind: np.nanmean(
                [agree([span for span in spans if kind in (None, span.translator)]) for spans in sizes.values()]
            )
            for kind in (None, *sorted({span.translator for span in losses}))
        }
        told = ", ".join(f"{kind or ('all' if kind is None else 'own')} {value:+.2f}" for kind, value in within.items())
        print(f"  {name:9} among equal sizes: {told}; over all {agree(list(losses)):+.2f}; to be measured {needed:.2f}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        report(Path(argument))
