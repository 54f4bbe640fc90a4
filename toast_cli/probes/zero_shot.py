"""Zero-shot classification as CLIP does it: an image is of the class whose text its projected features point at.

Shapes: N images, B images at a time, P plans, F features, E numbers of an embedding, C classes.
"""

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import nn

from toast_cli.errors import ToastError, did_you_mean
from toast_cli.layers import UnitLength, dense
from toast_cli.models.imagenet import ids_of_classes
from toast_cli.probes.base import Advance, Probe
from toast_cli.probes.judged import Judged, of_logits
from toast_cli.probes.texts import read_texts
from toast_cli.runs.features import Features

_TOLD = "probe=zero_shot"


class ZeroShot(Probe):
    """The class whose text embedding has the largest cosine with the projected features; nothing is trained.

    The projection is the head that CLIP's vision towers have in timm, (N, F) -> (N, E). A model without one, such as SigLIP's, is
    compared with the texts as it is. ``text`` names a file of embeddings (see ``read_texts``).
    """

    name = "zero_shot"
    takes_head = True
    trains = False

    def __init__(self, text: str | None = None) -> None:
        self.text, self.texts = text, read_texts(text)
        self.made_of = self.texts.checksum
        self.gives_probabilities = self.texts.scale != 1  # of plain cosines all would be alike
        self._order: list[int] = []  # which text is that of each class, (C,)

    def on(self, device: torch.device, head: nn.Linear | None, width: int = 0) -> Self:
        placed = super().on(device, head, width)
        placed.projection = head
        return placed

    def check(self, model: str) -> None:
        given = self.texts.directions.shape[1]
        what, wide = ("features", self.width) if self.head is None else ("projection", self.head.out_features)
        if given != wide:
            raise ToastError(
                f"probe.text={self.text} has embeddings of {given} numbers, and the {what} of {model} {'have' if self.head is None else 'has'} {wide}: "
                "give the embeddings of the text tower that this model was trained with."
            )

    def matched(self, classes: Sequence[str], config: object) -> Self:
        matched = copy.copy(self)
        matched._order, how = self._found(classes)
        matched.notes = (f"{_TOLD}: {how}", *self._unprojected())
        return matched

    def _unprojected(self) -> Sequence[str]:
        if self.head is not None:
            return ()
        return (
            f"{_TOLD}: the model has no projection, so its features themselves are compared with the texts, as SigLIP's are",
        )

    def _found(self, classes: Sequence[str]) -> tuple[list[int], str]:
        """Which text is that of each of the ``classes``, and how this was found. Raises ToastError if it cannot be told."""
        names = self.texts.names
        if names is None:
            count = len(self.texts.directions)
            if count != len(classes):
                raise ToastError(
                    f"probe.text={self.text} names no classes and has {count}, and the data set has {len(classes)}: give names in its metadata, or "
                    "as many classes in the data set's order."
                )
            ends = ", ".join(dict.fromkeys((classes[0], classes[-1])))
            return list(
                range(count)
            ), f"the texts have no names, so they are taken in the order of the data's classes ({ends} at the ends)"
        place = {name: i for i, name in enumerate(names)}
        if all(name in place for name in classes):
            return [
                place[name] for name in classes
            ], f"the data's {len(classes)} classes are matched with texts by name"
        ids, wanted = ids_of_classes(names), ids_of_classes(classes)
        by_id = {} if ids is None else {wordnet: i for i, wordnet in enumerate(ids)}
        if wanted is not None and all(wordnet in by_id for wordnet in wanted):
            return [
                by_id[each] for each in wanted
            ], f"the data's {len(classes)} classes are matched with texts by WordNet id"
        missing = [name for name in classes if name not in place]
        told = f"{', '.join(missing[:5])}{', …' * (len(missing) > 5)}"
        near = did_you_mean(missing[0], names) if len(missing) == 1 else ""
        raise ToastError(
            f"probe.text={self.text} has no text for {len(missing)} of the data's {len(classes)} classes, {told}{near}: add them, or name its classes as "
            "the data set does."
        )

    def fit(
        self, features: Features, labels: np.ndarray, classes: int, seed: int, advance: Advance = lambda images: None
    ) -> Self:
        advance(len(features))
        return self

    def to_module(self, plan: int) -> nn.Module:
        """(N, F) -> logits (N, C): cosines, times the file's scale."""
        directions = (self.texts.scale * self.texts.directions[self._order]).T  # (E, C)
        projection = [] if self.head is None else [self.head]
        return nn.Sequential(*projection, UnitLength(), dense(directions)).to(self.device).eval()

    def predict(self, features: Features) -> np.ndarray:
        return self.judge(features).classes

    @torch.inference_mode()
    def judge(self, features: Features, keep: bool = False) -> Judged:
        head, starts = self.to_module(0), range(0, len(features), 1024)
        batches = (torch.from_numpy(features[i : i + 1024]).to(self.device) for i in starts)  # (B, P, F) each
        judged = of_logits((head(each).transpose(0, 1) for each in batches), keep)
        return judged if self.gives_probabilities else Judged(judged.classes)
