"""Where rows come from: digits, the hub."""

import hashlib

import datasets
import numpy as np
import pytest

from tests.data.conftest import digits, transform
from toast_cli.data import dataset as data
from toast_cli.errors import ToastError


def test_held_out_digits_are_fixed_whatever_the_seed():
    one, other = digits(), digits(seed=7)
    assert (len(one.train), len(one.test), one.classes) == (1437, 360, tuple("0123456789"))
    assert (one.test.labels == other.test.labels).all()
    assert one.test.split.encoded(0) == other.test.split.encoded(0)
    counts = np.bincount(one.test.labels)
    assert counts.min() >= 34
    assert counts.max() <= 37


def test_held_out_digits_are_those_the_embedded_model_never_saw():
    """If this fails, the draw has changed and the shipped weights were trained on what is now test: train them again."""
    test = digits().test
    seen = np.concatenate([batch.pixels.numpy().ravel() for batch in test.batches(transform, 360)])
    assert hashlib.sha256(seen.tobytes() + test.labels.astype("<i8").tobytes()).hexdigest()[:16] == "b592472da1f0e4dd"


def test_a_hub_out_of_reach_is_named():
    with pytest.raises(
        ToastError, match=r"uoft-cs/cifar10 could not be fetched from the hub .*: give data.path=<dir> with a copy"
    ):
        data.load("cifar10", "uoft-cs/cifar10", image_column="img", label_column="label")


def test_a_gated_set_says_how_to_get_in(monkeypatch: pytest.MonkeyPatch):
    def gated(*_: object, **__: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'ILSVRC/imagenet-1k' is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", gated)
    with pytest.raises(
        ToastError,
        match="accept them on its hub page, then set HF_TOKEN to a token with read access; or give data.path",
    ):
        data.load("imagenet1k", "ILSVRC/imagenet-1k")
