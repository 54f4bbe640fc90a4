"""How similar a model's latents are to each other, and its last latent to those of its shortened versions.

All measures take tokens as rows: a latent of N images and T tokens is n = N·T rows of width D.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from toast_cli.machine.console import progress, say
from toast_cli.machine.memory import halving
from toast_cli.moments import Moments, PairMoments
from toast_cli.moments.streamed import Layer
from toast_cli.plans import STEM
from toast_cli.runs.measured import MEASURES
from toast_cli.stages.fit import fit
from toast_cli.stages.job import Job
from toast_cli.stages.walk import Encoder, latents
from toast_cli.translators.closed_form import Identity, Linear


class Measure(Protocol):
    """What is added up over latents (N, T, D) by layer, batch by batch."""

    def update(self, latents: Mapping[Layer, Tensor], /) -> None: ...


_Measure = TypeVar("_Measure", bound=Measure)


class Cosines:
    """Mean cosines of pairs of latents over their tokens, x·y / (‖x‖ ‖y‖), added up batch by batch."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        self.pairs = list(pairs)
        self._count, self._sums = 0, torch.zeros(len(self.pairs), dtype=torch.float64)

    def update(self, latents: Mapping[Layer, Tensor]) -> None:
        """Add the latents (N, T, D) of one batch, by layer."""
        layers = {layer for pair in self.pairs for layer in pair}
        unit = {layer: F.normalize(latents[layer].flatten(0, 1), dim=1) for layer in layers}  # (n, D)
        cosines = torch.stack([(unit[i] * unit[j]).sum(1) for i, j in self.pairs])  # (pairs, n)
        self._count += cosines.shape[1]
        self._sums += cosines.cpu().double().sum(1)  # float64, since blocks differ by thousandths

    def means(self) -> list[float]:
        """The mean cosine of every pair."""
        return (self._sums / self._count).tolist()


class Alike:
    """Moments and cosines of pairs of latents, added up batch by batch."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        self.moments = Moments(pairs)
        self.cosines = Cosines(self.moments.pairs)

    def update(self, latents: Mapping[Layer, Tensor]) -> None:
        """Add the latents (N, T, D) of one batch, by layer."""
        self.moments.update(latents)
        self.cosines.update(latents)

    def pairs(self) -> Iterator[tuple[int, int, PairMoments, float]]:
        """Source, target, moments and mean cosine of every pair."""
        for (i, j), cosine in zip(self.moments.pairs, self.cosines.means(), strict=True):
            yield i, j, self.moments.pair(i, j), cosine


def of_blocks(alike: Alike) -> Iterator[tuple[str, int, int, float]]:
    """(measure, source, target, value) for all ordered pairs of layers, including each with itself."""
    for layer in alike.moments.layers:
        for measure in MEASURES:
            yield measure, layer, layer, 0.0 if measure == "mse" else 1.0
    for i, j, pair, cosine in alike.pairs():
        shared = {"cka": pair.cka(), "cosine": cosine, "mse": mse(pair)}
        for source, target, way in ((i, j, pair), (j, i, pair.swapped)):
            for measure, value in {**shared, **explained(way)}.items():
                yield measure, source, target, value


def of_plan(pair: PairMoments, cosine: float) -> dict[str, float]:
    """Every measure between the untouched model's last latent (x) and a plan's (y), which is to explain it."""
    return {"cka": pair.cka(), "cosine": cosine, "mse": mse(pair), **explained(pair.swapped)}


def explained(pair: PairMoments) -> dict[str, float]:
    """How much of y the x of the pair explains by the least-squares linear map, and as it is."""
    return {"r2": Linear().fit(pair).r2_, "r2_identity": Identity().fit(pair).r2_}


def mse(pair: PairMoments) -> float:
    """Mean squared error, (tr xx + tr yy − 2 tr xy) / (n D)."""
    width = len(pair.sum_x)
    return pair.residual(torch.eye(width)) / (pair.count * width)


def between_blocks(job: Job) -> Iterator[dict[str, Any]]:
    """The columns for every pair of blocks, over the fit images."""
    layers = range(STEM, job.backbone.depth)
    pairs = [(i, j) for i in layers for j in layers if i < j]
    alike, used = over_fit_images(
        "similarity", job, lambda: Alike(pairs), job.batch_size, lambda pixels: latents(job.backbone, pixels)
    )
    job.folder.note_images_used({**job.folder.images_used, job.data.fit_sizes[-1]: used})
    plain = {
        "fit_images": used,
        "kind": "blocks",
        "translator": "",
        "sequential": False,
        "healed": False,
        "tokens": "",
        "solver": "",
    }
    for measure, source, target, value in of_blocks(alike):
        yield plain | {"measure": measure, "source": _name(source), "target": _name(target), "value": value}


def over_fit_images(
    name: str,
    job: Job,
    new: Callable[[], _Measure],
    batch_size: int,
    encode: Callable[[Tensor], Mapping[Layer, Tensor]],
) -> tuple[_Measure, int]:
    """A ``new`` measure of the latents (N, T, D) that ``encode`` makes of the fit images (N, 3, H, W), and how many of
    these could be decoded. ``name`` is what progress is shown of."""

    def one_pass(size: int) -> tuple[_Measure, int]:
        measure, used = new(), 0
        with progress(name, sum(map(len, job.data.fit))) as advance:
            for part in job.data.fit:
                for batch in job.batches(part, size):
                    if len(batch.positions):
                        measure.update(encode(batch.pixels))
                    used += len(batch.positions)
                    advance(batch.size)
        return measure, used

    # When memory runs out, the whole pass again: half a batch may already be in the sums.
    return halving(one_pass, batch_size, [job.backbone.image_size] * 2, say)[0]


def _name(layer: int) -> str:
    return "stem" if layer == STEM else str(layer)


def between_plans(job: Job) -> Iterator[dict[str, Any]]:
    """The columns for each plan's last latent against the untouched model's, over the fit images, in one walk.

    Raises ToastError where latents are not finite.
    """
    if len(job.variants) == 1:
        return
    fitted = fit(replace(job, held_out_r2=False))  # similarity.csv has R² of its own
    encoder = Encoder(job.backbone, job.variants, job.modules(fitted), whole=True)
    pairs = [(0, plan) for plan in range(1, len(job.variants))]
    at_once = max(job.batch_size // len(job.variants), 1)  # the latents of all plans are in memory together
    alike, _ = over_fit_images(
        "similarity", job, lambda: Alike(pairs), at_once, lambda pixels: dict(enumerate(encoder(pixels).unbind(1)))
    )
    for _, plan, pair, cosine in alike.pairs():
        variant = job.variants[plan]
        settings = {
            "fit_images": fitted.images_used[variant.fit_images],
            "kind": "plans",
            "source": "none",
            "target": str(variant),
            "translator": job.translator.name,
            "sequential": variant.sequential,
            "healed": variant.healed,
            "tokens": job.translator.tokens,
            "solver": job.translator.solver,
        }
        for measure, value in of_plan(pair, cosine).items():
            yield settings | {"measure": measure, "value": value}
