"""Which numbers, known from the fit images alone, rank single spans as their held-out losses do? One pass over these images.

    python scripts/map_errors.py outputs/search/*/      # folders of finished searches

X^(s) and X^(e) are the latents at a span's ends, r = X^(e) − T(X^(s)) is what its map T leaves. For each span:

    R²         1 − that of the fit, over all tokens and dimensions
    canonical  Σ (1 − ρ²) over the canonical correlations ρ of X^(s) and X^(e), over all tokens. The best map leaves no larger
               share of the variation of X^(e): the bound by which Neural Block Linearization chooses layers (arXiv:2505.21077)
    readout    the share of a dimension's variation in r, at the tokens that the readout looks at, averaged
    whitened   the same along the directions in which these targets vary equally
    features   the share of a feature's variation by which the probe's features move, averaged, if r reaches the readout as
               it is: f(X^(L−1)) − f(X^(L−1) − r) with f the last norm and the pooling. A span that ends at the last block does
               that exactly; elsewhere, later blocks are taken to add what they add to the original
    directions the same along the directions in which the original's features vary equally

For each folder a table of Spearman's rank correlations with the held-out losses that the search has measured: among spans that
remove equally many blocks (averaged over these sizes), and over all spans. The last column is the share of the spans of each
size that would have to be measured to include those of the plans found, if the spans with the least error were measured first.
``another draw`` ranks by the losses in the next folder of the same settings but data.seed: what measuring on other images would say.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from toast_cli.models.backbone import Backbone
from toast_cli.moments import Moments, PairMoments
from toast_cli.moments.solvers import rounding_share
from toast_cli.plans import Map, Plan, Span, middles
from toast_cli.runs.folder import Folder
from toast_cli.runs.naming import differences
from toast_cli.runs.results import read_csv
from toast_cli.runs.searched import Candidate, Found
from toast_cli.stages.fit import load_maps
from toast_cli.stages.job import Fitted, Job
from toast_cli.stages.reopen import job_of
from toast_cli.stages.walk import latents

_LIFT = 1e-3  # of the mean variance: directions below it are rounding
_FEATURES = "features"
AUTO = dict.fromkeys(("device", "batch_size", "workers"), "auto")
GUIDES = ("R²", "canonical", "readout", "whitened", "features", "directions")


class Errors:
    """The sums that the guides of all ``maps`` come from, added up batch by batch.

    ``maps`` holds a module (N, T, D) -> (N, T, D) in float64 for each.
    """

    def __init__(self, backbone: Backbone, maps: Mapping[Map, nn.Module]) -> None:
        self.backbone, self.maps = backbone, maps
        self._ends = Moments({(key.span.start, key.span.end): None for key in maps})
        self._inside = middles(point for key in maps for point in (key.span.start, key.span.end))
        # A pair for each map: what it leaves and its target, at the readout's tokens alone, and the same of the features.
        self._left = Moments([(key, key.span.end) for key in maps])
        self._moved = Moments([(key, _FEATURES) for key in maps])

    @torch.no_grad()
    def update(self, pixels: Tensor) -> None:
        """Add the images uint8 (N, 3, H, W)."""
        found = latents(self.backbone, pixels, self._inside)
        self._ends.update(found)
        read = {layer: latent[:, : self.backbone.readout_tokens].double() for layer, latent in found.items()}
        left = {key: read[key.span.end] - module(read[key.span.start]) for key, module in self.maps.items()}
        self._left.update({**read, **left})
        last = read[self.backbone.depth - 1]
        features = self._features(last)
        self._moved.update(
            {_FEATURES: features, **{key: features - self._features(last - off) for key, off in left.items()}}
        )

    def _features(self, latent: Tensor) -> Tensor:
        """X^(L−1) (N, T, D) -> features (N, 1, F) in float64."""
        return self.backbone.readout(latent.float()).double().unsqueeze(1)

    def of(self, key: Map) -> tuple[float, ...]:
        """All guides of a map but R²."""
        left = self._left.pair(key, key.span.end)
        # A probe does not see a shift that is the same for all images, so only what varies in the move counts.
        moved = self._moved.pair(key, _FEATURES).centred()
        bound = canonical_bound(self._ends.pair(key.span.start, key.span.end))
        return (bound, *shares(left.xx, left.centred().yy), *shares(moved.xx, moved.yy))


def canonical_bound(pair: PairMoments) -> float:
    """Σ (1 − ρ²) over the directions in which y varies, ρ the canonical correlations of x and y.

    For the best affine map, Σ ‖y − ŷ‖² = tr Cy (1 − R Rᵀ) in y's whitened directions, where the singular values of R are the ρ.
    That is at most λ_max(Cy) Σ (1 − ρ²), so the share of y's variation that is left is at most Σ (1 − ρ²). Between 0 and D.
    """
    centred = pair.centred()
    x, y = (whitening(sums, pair.dtype) for sums in (centred.xx, centred.yy))
    correlations = torch.linalg.svdvals(x.T @ centred.xy @ y).clamp(max=1)
    return y.shape[1] - correlations.square().sum().item()


def whitening(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """A (D, K) with Aᵀ ``sums`` A = 1, without the directions that ``least_squares`` takes for the rounding of ``dtype``."""
    scale = torch.where(sums.diagonal() > 0, sums.diagonal(), 1.0).rsqrt()  # (D,)
    values, vectors = torch.linalg.eigh(scale[:, None] * sums * scale)
    kept = values > rounding_share(len(sums), dtype) * values[-1].clamp(min=0)
    return scale[:, None] * vectors[:, kept] / values[kept].sqrt()


def shares(left: Tensor, varies: Tensor) -> Iterator[float]:
    """The shares left, by dimension and whitened, from sums of products (D, D)."""
    variances = varies.diagonal()
    floor = _LIFT * variances.mean()
    yield (left.diagonal() / variances.clamp(min=floor)).mean().item()
    yield (torch.linalg.solve(varies + floor * torch.eye(len(varies)), left).trace() / len(varies)).item()


def guides(job: Job, folder: Path) -> dict[Span, dict[str, float]]:
    """The guides of every map of the job's single spans, all fitted in ``folder``."""
    fitted = load_maps(job, Folder(folder), job.maps)
    errors = Errors(job.backbone, {key: module.double() for key, module in job.modules(Fitted(fitted, {})).items()})
    for part in job.data.fit:
        for batch in job.batches(part, job.batch_size):
            if len(batch.positions):
                errors.update(batch.pixels)
    return {key.span: dict(zip(GUIDES, (1 - fitted[key].r2_, *errors.of(key)), strict=True)) for key in job.maps}


@dataclass(frozen=True)
class Searched:
    """What a search has measured. ``translator``: the run's own. ``taken``: the spans of the plans found."""

    folder: Path
    settings: dict[str, Any]
    translator: str
    losses: dict[Span, float]
    taken: set[Span]

    @classmethod
    def read(cls, folder: Path) -> "Searched":
        """The single spans of the search in ``folder``."""
        rows = [row for row in read_csv(folder / "search.csv", Candidate) if row.round == 0]
        losses = {Plan.parse(row.plan).spans[0]: row.loss for row in rows}
        taken = {span for row in read_csv(folder / "front.csv", Found) for span in Plan.parse(row.plan).spans}
        return cls(folder, Folder(folder).settings, rows[0].translator, losses, taken)

    def next_of(self, searches: Sequence["Searched"]) -> "Searched | None":
        """The search after this one, in a circle, among those of the same settings but another draw."""
        alike = [each for each in searches if set(differences(self.settings, each.settings)) <= {"data.seed"}]
        following = alike[(alike.index(self) + 1) % len(alike)]
        return None if following is self else following


def table(searched: Searched, found: Mapping[Span, Mapping[str, float]]) -> pd.DataFrame:
    """A row for each guide of ``found``, which holds the guides of every span; columns as the top of this file says."""
    names = list(next(iter(found.values())))
    rows = {name: _row(searched, {span: values[name] for span, values in found.items()}) for name in names}
    return pd.DataFrame.from_dict(rows, orient="index")


def _row(searched: Searched, guide: Mapping[Span, float]) -> dict[tuple[str, str], float]:
    losses = searched.losses
    sizes: dict[float, list[Span]] = {}
    kinds: dict[str, list[Span]] = {"all": list(losses)}
    for span in sorted(losses):
        sizes.setdefault(span.blocks_removed, []).append(span)
        kinds.setdefault(span.translator or searched.translator, []).append(span)

    def agreement(spans: Sequence[Span]) -> float:
        return spearmanr([guide[span] for span in spans], [losses[span] for span in spans])[0]

    row = {}
    for kind, members in kinds.items():
        groups = [[span for span in spans if span in members] for spans in sizes.values()]
        row["equal sizes", kind] = float(np.nanmean([agreement(spans) for spans in groups if len(spans) > 2]))
    for kind, members in kinds.items():
        row["all spans", kind] = agreement(members)
    before = [[guide[other] <= guide[span] for other in sizes[span.blocks_removed]] for span in searched.taken]
    row["to be", "measured"] = max(float(np.mean(each)) for each in before)
    return row


def report(searched: Searched, another: Searched | None) -> None:
    """Print the table of one search."""
    plans = [Plan(), *(Plan((span,)) for span in searched.losses)]
    with TemporaryDirectory() as scratch:
        job = job_of(searched.folder, plans, AUTO, Path(scratch))
        found = guides(job, searched.folder)
    if another is not None:
        found = {span: {**values, "another draw": another.losses[span]} for span, values in found.items()}
    print(f"{searched.folder}: {len(searched.losses)} single spans, data.seed={job.data.seed}")
    print(table(searched, found).to_string(float_format="{:+.2f}".format), flush=True)


if __name__ == "__main__":
    searches = [Searched.read(Path(argument)) for argument in sys.argv[1:]]
    for each in searches:
        report(each, each.next_of(searches))
