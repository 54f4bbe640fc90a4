import numpy as np
import pytest
import torch

from tests.probes.conftest import problem
from toast_cli.errors import ToastError
from toast_cli.probes.classifiers import KnnProbe, LogisticProbe, PretrainedHead
from toast_cli.runs.features import Features


def split() -> tuple[Features, np.ndarray, Features, np.ndarray]:
    (train, labels), (test, truth) = problem(), problem(seed=1)
    return Features(train), labels, Features(test), truth


def test_logistic_is_the_best_of_its_strengths_on_images_held_out_of_train():
    train, labels, test, truth = split()
    probe = LogisticProbe([1e-6, 1e-1]).fit(train, labels, 3, 0)
    assert {model[-1].C for model in probe.models_} == {1e-1}, "1e-6 hardly learns"
    accuracy = (probe.predict(test) == truth).mean(1)
    assert accuracy[-1] > 0.85 > 0.6 > accuracy[0] > 0.3
    told: list[int] = []
    LogisticProbe([1e-1]).fit(train, labels, 3, 0, told.append)
    assert sum(told) == 700


def test_logistic_with_a_class_too_rare_to_hold_out():
    labels = np.array([0] * 10 + [1])
    features = Features(np.random.default_rng(0).normal(size=(11, 2, 3)).astype(np.float32))
    assert LogisticProbe([1e-3, 1.0]).fit(features, labels, 2, 0).predict(features).shape == (2, 11)


def test_knn_votes_by_cosine():
    train, labels, test, truth = split()
    predicted = KnnProbe(neighbours=5, temperature=0.1).fit(train, labels, 3, 0).predict(test)
    for plan in (0, 3):
        a, b = (
            side.of_plan(plan) / np.linalg.norm(side.of_plan(plan), axis=1, keepdims=True) for side in (test, train)
        )
        cosine = a @ b.T
        for image in range(0, 700, 97):
            nearest = np.argsort(-cosine[image])[:5]
            votes = np.bincount(labels[nearest], np.exp(cosine[image, nearest] / 0.1), minlength=3)
            assert predicted[plan, image] == votes.argmax()
    assert (KnnProbe(neighbours=5000).fit(train, labels, 3, 0).predict(test)[-1] == truth).mean() > 0.8


def test_a_pretrained_head_is_used_as_it_is():
    train, labels, test, _ = split()
    probe = PretrainedHead()
    probe = probe.on(torch.device("cpu"), torch.nn.Linear(6, 3).requires_grad_(False))
    predicted = probe.fit(train, labels, 3, 0).predict(test)
    assert predicted.shape == (4, 700)
    for plan in range(4):
        assert (predicted[plan] == probe.head(torch.from_numpy(test.of_plan(plan))).argmax(1).numpy()).all()
    with pytest.raises(ToastError, match="has 3 classes and the data set has 10: use the data set it was trained for"):
        probe.fit(train, labels, 10, 0)


def test_no_head_is_said_before_anything_is_encoded():
    with pytest.raises(ToastError, match="probe=pretrained_head needs a classifier, and dinov2_s came without"):
        PretrainedHead().check("dinov2_s")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LogisticProbe([]), "probe.strengths=.. cannot be used"),
        (lambda: LogisticProbe([0]), "probe.strengths=.0. cannot be used"),
        (lambda: KnnProbe(neighbours=0), "probe.neighbours=0 cannot be used"),
    ],
)
def test_settings_are_checked(make, text: str):
    with pytest.raises(ToastError, match=text):
        make()


def test_a_pretrained_head_is_matched_by_names_where_it_has_any():
    head = torch.nn.Linear(4, 3)
    probe = PretrainedHead().on(torch.device("cpu"), head)
    features = np.random.default_rng(0).normal(size=(30, 1, 4)).astype(np.float32)
    as_it_is = probe.predict(features)[0]
    matched = probe.matched(("owl", "cat", "dog"), {"label_names": ["cat", "dog", "owl"]})
    names = np.array(["cat", "dog", "owl"])[as_it_is]
    assert np.array(["owl", "cat", "dog"])[matched.predict(features)[0]].tolist() == names.tolist()
    assert torch.equal(matched.to_module(0)(torch.ones(4)), head(torch.ones(4))[[2, 0, 1]])
    assert matched.notes == ("probe=pretrained_head: classes are matched by the names that the model has for them",)
    with pytest.raises(ToastError, match=r"the model has no class Owl \(did you mean owl\?\): use the data set it was"):
        probe.matched(("Owl", "cat", "dog"), {"label_names": ["cat", "dog", "owl"]})


@pytest.mark.parametrize(
    "config", [None, {}, {"label_names": None}, {"label_names": ["a", "b"]}, {"label_names": "abc"}]
)
def test_without_names_their_order_counts_and_is_said(config: object):
    probe = PretrainedHead().on(torch.device("cpu"), torch.nn.Linear(4, 3))
    matched = probe.matched(("2", "9", "10"), config)
    assert matched.head is probe.head
    assert matched.notes[0].endswith("so the data's are numbered in their order: 2 is 0, 9 is 1, 10 is 2")
    with pytest.raises(
        ToastError, match="the model's classifier has 3 classes and the data set has 2: use the data set"
    ):
        probe.matched(("a", "b"), config)
