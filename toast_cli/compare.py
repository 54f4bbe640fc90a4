"""``toast similarity``: config in, similarity.csv and its pictures out."""

from omegaconf import DictConfig

from toast_cli import figures, gallery
from toast_cli.console import progress
from toast_cli.encode import Encoder, latents
from toast_cli.fitting import fit
from toast_cli.folders import RunFolder
from toast_cli.job import Job
from toast_cli.plans import STEM
from toast_cli.results import Similarity, write_csv
from toast_cli.run import prepare
from toast_cli.similarity import Alike, of_blocks, of_plan
from toast_cli.stages import modules


def compare(cfg: DictConfig, folder: RunFolder) -> None:
    """Similarities of all blocks and of all plans over the fit images. Raises ToastError for what a person must mend."""
    with folder.stage("load"):
        job = prepare(cfg, folder)
    with folder.stage("similarity"):
        entries = [*_blocks(job), *_plans(job)]
    used = max(job.folder.record["fit_images"].values())
    rows = [
        Similarity(
            job.backbone.label, job.data.fit_label, used, kind, measure, source, target, value, job.compute.precision
        )
        for kind, measure, source, target, value in entries
    ]
    write_csv(folder / "similarity.csv", rows, Similarity)
    for name, figure in gallery.of_similarity(rows).items():
        figures.save(figure, folder.path / name)
    folder.finish()


_Entry = tuple[str, str, str, str, float]


def _blocks(job: Job) -> list[_Entry]:
    layers = range(STEM, job.backbone.depth)
    alike = Alike((i, j) for i in layers for j in layers if i < j)
    used = 0
    with progress("blocks", sum(map(len, job.data.fit))) as advance:
        for part in job.data.fit:
            for batch in job.batches(part, job.batch_size):
                if len(batch.positions):
                    alike.update(latents(job.backbone, batch.pixels))
                used += len(batch.positions)
                advance(batch.size)
    job.folder.note(fit_images={str(job.data.fit_sizes[-1]): used})
    return [
        ("blocks", measure, _name(source), _name(target), value) for measure, source, target, value in of_blocks(alike)
    ]


def _name(layer: int) -> str:
    return "stem" if layer == STEM else str(layer)


def _plans(job: Job) -> list[_Entry]:
    """The last latents of all plans, walked together; number 0 is the untouched model."""
    if len(job.variants) == 1:
        return []
    fitted = fit(job)
    encoder = Encoder(job.backbone, job.variants, modules(job, fitted), whole=True)
    alike = Alike((0, plan) for plan in range(1, len(job.variants)))
    with progress("plans", sum(map(len, job.data.fit))) as advance:
        for part in job.data.fit:
            for batch in job.batches(part, job.batch_size):
                if len(batch.positions):
                    last = encoder(batch.pixels)  # (N, P, T, D)
                    alike.update({plan: last[:, plan] for plan in range(last.shape[1])})
                advance(batch.size)
    return [
        ("plans", measure, "none", str(job.variants[plan]), value)
        for _, plan, pair, cosine in alike.pairs()
        for measure, value in of_plan(pair, cosine).items()
    ]
