"""ImageNet's classes as timm lists them: WordNet ids in the order of a classifier's outputs."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from timm.data import ImageNetInfo
from timm.data.imagenet_info import infer_imagenet_subset

_ID = re.compile(r"n\d{8}")
_CLASSES = 1000
_SURE = 0.99  # of all names at their places


@cache
def _info(subset: str) -> ImageNetInfo:
    return ImageNetInfo(subset)


def ids_of_outputs(outputs: int) -> list[str]:
    """The WordNet ids of the outputs of a classifier with as many ``outputs`` as ImageNet-1k, or as one of the larger sets, has classes; none if
    no set of ImageNet's has as many."""
    subset = infer_imagenet_subset({"num_classes": outputs})
    return [] if subset is None else list(_info(subset).label_names())


def ids_of_classes(names: Sequence[str]) -> list[str] | None:
    """The WordNet id of each of the different classes ``names``; None unless all are certain.

    They may be ids already (n01440764), all of ImageNet-1k's numbers (0 to 999, in any order), its names in full (``tench, Tinca
    tinca``), or all of its names in its order, of which a few may be spelt otherwise: two classes are called ``crane``.
    """
    if names and all(_ID.fullmatch(name) for name in names):
        return list(names)
    ids = _info("imagenet-1k").label_names()
    if sorted(names) == sorted(map(str, range(_CLASSES))):
        return [ids[int(name)] for name in names]
    full = _info("imagenet-1k").label_descriptions()
    if len(names) == _CLASSES and sum(map(str.__eq__, names, full)) >= _SURE * _CLASSES:
        return list(ids)
    often = Counter(full)
    known = {name: wordnet for name, wordnet in zip(full, ids, strict=True) if often[name] == 1}
    return [known[name] for name in names] if names and all(name in known for name in names) else None
