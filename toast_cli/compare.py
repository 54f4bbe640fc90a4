"""``toast similarity``: config in, similarity.csv and its pictures out."""

from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from toast_cli import figures, likeness
from toast_cli.console import progress
from toast_cli.encode import Encoder, latents
from toast_cli.fitting import fit
from toast_cli.folders import RunFolder
from toast_cli.job import Job
from toast_cli.plans import STEM
from toast_cli.results import write_csv
from toast_cli.rows import Similarity
from toast_cli.run import prepare
from toast_cli.similarity import Alike, of_blocks, of_plan
from toast_cli.stages import modules


def compare(cfg: DictConfig, folder: RunFolder) -> None:
    """Similarities of all blocks and of all plans over the fit images. Raises ToastError for what a person must mend."""
    with folder.stage("load"):
        job = prepare(cfg, folder)
    with folder.stage("similarity"):
        entries = [*_blocks(job), *_plans(job)]
    shared: dict[str, Any] = {"protocol": job.protocol, "precision": job.compute.precision}
    rows = [Similarity(job.backbone.label, job.data.fit_label, **entry, **shared) for entry in entries]
    write_csv(folder / "similarity.csv", rows, Similarity)
    for name, figure in likeness.of_similarity(rows).items():
        figures.save(figure, folder.path / name)
    folder.finish()


def _blocks(job: Job) -> Iterator[dict[str, Any]]:
    layers = range(STEM, job.backbone.depth)
    alike = Alike((i, j) for i in layers for j in layers if i < j)
    used = _over_fit_images(job, job.batch_size, lambda pixels: alike.update(latents(job.backbone, pixels)))
    job.folder.note(fit_images={**job.folder.record.get("fit_images", {}), str(job.data.fit_sizes[-1]): used})
    plain = {"fit_images": used, "kind": "blocks", "translator": "", "sequential": False, "tokens": "", "solver": ""}
    for measure, source, target, value in of_blocks(alike):
        yield plain | {"measure": measure, "source": _name(source), "target": _name(target), "value": value}


def _over_fit_images(job: Job, batch_size: int, look: Callable[[Tensor], None]) -> int:
    """Show every batch of fit images; returns how many could be decoded."""
    used = 0
    with progress("similarity", sum(map(len, job.data.fit))) as advance:
        for part in job.data.fit:
            for batch in job.batches(part, batch_size):
                if len(batch.positions):
                    look(batch.pixels)
                used += len(batch.positions)
                advance(batch.size)
    return used


def _name(layer: int) -> str:
    return "stem" if layer == STEM else str(layer)


def _plans(job: Job) -> Iterator[dict[str, Any]]:
    """The last latents of all plans, walked together; number 0 is the untouched model."""
    if len(job.variants) == 1:
        return
    fitted = fit(job)
    encoder = Encoder(job.backbone, job.variants, modules(job, fitted), whole=True)
    alike = Alike((0, plan) for plan in range(1, len(job.variants)))

    def look(pixels: Tensor) -> None:
        last = encoder(pixels)  # (N, P, T, D)
        alike.update({plan: last[:, plan] for plan in range(last.shape[1])})

    at_once = max(job.batch_size // len(job.variants), 1)  # the latents of all plans are in memory together
    _over_fit_images(job, at_once, look)
    used = job.folder.record["fit_images"]
    for _, plan, pair, cosine in alike.pairs():
        variant = job.variants[plan]
        settings = {
            "fit_images": used[str(variant.fit_images)],
            "kind": "plans",
            "source": "none",
            "target": str(variant),
            "translator": job.translator.name,
            "sequential": variant.sequential,
            "tokens": job.translator.tokens,
            "solver": job.translator.solver,
        }
        for measure, value in of_plan(pair, cosine).items():
            yield settings | {"measure": measure, "value": value}
