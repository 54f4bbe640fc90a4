"""``recipe.json``, which says what a model file holds: read as what a stranger wrote, and checked before anything is built.

An export may come from anywhere. Its recipe is data: nothing in it is called, and its sizes are bounded before they are
used.
"""

import hashlib
import json
import re
import reprlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toast_cli.errors import ToastError, is_number
from toast_cli.files import unsealed

if TYPE_CHECKING:
    from torch import Tensor

RECIPE = "recipe.json"
WEIGHTS = "model.safetensors"  # the model file that such a folder usually has
FORMAT = "toast-export-1"
ELASTIC = "toast-elastic-1"  # of an export with several plans
# Far more than any export has: with a map for each token a recipe takes a few megabytes.
_MOST_BYTES, _DEEPEST = 2**24, 40
_MOST_PIXELS_A_SIDE = 10_000
_PATH = re.compile(
    r"(?P<before>(?:[\w-]{2,}:)?)(?P<path>(?:~[^\\/]*|[A-Za-z]:)?[\\/].*)", re.DOTALL
)  # local-dir:/home/me/vit


def read_recipe(folder: Path) -> dict[str, Any]:
    """The recipe of the export in ``folder``. If it has a ``checksum``, that fits; recipes of earlier versions have none.

    Raises ToastError if ``folder`` is no export, or if its recipe is damaged, of another format or was changed.
    """
    file = folder / RECIPE
    if not file.is_file():
        raise ToastError(f"{folder} is not an export: give the folder that toast export wrote, which holds {RECIPE}.")
    recipe = _parsed(file)
    if not isinstance(recipe, dict) or recipe.get("format") not in (FORMAT, ELASTIC):
        raise ToastError(
            f"{file} is not in this version's format, {FORMAT}: use the version that wrote it, or export the model again."
        )
    try:
        unsealed(recipe)
    except ValueError as e:
        raise ToastError(f"{file} was changed after it was written: restore it, or export the model again.") from e
    return recipe


def _parsed(file: Path) -> Any:
    """What a JSON file holds. Raises ToastError if it is no JSON, or larger or deeper than a recipe."""
    with file.open("rb") as opened:
        content = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ToastError(f"{file} is larger than any recipe ({_MOST_BYTES} bytes): it was not written by toast.")
    try:
        parsed = json.loads(content.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as e:
        raise ToastError(f"{file} cannot be read ({type(e).__name__}): export the model again.") from e
    level = [parsed]
    for _ in range(_DEEPEST):
        level = [inside for value in level for inside in _inside(value)]
    if level:
        raise ToastError(f"{file} is nested deeper than any recipe ({_DEEPEST} levels): it was not written by toast.")
    return parsed


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ToastError for a key that is there twice, of which Python would take the last."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ToastError(f"A recipe has the key {reprlib.repr(key)} twice: it was not written by toast.")
        found[key] = value
    return found


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def layers_in(words: Any) -> int:
    """How many layers the words of a recipe describe, those inside others too."""
    count, waiting = 0, [words]
    while waiting:
        value = waiting.pop()
        count += isinstance(value, dict)
        waiting.extend(_inside(value))
    return count


def intact(file: Path, recipe: dict[str, Any]) -> Path:
    """``file``, a model file. Raises ToastError if it is not the one that ``recipe`` was written for.

    Recipes of earlier versions know only safetensors files.
    """
    if not file.is_file():
        raise ToastError(f"{file} is missing: restore it, or export the model again.")
    if recipe.get("weights") not in (None, checksum(file)):
        raise ToastError(
            f"{file} is not the file that {RECIPE} was written for: it was changed or cut short; export the model again."
        )
    return file


def checksum(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def checksum_of(tensor: "Tensor") -> str:
    """The SHA-256 of a tensor on the CPU, its dtype and its shape, in hexadecimal."""
    import torch

    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def without_folders(value: Any) -> Any:
    """``value``, which JSON can hold, with every absolute path in its texts cut to its last name: an export may go to strangers."""
    if isinstance(value, dict):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    found = _PATH.fullmatch(value) if isinstance(value, str) else None
    return value if found is None else found["before"] + re.split(r"[\\/]", found["path"].rstrip("\\/"))[-1]


def check_config(config: Any) -> None:
    """Check what a recipe says of preprocessing and classes; entries may be missing.

    Raises ToastError for entries that toast does not write: timm would take from them where to fetch weights, or images of
    any size.
    """
    if not isinstance(config, dict):
        raise ToastError(f"The recipe's pretrained_cfg is {reprlib.repr(config)}: it must describe the preprocessing.")
    for key, value in config.items():
        if key not in _FITS or not _FITS[key](value):
            raise ToastError(
                f"The recipe's pretrained_cfg has {reprlib.repr(key)}: {reprlib.repr(value)}, which toast does not write: export the model again."
            )
    side = max(config.get("input_size", [1])) / config.get("crop_pct", 1)
    if side > _MOST_PIXELS_A_SIDE:
        raise ToastError(
            f"The recipe's pretrained_cfg resizes images to {side:.0f} pixels a side, and {_MOST_PIXELS_A_SIDE} is the most: export the model again."
        )
    names = config.get("label_names")
    if names is not None and config.get("num_classes") != len(names):
        raise ToastError(
            f"The recipe names {len(names)} classes for a model of {config.get('num_classes')}: export the model again."
        )


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (1, 3, 4) and all(map(is_number, value))


def _size(value: Any) -> bool:
    sides = value[1:] if isinstance(value, list) and value[:1] in ([1], [3], [4]) else []
    return len(sides) == 2 and all(type(side) is int and 1 <= side <= _MOST_PIXELS_A_SIDE for side in sides)


_FITS: dict[str, Callable[[Any], bool]] = {
    "architecture": lambda value: isinstance(value, str),
    "input_size": _size,
    "interpolation": lambda value: value in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"),
    "crop_pct": lambda value: is_number(value) and value > 0,
    "crop_mode": lambda value: value in ("center", "squash", "border"),
    "mean": _numbers,
    "std": lambda value: _numbers(value) and min(value) > 0,
    "num_classes": lambda value: type(value) is int and value >= 0,
    "label_names": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
}
