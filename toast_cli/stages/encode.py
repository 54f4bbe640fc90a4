"""The encode stage: write the features of every variant to disk; what is already encoded is not encoded again."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from toast_cli.data.images import Batch, Images
from toast_cli.machine.behind import behind, on_its_way
from toast_cli.machine.console import progress, say
from toast_cli.machine.memory import Halving
from toast_cli.machine.team import Team
from toast_cli.runs.features import FeatureFile
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
    together = job.batch_size * team.size
    done = team.share(file.finished(together) if team.leads else 0)
    if done == len(images):
        return
    write = _writer(file, team, job.batch_size)
    with progress(f"encode {name}", len(images), done) as advance, behind() as then:

        def finish(batch: Batch, found: Callable[[], np.ndarray] | None) -> None:
            features = np.full((batch.size, *file.shape[1:]), np.nan, np.float32)  # (B, P, F)
            if found is not None:
                features[batch.positions - batch.first] = found()
                _check_finite(job, features[batch.positions - batch.first])
            write(batch.first, features)
            advance(min(together, len(images) - batch.first))

        for batch in job.batches(images, job.batch_size, done):
            found = on_its_way(encoder(batch.pixels)) if len(batch.positions) else None
            then(partial(finish, batch, found))
    team.sum(0)  # waits until the others have written theirs


def _writer(file: FeatureFile, team: Team, most: int) -> Callable[[int, np.ndarray], None]:
    """A function that writes features (B, P, F), B at most ``most``, at the place of the first of their images.

    Each process writes its own where all see the first one's disk; elsewhere the first gathers and writes them.
    """
    identity = team.share(file.begin() if team.leads else (0, 0))
    if all(team.unite({team.rank: file.is_at(identity)}).values()):
        return file.write

    def gather(first: int, features: np.ndarray) -> None:
        for part in team.gather(features, most):
            file.write(first, part)
            first += len(part)

    return gather


def _check_finite(job: Job, features: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=(0, 2)))
    if len(bad):
        raise job.not_finite(f"The features of plan {job.variants[bad[0]]}")
