"""How well plans do on images that their probes have not seen: cross-validation, so that every image judges.

A race has few images in its first rounds, most of them train images. Each of them says as much about a plan as a test image.
"""

from itertools import cycle

import numpy as np

from toast_cli.data.draws import stratified
from toast_cli.machine.console import progress
from toast_cli.runs.features import Features
from toast_cli.stages.job import Job

_FOLDS, _TIMES = 5, 3  # docs/log.md has what other numbers give
TRAININGS = _FOLDS * _TIMES  # of probes


def unseen_accuracies(job: Job, features: Features, labels: np.ndarray, what: str) -> np.ndarray:
    """The share (P,) of ``features`` (N, P, F) with these ``labels`` (N,) that a plan's probes classify correctly, unseen.

    The images are divided, by classes, into five parts; the job's own probe, trained on four of them as long as on all
    of its train images, judges the fifth. This is done three times, with other parts and the next of the job's seeds; once, if
    the probe learns nothing.
    """
    right, trainings, times = np.zeros(features.shape[1]), [], _TIMES if job.probe.trains else 1
    for number, seed in zip(range(times), cycle(job.seeds), strict=False):
        for fold in np.array_split(stratified(labels, number), min(_FOLDS, len(labels))):
            rest = np.setdiff1d(np.arange(len(labels)), fold)
            if job.probe.trains and len(np.unique(labels[rest])) < 2:
                continue  # nothing to learn: no plan is right
            share = len(rest) / len(job.data.train) if len(job.data.train) else 1.0
            trainings.append((job.probe.on_share(share), seed, rest, fold))
    with progress(what, sum(probe.epochs * len(rest) for probe, _, rest, _ in trainings)) as advance:
        for probe, seed, rest, fold in trainings:
            probe.fit(features.at(rest), labels[rest], len(job.data.classes), seed, advance)
            right += (probe.predict(features.at(fold)) == labels[fold]).sum(axis=1)
    return right / (times * len(labels))
