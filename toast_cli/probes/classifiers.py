"""Probes that are not trained in minibatches: logistic regression, nearest neighbours, and the model's own head.

Shapes: N images, P plans, F features, C classes.
"""

import copy
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.extmath import weighted_mode
from torch import nn

from toast_cli.data.draws import stratified
from toast_cli.errors import ToastError
from toast_cli.layers import dense
from toast_cli.probes.allowed import check
from toast_cli.probes.base import Advance, Probe
from toast_cli.probes.judged import Judged, of_logits, of_plans
from toast_cli.probes.matching import match, require_as_many
from toast_cli.runs.features import Features


class _PerPlan(Probe):
    """A scikit-learn classifier for each plan.

    Learned:
        models_: the classifiers, P of them.
        classes_: the number of classes, C.
    """

    def fit(
        self, features: Features, labels: np.ndarray, classes: int, seed: int, advance: Advance = lambda images: None
    ) -> Self:
        n, plans, _ = features.shape
        self.models_, self.classes_ = [], classes
        for plan in range(plans):
            self.models_.append(self.fit_one(features.of_plan(plan), labels, seed))
            advance(n * (plan + 1) // plans - n * plan // plans)
        return self

    def predict(self, features: Features) -> np.ndarray:
        return np.stack([model.predict(features.of_plan(plan)) for plan, model in enumerate(self.models_)])

    def judge(self, features: Features, keep: bool = False) -> Judged:
        if not self.gives_probabilities:
            return super().judge(features)
        plans = range(features.shape[1])
        return of_plans(self._judge_one(self.models_[plan], features.of_plan(plan), keep) for plan in plans)

    def _judge_one(
        self, model: Any, features: np.ndarray, keep: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The classes (N,) of one plan's features (N, F), their probability (N,) and, if kept, all of them (N, C)."""
        predicted, found = model.predict(features), model.predict_proba(features)
        if not keep:
            return predicted, found.max(axis=1), None
        probabilities = np.zeros((len(found), self.classes_))  # none for classes without train images
        probabilities[:, model.classes_] = found
        return predicted, found.max(axis=1), probabilities

    def fit_one(self, features: np.ndarray, labels: np.ndarray, seed: int) -> Pipeline | KNeighborsClassifier:
        """A classifier trained on one plan's features (N, F) and labels (N,)."""
        raise NotImplementedError


class LogisticProbe(_PerPlan):
    """Logistic regression on standardised features, run to convergence.

    scikit-learn's C, the inverse of the penalty's strength, is the one of ``strengths`` that is most accurate on a
    stratified fifth of the train images held out by ``seed`` (the stronger penalty if two tie); then all train images
    are used.
    """

    name = "logistic"
    gives_probabilities = True

    def __init__(self, strengths: list[float], iterations: int = 1000) -> None:
        check(strengths=strengths, iterations=iterations)
        self.strengths, self.iterations = sorted(strengths), iterations

    def fit_one(self, features: np.ndarray, labels: np.ndarray, seed: int) -> Pipeline:
        if len(np.unique(labels)) < 2:
            raise ToastError(
                "probe=logistic needs train images of at least two classes, but all are of one: use more train images, or probe=knn."
            )
        best = self.strengths[0]
        if len(self.strengths) > 1:
            order = stratified(labels, seed)
            apart, rest = np.split(order, [max(len(order) // 5, 1)])
            if len(np.unique(labels[rest])) == len(np.unique(labels)):
                scores = [
                    self._train(features[rest], labels[rest], strength).score(features[apart], labels[apart])
                    for strength in self.strengths
                ]
                best = self.strengths[scores.index(max(scores))]
        return self._train(features, labels, best)

    def to_module(self, plan: int) -> nn.Linear:
        """(x − μ)/σ Wᵀ + b, standardisation folded into weights. A class without train images is never predicted."""
        scaler, regression = self.models_[plan][0], self.models_[plan][-1]
        weight, bias = regression.coef_, regression.intercept_
        if len(regression.classes_) == 2:  # for two classes scikit-learn keeps one row
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        weight = weight / scaler.scale_  # (C', F), for the C' classes that have train images
        all_weights, all_biases = np.zeros((self.classes_, weight.shape[1])), np.full(self.classes_, -1e9)
        all_weights[regression.classes_], all_biases[regression.classes_] = weight, bias - weight @ scaler.mean_
        return dense(torch.from_numpy(all_weights.T).float(), torch.from_numpy(all_biases).float())

    def _train(self, features: np.ndarray, labels: np.ndarray, strength: float) -> Pipeline:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=self.iterations))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties may need more steps; they rarely win
            return model.fit(features, labels)


class KnnProbe(_PerPlan):
    """A vote of the ``neighbours`` nearest train images by cosine, weighted by exp(cosine / ``temperature``).

    The weights are those of Wu et al. (2018). A class's probability is its share of the votes.

    Learned:
        labels_: those of the train images, (N,).
    """

    name = "knn"
    gives_probabilities = True

    def __init__(self, neighbours: int = 20, temperature: float = 0.07) -> None:
        check(neighbours=neighbours, temperature=temperature)
        self.neighbours, self.temperature = neighbours, temperature

    def fit_one(self, features: np.ndarray, labels: np.ndarray, seed: int) -> KNeighborsClassifier:
        count = min(self.neighbours, len(labels))
        model = KNeighborsClassifier(count, weights=self._weights, metric="cosine", algorithm="brute")
        self.labels_ = labels
        return model.fit(features, labels)

    def predict(self, features: Features) -> np.ndarray:
        return self.judge(features).classes

    def _judge_one(
        self, model: Any, features: np.ndarray, keep: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """As scikit-learn's ``predict`` counts votes; looking for the neighbours twice would take twice as long."""
        distances, nearest = model.kneighbors(features)
        voters, votes = self.labels_[nearest], self._weights(distances)
        faint = ~votes.any(axis=1)  # all too small for a float, at a very low temperature
        votes[faint] = self._weights(distances[faint] - distances[faint].min(axis=1, keepdims=True))
        predicted, most = (column[:, 0] for column in weighted_mode(voters, votes, axis=1))
        probabilities = None
        if keep:
            probabilities = np.zeros((len(features), self.classes_))
            np.add.at(probabilities, (np.arange(len(features))[:, None], voters), votes)
            probabilities /= votes.sum(axis=1, keepdims=True)
        return predicted.astype(self.labels_.dtype), most / votes.sum(axis=1), probabilities

    def _weights(self, distances: np.ndarray) -> np.ndarray:
        """exp(cosine / temperature), up to a factor."""
        return np.exp(-distances / self.temperature)


class PretrainedHead(Probe):
    """The classifier that the model came with, not trained here: for data with its classes, or with some of them.

    Names say which is which, or WordNet ids; without either their order does, if all are there (see ``matching``).
    """

    name = "pretrained_head"
    takes_head = True
    trains = False
    gives_probabilities = True

    def check(self, model: str) -> None:
        if self.head is None:
            raise ToastError(
                f"probe=pretrained_head needs a classifier, and {model} came without one: use a model fine-tuned on ImageNet such as vit_b, "
                "readout=model, or another probe."
            )

    def matched(self, classes: Sequence[str], config: object) -> Self:
        if self.head is None:
            return self
        found, matched = match(classes, self.head.out_features, config), copy.copy(self)
        if found.order != list(range(self.head.out_features)):
            matched.head = _reordered(self.head, found.order)
        matched.notes = (found.note,)
        return matched

    def fit(
        self, features: Features, labels: np.ndarray, classes: int, seed: int, advance: Advance = lambda images: None
    ) -> Self:
        if self.head is not None:
            require_as_many(classes, self.head.out_features)
        advance(len(features))
        return self

    def to_module(self, plan: int) -> nn.Module:
        if self.head is None:
            raise TypeError("check() says that there is no head")
        return self.head

    def predict(self, features: Features) -> np.ndarray:
        return self.judge(features).classes

    @torch.inference_mode()
    def judge(self, features: Features, keep: bool = False) -> Judged:
        starts = range(0, len(features), 1024)
        return of_logits((self._logits(features[i : i + 1024]) for i in starts), keep)

    def _logits(self, features: np.ndarray) -> torch.Tensor:
        """(B, P, F) -> (P, B, C)."""
        if self.head is None:
            raise TypeError("check() says that there is no head")
        return self.head(torch.from_numpy(features).to(self.device)).transpose(0, 1)


def _reordered(head: nn.Linear, order: list[int]) -> nn.Linear:
    """The classifier whose class k is class ``order[k]`` of ``head``."""
    bias = None if head.bias is None else head.bias[order].detach()
    moved = nn.Linear(
        head.in_features, len(order), bias is not None, device=head.weight.device, dtype=head.weight.dtype
    )
    moved.load_state_dict({"weight": head.weight[order].detach(), **({} if bias is None else {"bias": bias})})
    return moved.eval().requires_grad_(False)
