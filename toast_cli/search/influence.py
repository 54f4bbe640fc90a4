"""How much each block changes the tokens that pass through it: block influence (Men et al., arXiv:2403.03853)."""

from toast_cli.errors import is_number
from toast_cli.plans import STEM
from toast_cli.stages.job import Job
from toast_cli.stages.similarity import Cosines, over_fit_images
from toast_cli.stages.walk import latents

_RECORDED = "block_influence"


def block_influence(job: Job) -> list[float]:
    """1 − the mean cosine of X^(i−1) and X^(i) over all tokens of the fit images, for each of the L blocks i.

    One pass over the fit images; what it finds is kept in the record of the job's folder.
    """
    recorded = job.folder.record.get(_RECORDED)
    if isinstance(recorded, list) and len(recorded) == job.backbone.depth and all(map(is_number, recorded)):
        return recorded
    pairs = [(i - 1, i) for i in range(STEM + 1, job.backbone.depth)]
    cosines, _ = over_fit_images(
        "influence", job, lambda: Cosines(pairs), job.batch_size, lambda pixels: latents(job.backbone, pixels)
    )
    found = [1 - mean for mean in cosines.means()]
    job.folder.note(**{_RECORDED: found})
    return found
