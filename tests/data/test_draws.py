"""Which images are drawn: stratified, nested, decided by the seed."""

import numpy as np
import pytest

from tests.data.conftest import digits
from toast_cli.errors import ToastError


def test_a_smaller_draw_is_part_of_a_larger_one_and_stratified():
    small, large = digits(train_images=100), digits(train_images=400)
    assert set(small.train.indices) < set(large.train.indices)
    for images in (small.train, large.train):
        counts = np.bincount(images.labels, minlength=10)
        assert counts.max() - counts.min() <= 0.04 * len(images)
        assert (np.diff(images.indices) > 0).all(), "stored order"


def test_the_seed_decides():
    assert (digits(train_images=100).train.indices != digits(train_images=100, seed=1).train.indices).any()
    assert (digits().fit[0].indices != digits(seed=1).fit[0].indices).any()
    assert (digits().fit[0].indices == digits().fit[0].indices).all()
    assert digits().fingerprint() == digits().fingerprint() != digits(seed=1).fingerprint()


def test_fit_images_do_not_move_with_train_images():
    assert (digits().fit[0].indices == digits(train_images=60).fit[0].indices).all()


def test_first_takes_images_in_stored_order():
    assert digits(fit_order="first").fit[0].indices.tolist() == list(range(50))


def test_several_numbers_of_fit_images_are_nested():
    nested = digits(fit_images=[50, 10, 200])
    assert nested.fit_sizes == [10, 50, 200]
    drawn = [set(part.indices) for part in nested.fit]
    assert set().union(*drawn) == set(digits(fit_images=200).fit[0].indices)
    assert drawn[0] | drawn[1] == set(digits(fit_images=50).fit[0].indices)
    with pytest.raises(ToastError, match="data.fit_images=.. is empty"):
        digits(fit_images=[])
    with pytest.raises(ToastError, match="data.fit_images=5000 is not available"):
        digits(fit_images=[10, 5000])


def test_one_split_is_divided_as_in_the_paper():
    both = {name: digits(splits=name, one_split={"name": "test", "test_images": 90}) for name in ("standard", "paper")}
    assert (len(both["standard"].train), len(both["standard"].test)) == (1437, 360)
    assert (len(both["paper"].train), len(both["paper"].test)) == (270, 90)
    stored = digits(train_split="test", fit_images=10).train.split
    whole = [stored.encoded(i) for i in range(360)]
    parts = [part.split.encoded(i) for part in (both["paper"].train, both["paper"].test) for i in range(len(part))]
    assert sorted(parts) == sorted(whole), "every image once"
    again = digits(splits="paper", one_split={"name": "test", "test_images": 90}, seed=1)
    assert again.fingerprint() != both["paper"].fingerprint()
    assert len(digits(splits="paper").test) == 360, "nothing to divide"
    with pytest.raises(ToastError, match="data.splits=papr is not known"):
        digits(splits="papr")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"fit_images": 1438},
            "data.fit_images=1438 is not available: give a whole number from 1 to 1437, the images of that split.",
        ),
        ({"fit_images": 0}, "data.fit_images=0 cannot be used: give a whole number from 1."),
        ({"train_images": 2.5}, "data.train_images=2.5 cannot be used"),
        ({"test_images": 361}, "data.test_images=361 is not available: give a whole number from 1 to 360"),
        (
            {"fit_order": "frist"},
            "data.fit_order=frist is not an order (did you mean first?): use random or first.",
        ),
    ],
)
def test_what_cannot_be_drawn_is_named(settings: dict, sentence: str):
    with pytest.raises(ToastError) as error:
        digits(**settings)
    assert str(error.value).startswith(sentence)
