"""A file of text embeddings: what each class is called, and where CLIP's text tower puts its prompts.

Shapes: C classes, P prompts of a class, E numbers of an embedding.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from toast_cli.data.class_names import composed
from toast_cli.errors import ToastError, reraise_disk
from toast_cli.folders import typed_path

TEXT, SCALE, CLASSES = "text", "scale", "classes"  # tensors, and the key of the metadata
_MAKE = "make one with scripts/text_embeddings.py"


@dataclass(frozen=True)
class Texts:
    """One direction for each class: ``directions`` float32 (C, E), each of length 1.

    ``names`` are the C class names, None if the file has none; ``scale`` is what cosines are multiplied by; ``checksum`` is that
    of the file.
    """

    directions: Tensor
    names: tuple[str, ...] | None
    scale: float
    checksum: str


def read_texts(given: object) -> Texts:
    """The embeddings in a safetensors file: ``text`` (C, E) or (C, P, E), ``scale`` (1) if it has one, and the names of the classes, a JSON
    list in its metadata under ``classes``, if it has any.

    Several prompts of a class are averaged as Radford et al. (2021) do: each is brought to length 1, and so is their mean. Raises
    ToastError for a file that is missing or holds something else.
    """
    if given is None:
        raise ToastError(
            f"probe=zero_shot compares images with text embeddings: give probe.text=<file>.safetensors; {_MAKE}."
        )
    path = typed_path(str(given))
    told = f"probe.text={path}"
    if not path.is_file():
        raise ToastError(f"{told} is not a file: give a safetensors file of text embeddings; {_MAKE}.")
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no dict
            metadata = opened.metadata() or {}
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except (SafetensorError, OSError) as e:
        reraise_disk(e)
        raise ToastError(f"{told} cannot be read as a safetensors file ({str(e)[:100]}): {_MAKE}.") from e
    directions = _directions(tensors, told)
    return Texts(directions, _names(metadata, len(directions), told), _scale(tensors, told), checksum)


def _directions(tensors: Mapping[str, Tensor], told: str) -> Tensor:
    """One direction for each class, float32 (C, E)."""
    text = tensors.get(TEXT)
    if text is None or text.ndim not in (2, 3) or not text.is_floating_point() or 0 in text.shape:
        held = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()) or "nothing"
        raise ToastError(
            f"{told} holds {held}: it must hold a tensor {TEXT} of floating point numbers, (classes, width) or (classes, prompts, width); {_MAKE}."
        )
    lengths = text.double().norm(dim=-1)
    if not (lengths.isfinite() & (lengths > 0)).all():
        raise ToastError(f"{told} has an embedding that is 0 or not finite: {_MAKE}.")
    directions = F.normalize(text.double(), dim=-1)
    if directions.ndim == 3:
        directions = F.normalize(directions.mean(dim=1), dim=-1)
    return directions.float()


def _names(metadata: Mapping[str, str], count: int, told: str) -> tuple[str, ...] | None:
    """The names of so many classes, in Unicode's composed form as those of data sets are; None if there are none."""
    if CLASSES not in metadata:
        return None
    try:
        found = json.loads(metadata[CLASSES])
    except ValueError:
        found = None
    names = composed(found) if isinstance(found, list) and all(isinstance(name, str) for name in found) else []
    if len(names) != count or len(set(names)) != count:
        raise ToastError(
            f"{told} has embeddings of {count} classes, and its metadata does not name as many different ones under {CLASSES!r}: write a JSON "
            "list of names there, or none for classes in the data set's order."
        )
    return tuple(names)


def _scale(tensors: Mapping[str, Tensor], told: str) -> float:
    """What cosines are multiplied by: 1 unless the file says otherwise."""
    given = tensors.get(SCALE, torch.ones(1))
    if given.numel() != 1 or not 0 < given.double().item() < float("inf"):
        raise ToastError(
            f"{told} has a {SCALE} that is no number above 0: write what cosines are multiplied by, such as 100."
        )
    return float(given.double().item())
