"""Which outputs of a model's own classifier are the classes of a data set.

Shapes: C classes of the data set, O outputs of the classifier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toast_cli.errors import ToastError, did_you_mean
from toast_cli.models.imagenet import ids_of_classes, ids_of_outputs

_TOLD = "probe=pretrained_head"
_OTHERWISE = "use the data set it was trained for, or probe=linear"


@dataclass(frozen=True)
class Match:
    """``order`` holds the output of each class (C,), and ``note`` says how they were found."""

    order: list[int]
    note: str


def match(classes: Sequence[str], outputs: int, config: object) -> Match:
    """The outputs of data with these ``classes`` among as many ``outputs``; ``config`` is timm's of the model, which may name them.

    Names come first: the model's own, else ImageNet's WordNet ids if the classifier has as many outputs as ImageNet has classes. Data
    may have fewer classes than the model then. Numbers from 0 to O − 1 are taken as the outputs' own. Without names there have to be as
    many classes as outputs, and their order counts. Raises ToastError if classes are others or cannot be matched for certain.
    """
    names, ids = _own_names(config), ids_of_outputs(outputs)
    if len(set(names)) == outputs:
        missing = [name for name in classes if name not in names]
        known, found = (ids_of_classes(names), ids_of_classes(classes)) if missing else (None, None)
        if known is not None and found is not None:
            return _by_wordnet(classes, found, known)
        if missing:
            raise ToastError(
                f"{_TOLD}: the model has no class {missing[0]}{did_you_mean(missing[0], names)}: use the data set it was trained "
                "for, give the classes the model's names, or use probe=linear."
            )
        return _by_name(classes, names, "the names that the model has for them")
    found = ids_of_classes(classes) if ids else None
    if found is not None:
        return _by_wordnet(classes, found, ids)
    if sorted(classes) == sorted(map(str, range(outputs))):
        order = [int(name) for name in classes]
        return Match(order, _in_order(classes) if order == sorted(order) else _told(classes, outputs, "their numbers"))
    require_as_many(len(classes), outputs)
    return Match(list(range(outputs)), _in_order(classes))


def require_as_many(classes: int, outputs: int) -> None:
    """Raises ToastError unless the classifier has as many outputs as the data has classes."""
    if classes != outputs:
        why = ", whose names are not all WordNet ids or ImageNet-1k's own" if ids_of_outputs(outputs) else ""
        raise ToastError(
            f"{_TOLD}: the model's classifier has {outputs} classes and the data set has {classes}{why}: {_OTHERWISE}."
        )


def _own_names(config: object) -> list[str]:
    stored = config.get("label_names") if isinstance(config, Mapping) else None
    return [str(name) for name in stored] if isinstance(stored, list | tuple) else []


def _by_wordnet(classes: Sequence[str], found: Sequence[str], ids: Sequence[str]) -> Match:
    there = set(ids)
    missing = [name for name, wordnet in zip(classes, found, strict=True) if wordnet not in there]
    if missing:
        raise ToastError(
            f"{_TOLD}: the model's {len(ids)} classes are taken for ImageNet's, which have no {', '.join(missing[:5])}{', …' * (len(missing) > 5)}: "
            f"{_OTHERWISE}."
        )
    return _by_name(found, ids, "WordNet id")


def _by_name(wanted: Sequence[str], names: Sequence[str], by: str) -> Match:
    place = {name: i for i, name in enumerate(names)}
    return Match([place[name] for name in wanted], _told(wanted, len(names), by))


def _told(classes: Sequence[str], outputs: int, by: str) -> str:
    if len(classes) == outputs:
        return f"{_TOLD}: classes are matched by {by}"
    return f"{_TOLD}: the head's {_grouped(outputs)} classes were restricted to the data's {_grouped(len(classes))}, by {by}"


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _in_order(classes: Sequence[str]) -> str:
    numbered = [f"{name} is {i}" for i, name in enumerate(classes)]
    told = ", ".join(numbered if len(numbered) < 5 else [*numbered[:3], "…", numbered[-1]])
    return f"{_TOLD}: the model does not name its classes, so the data's are numbered in their order: {told}"
