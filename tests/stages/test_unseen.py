"""Accuracies on images that probes have not seen."""

from types import SimpleNamespace
from typing import Self

import numpy as np

from toast_cli.probes.base import Probe
from toast_cli.runs.features import Features
from toast_cli.stages.unseen import TRAININGS, unseen_accuracies


class Recorder(Probe):
    """Says of an image what the ``answers`` (N, P) have for it; features are its number, and no image may be in both calls."""

    def __init__(self, answers: np.ndarray) -> None:
        self.answers = answers
        self.trained: list[np.ndarray] = []
        self.seeds: list[int] = []
        self.judged: list[int] = []

    def on_share(self, share: float) -> Self:
        assert share == 18 / 90 or share == 19 / 90
        return self

    def fit(self, features, labels, classes, seed, advance) -> Self:
        self.trained.append(features[:][:, 0, 0].astype(int))
        self.seeds.append(seed)
        assert (labels == self.trained[-1] % 3).all()
        assert np.bincount(labels).min() >= 5, "folds are stratified"
        return self

    def predict(self, features) -> np.ndarray:
        numbers = features[:][:, 0, 0].astype(int)
        assert not set(numbers) & set(self.trained[-1])
        self.judged += numbers.tolist()
        return self.answers[numbers].T


LABELS = np.arange(23) % 3
ANSWERS = np.stack([LABELS, np.where(np.arange(23) < 10, LABELS, 9), np.full(23, 9)], axis=1)


def accuracies(probe: Recorder) -> np.ndarray:
    """Those of three plans, the first of which is always right, the second 10 times, and the third never."""
    features = np.repeat(np.arange(23.0, dtype=np.float32)[:, None, None], 3, axis=1)  # (N, P, 1)
    job = SimpleNamespace(probe=probe, seeds=[4, 7], data=SimpleNamespace(train=range(90), classes=list("abc")))
    return unseen_accuracies(job, Features(features), LABELS, "judge")


def test_every_image_judges_unseen_three_times():
    probe = Recorder(ANSWERS)
    assert np.allclose(accuracies(probe), [1, 10 / 23, 0])
    assert sorted(probe.judged) == sorted([*range(23)] * 3)
    assert probe.seeds == [4] * 5 + [7] * 5 + [4] * 5
    assert len(probe.trained) == TRAININGS == 15
    assert len({tuple(sorted(each)) for each in probe.trained}) == 15, "other parts each time"


def test_a_probe_that_learns_nothing_judges_once():
    probe = Recorder(ANSWERS)
    probe.trains = False
    assert np.allclose(accuracies(probe), [1, 10 / 23, 0])
    assert sorted(probe.judged) == [*range(23)]


def test_a_fold_that_leaves_one_class_is_lost():
    labels = np.array([0] * 11 + [1])
    features = Features(np.arange(12.0, dtype=np.float32)[:, None, None])
    job = SimpleNamespace(probe=Strict(), seeds=[0], data=SimpleNamespace(train=range(12), classes=["a", "b"]))
    [accuracy] = unseen_accuracies(job, features, labels, "judge")
    assert 9 / 12 <= accuracy <= 10 / 12, (
        "of a fold of two or three images, one or two of which it would have got right"
    )


class Strict(Probe):
    """Says 0, and wants two classes."""

    def fit(self, features, labels, classes, seed, advance) -> Self:
        assert len(set(labels.tolist())) == 2
        return self

    def predict(self, features) -> np.ndarray:
        return np.zeros((1, len(features)), int)
