import numpy as np
import pytest

from toast_cli.search.held_out import LeaveOneOut


def test_every_image_is_predicted_by_all_others():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=40)
    features = generator.normal(size=(40, 6)) + labels[:, None]
    judge = LeaveOneOut(labels, 3)
    predicted = judge._predict(features)
    x = (features - features.mean(0)) / features.std(0)
    for out in range(40):
        kept = np.arange(40) != out
        design = np.c_[x[kept], np.ones(39)]  # the intercept is not penalised
        penalty = 40 * np.diag([1.0] * 6 + [0.0])
        weights = np.linalg.solve(design.T @ design + penalty, design.T @ judge.target[kept])
        assert predicted[out] == pytest.approx(np.r_[x[out], 1] @ weights)


def test_worse_features_score_worse():
    generator = np.random.default_rng(1)
    labels = generator.integers(4, size=200)
    good = generator.normal(size=(200, 8)) + 2 * np.eye(4)[labels].repeat(2, axis=1)
    judge = LeaveOneOut(labels, 4).fit(good)
    scores = [judge.score(good + noise * generator.normal(size=good.shape)) for noise in (0, 1, 4)]
    assert scores[0].loss < scores[1].loss < scores[2].loss
    assert scores[0].accuracy > scores[1].accuracy > scores[2].accuracy
    assert scores[0].images == 200


def test_constant_features_are_a_guess():
    labels = np.arange(60) % 3
    judge = LeaveOneOut(labels, 3).fit(np.ones((60, 5)))
    assert judge.score(np.ones((60, 5))).loss == pytest.approx(np.log(3), abs=0.05)
