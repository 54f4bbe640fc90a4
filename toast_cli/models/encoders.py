"""Which of the tensors in a file are a vision transformer's: found by their names, whatever stands before these."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from toast_cli.errors import ToastError
from toast_cli.models.layouts import LAYOUTS, Layout, Weights, converted

TIMM = Layout("timm", (), ())
# The words of a prefix that make its weights more or less wanted. Training keeps a running mean of the weights, or a teacher that
# is one, since it is better than the weights themselves.
_WORDS = {"ema": 3, "teacher": 2, "target": 2, "student": 0}
_USUAL = 1
_BESIDE = re.compile(r"^(decoder[._]|masked_embed$)")  # parts that only pre-training needs
_CHUNK = re.compile(r"(^|\.)blocks\.\d+\.(\d+)\.")  # blocks that were trained in groups
_WHOLE = ("state_dict_ema", "model_ema", "state_dict", "model")


@dataclass(frozen=True)
class Encoder:
    """The weights of an encoder under names that timm knows, and what a person should know of the choice."""

    weights: Weights
    layout: Layout
    notes: tuple[str, ...] = ()


def encoder_in(tensors: Mapping[str, Tensor], own: Collection[str], given: str) -> Encoder:
    """The encoder among ``tensors``; ``own`` are the names of the model's weights, and ``given`` is what the user gave.

    If a file holds several, a running mean (EMA) or a teacher is taken, and a note says so. Raises ToastError if it is not
    clear which.
    """
    tensors = {_CHUNK.sub(r"\1blocks.\2.", name): tensor for name, tensor in tensors.items()}
    places = dict(_places(tensors, own))
    if not places:
        return Encoder(_whole(tensors), TIMM)  # timm's filter may know them
    first, *others = sorted(places, key=_rank)
    best = [prefix for prefix in places if _rank(prefix) == _rank(first)]
    if len(best) > 1:
        raise ToastError(
            f"{given} holds several models, under {' and '.join(map(_shown, best[:4]))}: save the weights of one of them, without that prefix, "
            "to a file of their own with safetensors.torch.save_file."
        )
    inside = {name.removeprefix(first): tensor for name, tensor in tensors.items() if name.startswith(first)}
    outside = {name: tensor for name, tensor in tensors.items() if not name.startswith(first)}
    parents = first.rstrip(".").rpartition(".")[0]
    near = {name.removeprefix(f"{parents}.") if parents else name: tensor for name, tensor in outside.items()}
    inside = {name: tensor for name, tensor in inside.items() if not _BESIDE.match(name)}
    notes = (
        [f"{given} holds several models: {_shown(first)} was taken, not {' or '.join(map(_shown, others))}"]
        if others
        else []
    )
    return Encoder(converted(places[first], inside, near), places[first], tuple(notes))


def _places(tensors: Mapping[str, Tensor], own: Collection[str]) -> Iterator[tuple[str, Layout]]:
    """The prefixes that stand before an encoder's names, and the layout of these."""
    blocks = [name for name in own if name.startswith("blocks.0.")]
    mark = "blocks.0.norm1.weight" if "blocks.0.norm1.weight" in blocks else blocks[0]
    for layout in (Layout(TIMM.name, (mark,), ()), *LAYOUTS):
        for name in tensors:
            prefix = name.removesuffix(layout.marks[0])
            if name != prefix and prefix[-1:] in ("", ".") and all(prefix + each in tensors for each in layout.marks):
                yield prefix, layout


def _rank(prefix: str) -> int:
    """The lower, the rather."""
    words = re.split(r"[._]", prefix)
    return -max((_WORDS[word] for word in words if word in _WORDS), default=_USUAL)


def _shown(prefix: str) -> str:
    return prefix.rstrip(".") or "its top level"


def _whole(tensors: Mapping[str, Tensor]) -> Weights:
    """All tensors, without the names of what training scripts and wrappers put around a model."""
    around = next((f"{name}." for name in _WHOLE if any(each.startswith(f"{name}.") for each in tensors)), "")
    inside = {name.removeprefix(around): tensor for name, tensor in tensors.items() if name.startswith(around)}
    return {re.sub(r"^((module|_orig_mod)\.)+", "", name): tensor for name, tensor in inside.items()}
