"""The contract of probes: what turns features into accuracy.

Shapes: N images, P plans, F features, C classes.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from torch import nn

from toast_cli.errors import ToastError
from toast_cli.probes.judged import Judged
from toast_cli.runs.features import Features

Advance = Callable[[int], None]


class Probe:
    """Base of all probes: ``fit`` on train features, then ``predict`` classes for other features, for each of P plans.

    ``device`` is where it computes; ``head`` is the model's own classifier, if it has one (see ``on``) and the probe
    ``takes_head``. ``trains`` says whether it needs train images. ``width`` is F, for a model that is known. ``projection`` is the
    part of the model behind its features that the probe makes use of, which counts as part of the model; ``made_of`` is a hash of the
    files that the probe has read, if any. ``gives_probabilities``: whether ``judge`` does.
    """

    name: str
    epochs = 1
    takes_head = False
    trains = True
    width = 0
    projection: nn.Module | None = None
    made_of: str | None = None
    gives_probabilities = False
    device = torch.device("cpu")
    head: nn.Linear | None = None
    notes: tuple[str, ...] = ()  # what the reader of a run should know

    def on(self, device: torch.device, head: nn.Linear | None, width: int = 0) -> Self:
        """A copy of this probe that computes on ``device``, for a model with features of this ``width`` and this ``head``,
        (N, F) -> (N, C)."""
        placed = copy.copy(self)
        placed.device, placed.head, placed.width = device, head, width
        return placed

    def on_share(self, share: float) -> Self:
        """This probe for so large a ``share`` of the train images, trained as long as on all of them: it sees as many images."""
        return copy.copy(self)

    def check(self, model: str) -> None:
        """Raises ToastError if this probe cannot be used with the model of that name; called before encoding."""

    def matched(self, classes: Sequence[str], config: object) -> Self:
        """This probe for data with these C ``classes``; ``config`` is timm's of the model, which may name the model's own.

        Raises ToastError if those are others; called before encoding.
        """
        return self

    def fit(
        self, features: Features, labels: np.ndarray, classes: int, seed: int, advance: Advance = lambda images: None
    ) -> Self:
        """Train on ``features`` float32 (N, P, F) and ``labels`` (N,).

        ``advance`` is called with numbers of images that add up to N for each of ``epochs``. Raises ToastError for
        features or labels that the probe cannot be trained on.
        """
        raise NotImplementedError

    def predict(self, features: Features) -> np.ndarray:
        """float32 (N, P, F) -> class numbers (P, N)."""
        raise NotImplementedError

    def judge(self, features: Features, keep: bool = False) -> Judged:
        """What ``predict`` says of ``features``, and how sure the probe is; ``keep`` the probabilities of all classes too."""
        return Judged(self.predict(features))

    def to_module(self, plan: int) -> nn.Module:
        """One plan's classifier as a module, (N, F) -> logits (N, C). Raises ToastError if it has no such form."""
        raise ToastError(f"probe={self.name} cannot become a model's head: use another probe, or head=none.")
