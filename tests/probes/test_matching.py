"""Which outputs of a classifier are a data set's classes, against timm's own lists of ImageNet's subsets."""

from importlib import resources

import numpy as np
import pytest
import timm.data
import torch

from toast_cli.data.class_names import in_order
from toast_cli.errors import ToastError
from toast_cli.models.imagenet import ids_of_outputs
from toast_cli.probes.classifiers import PretrainedHead
from toast_cli.probes.matching import match
from toast_cli.runs.features import Features

IMAGENET = timm.data.ImageNetInfo()
NAMES = IMAGENET.label_descriptions()


def listed(name: str) -> list[str]:
    return (resources.files(timm.data) / "_info" / name).read_text().split()


@pytest.mark.parametrize("which", ["a", "r"])
def test_subsets_of_imagenet_are_found_by_id(which: str):
    found = match(listed(f"imagenet_{which}_synsets.txt"), 1000, {})
    assert found.order == list(map(int, listed(f"imagenet_{which}_indices.txt")))
    assert found.note == (
        "probe=pretrained_head: the head's 1 000 classes were restricted to the data's 200, by WordNet id"
    )


def test_only_the_data_s_classes_are_predicted():
    wanted = ["n02007558", "n01440764", "n02099601"]  # in any order
    places = [listed("imagenet_synsets.txt").index(name) for name in wanted]
    head = torch.nn.Linear(5, 1000)
    probe = PretrainedHead().on(torch.device("cpu"), head).matched(wanted, None)
    features = np.random.default_rng(0).normal(size=(200, 2, 5)).astype(np.float32)
    with torch.inference_mode():
        logits = head(torch.from_numpy(features)).numpy()  # (N, P, 1000)
    predicted = probe.fit(Features(features), np.zeros(200, int), 3, 0).predict(Features(features))
    assert (predicted == logits[..., places].argmax(-1).T).all()
    assert len(set(predicted.ravel())) == 3


def test_numbers_are_numbers_and_not_a_place_among_texts():
    """ImageNet-V2 has folders 0 to 999, which sort as 0, 1, 10, 100."""
    assert match(in_order(map(str, range(1000))), 1000, None).order == list(range(1000))
    as_text = sorted(map(str, range(1000)))
    assert match(as_text, 1000, None).order == list(map(int, as_text))
    as_text = sorted(map(str, range(12)))
    assert match(as_text, 12, None).order == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    assert match(as_text, 12, None).note.endswith("classes are matched by their numbers")


def test_names_in_full():
    found = match([NAMES[639], NAMES[0], NAMES[638]], 1000, None)
    assert found.order == [639, 0, 638]
    called_otherwise = ["crane bird" if i == 134 else name for i, name in enumerate(NAMES)]
    assert match(called_otherwise, 1000, None).order == list(range(1000))


def test_larger_sets_have_orders_of_their_own():
    larger = ids_of_outputs(21843)
    assert match(["n02007558", "n01440764"], 21843, None).order == [
        larger.index("n02007558"),
        larger.index("n01440764"),
    ]
    with pytest.raises(
        ToastError, match="the model's 21843 classes are taken for ImageNet's, which have no n04399382: use"
    ):
        match(listed("imagenet_synsets.txt"), 21843, None)


def test_the_model_s_own_names_come_first():
    config = {"label_names": ["cat", "dog", "owl"]}
    assert match(["owl", "cat"], 3, config).order == [2, 0]
    told = "the head's 3 classes were restricted to the data's 2, by the names that the model has for them"
    assert match(["owl", "cat"], 3, config).note == f"probe=pretrained_head: {told}"
    ids = {"label_names": listed("imagenet_synsets.txt")[::-1]}
    assert match(list(map(str, range(1000))), 1000, ids).order == list(range(999, -1, -1))


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (["n01440764", "n99999999"], "which have no n99999999: use the data set it was trained for, or probe=linear"),
        (["crane", NAMES[0]], "has 1000 classes and the data set has 2, whose names are not all WordNet ids or Imag"),
        (["tench", "goldfish"], "whose names are not all WordNet ids or ImageNet-1k's own: use the data set it was"),
        (list(map(str, range(200))), "the model's classifier has 1000 classes and the data set has 200, whose names"),
        ([*map(str, range(1, 1000))], "the model's classifier has 1000 classes and the data set has 999, whose names"),
    ],
)
def test_what_is_not_certain_is_no_match(classes: list[str], told: str):
    with pytest.raises(ToastError, match=told):
        match(classes, 1000, {})
