"""The encode stage: write the features of every variant to disk; what is already encoded is not encoded again."""

from collections.abc import Sequence

import numpy as np

from toast_cli.data.images import Images
from toast_cli.machine.console import progress, say
from toast_cli.machine.memory import Halving
from toast_cli.stages.job import Job, Modules
from toast_cli.stages.walk import Encoder


def encode(job: Job, maps: Modules, splits: Sequence[str] = ("train", "test")) -> None:
    """Write the features of every variant for all images of ``splits`` to disk.

    Raises ToastError where they are not finite.
    """
    encoder = Halving(Encoder(job.backbone, job.variants, maps), say)
    for name in splits:
        _encode_split(job, encoder, name, job.images(name))
    job.pixels.clear()


def _encode_split(job: Job, encoder: Halving, name: str, images: Images) -> None:
    file, team = job.feature_file(name), job.team
    done = team.share(file.finished(job.batch_size * team.size) if team.leads else 0)
    if done == len(images):
        return
    with progress(f"encode {name}", len(images), done) as advance:
        for batch in job.batches(images, job.batch_size, done):
            features = np.full((batch.size, *file.shape[1:]), np.nan, np.float32)  # (B, P, F)
            if len(batch.positions):
                features[batch.positions - batch.first] = encoder(batch.pixels).cpu().numpy()
                _check_finite(job, features[batch.positions - batch.first])
            for part in team.gather(features, job.batch_size):
                file.append(part)
                advance(len(part))


def _check_finite(job: Job, features: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=(0, 2)))
    if len(bad):
        raise job.not_finite(f"The features of plan {job.variants[bad[0]]}")
