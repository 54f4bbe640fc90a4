"""How sure probes are, against their modules' own logits and votes counted by hand; calibration errors bin by bin."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.probes.conftest import problem
from toast_cli.probes import KnnProbe, LinearProbe, LogisticProbe, MlpProbe, PretrainedHead, Probe
from toast_cli.probes.judged import Judged, calibration_error
from toast_cli.runs.features import Features


def by_hand(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """Bin by bin as Guo et al. (2017) write it, in whole numbers and fractions."""
    error = Fraction(0)
    pairs = [(Fraction(float(each)), bool(hit)) for each, hit in zip(confidence, right, strict=True)]
    for m in range(1, 16):
        own = [pair for pair in pairs if Fraction(m - 1, 15) < pair[0] <= Fraction(m, 15) or (m == 1 and pair[0] == 0)]
        if own:
            accuracy = Fraction(sum(hit for _, hit in own), len(own))
            mean = sum(each for each, _ in own) / len(own)
            error += Fraction(len(own), len(pairs)) * abs(accuracy - mean)
    return float(error)


def test_a_few_answers_by_hand():
    confidence, right = np.array([0.9, 0.9, 0.62, 0.3]), np.array([True, False, True, False])
    # 0.9 twice: half are right; 0.62 is right; 0.3 is wrong: (2·0.4 + 0.38 + 0.3) / 4
    assert calibration_error(confidence, right) == pytest.approx(0.37)
    assert calibration_error(np.ones(5), np.ones(5, bool)) == 0
    assert calibration_error(np.full(4, 0.75), np.array([True, True, True, False])) == pytest.approx(0)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60))
def test_errors_are_those_of_the_bins(pairs: list[tuple[float, bool]]):
    confidence, right = (np.array(column) for column in zip(*pairs, strict=True))
    assert calibration_error(confidence, right) == pytest.approx(by_hand(confidence, right), abs=1e-9)


PROBES: dict[str, Probe] = {
    "linear": LinearProbe(epochs=2),
    "mlp": MlpProbe(epochs=2),
    "logistic": LogisticProbe([1e-2]),
    "head": PretrainedHead().on(torch.device("cpu"), torch.nn.Linear(6, 4).requires_grad_(False)),
}


@pytest.mark.parametrize("name", PROBES)
def test_probabilities_are_the_softmax_of_the_logits(name: str):
    (train, labels), (test, truth) = problem(), problem(seed=1)
    probe = PROBES[name].fit(Features(train), labels, 4, 0)  # of four classes, the last has no images
    found, told = probe.judge(Features(test), keep=True), probe.judge(Features(test))
    assert probe.gives_probabilities
    assert told.probabilities is None
    assert (found.classes == probe.predict(Features(test))).all()
    assert (found.probabilities.dtype, found.probabilities.shape) == (np.float32, (4, 700, 4))
    for plan in range(4):
        logits = probe.to_module(plan).double()(torch.from_numpy(test[:, plan].copy()).double()).detach()
        expected = torch.softmax(logits, dim=-1).numpy()
        assert np.abs(found.probabilities[plan] - expected).max() < 1e-5
        assert np.abs(told.confidence[plan] - expected.max(-1)).max() < 1e-5
    errors = found.calibration_errors(truth)
    assert errors == told.calibration_errors(truth)
    assert errors[3] == pytest.approx(by_hand(found.probabilities[3].max(-1), found.classes[3] == truth), abs=1e-7)
    if name == "logistic":
        assert not found.probabilities[..., 3].any()


def test_probabilities_of_neighbours_are_their_shares_of_the_votes():
    (train, labels), (test, _) = problem(), problem(seed=1)
    probe = KnnProbe(neighbours=5, temperature=0.1).fit(Features(train), labels, 4, 0)
    found = probe.judge(Features(test), keep=True)
    cosine = unit(test[:, 2]) @ unit(train[:, 2]).T
    for image in range(0, 700, 97):
        nearest = np.argsort(-cosine[image])[:5]
        votes = np.bincount(labels[nearest], np.exp(cosine[image, nearest] / 0.1), minlength=4)
        assert found.probabilities[2, image] == pytest.approx(votes / votes.sum(), abs=1e-5)
        assert found.confidence[2, image] == pytest.approx(votes.max() / votes.sum(), abs=1e-5)
    theirs = np.stack([model.predict(test[:, plan]) for plan, model in enumerate(probe.models_)])
    assert (found.classes == theirs).all(), "as scikit-learn counts"
    assert found.classes.dtype == theirs.dtype
    cold = KnnProbe(neighbours=5, temperature=1e-6).fit(Features(train), labels, 4, 0).judge(Features(test))
    one = KnnProbe(neighbours=1).fit(Features(train), labels, 4, 0).judge(Features(test))
    assert (cold.classes[0] == one.classes[0]).mean() > 0.99, "the nearest alone, though no vote is a number above 0"
    assert np.isfinite(cold.confidence).all()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_probe_of_ones_own_need_not_know():
    class Guess(Probe):
        name = "guess"

        def predict(self, features: Features) -> np.ndarray:
            return np.zeros((features.shape[1], len(features)), int)

    judged = Guess().judge(Features(problem()[0]), keep=True)
    assert judged.confidence is judged.probabilities is None
    assert judged.calibration_errors(problem()[1]) == [None] * 4
    assert Judged(np.zeros((2, 3))).calibration_errors(np.zeros(3)) == [None, None]
