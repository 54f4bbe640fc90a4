import numpy as np
import pytest

from toast_cli.search.held_out import LeaveOneOut


def test_every_image_is_predicted_by_all_others():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=40)
    features = generator.normal(size=(40, 6)) + labels[:, None]
    judge = LeaveOneOut(labels, 3)
    predicted = judge._predict(features, 1.0)
    x = (features - features.mean(0)) / features.std(0)
    for out in range(40):
        kept = np.arange(40) != out
        design = np.c_[x[kept], np.ones(39)]  # the intercept is not penalised
        penalty = 40 * np.diag([1.0] * 6 + [0.0])
        weights = np.linalg.solve(design.T @ design + penalty, design.T @ judge.target[kept])
        assert predicted[out] == pytest.approx(np.r_[x[out], 1] @ weights)


def test_the_penalty_suits_the_original():
    generator = np.random.default_rng(3)
    labels = generator.integers(4, size=300)
    noise = (
        6 * generator.normal(size=(300, 1)) @ generator.normal(size=(1, 20))
    )  # in one direction, much of the variance
    features = noise + generator.normal(size=(300, 20)) + 0.5 * np.eye(4)[labels].repeat(5, axis=1)
    losses = {}
    for strength in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0):
        losses[strength] = LeaveOneOut(labels, 4, strength).fit(features).score(features).loss
    chosen = LeaveOneOut(labels, 4).fit(features)
    assert chosen.strength_ == min(losses, key=losses.__getitem__) < 1
    assert chosen.score(features).loss == min(losses.values())


def test_it_stays_as_it_is_where_no_penalty_is_clearly_better():
    generator = np.random.default_rng(4)
    labels = generator.integers(4, size=100)
    never_wrong = np.eye(4)[labels] + 1e-3 * generator.normal(size=(100, 4))
    assert LeaveOneOut(labels, 4).fit(never_wrong).strength_ == 1


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
