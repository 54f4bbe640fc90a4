"""``toast predict``: an exported model at work on image files."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from timm.data import create_transform
from torch import Tensor

from toast_cli.errors import ToastError
from toast_cli.formats import FORMATS
from toast_cli.images import UNDECODABLE, Transform, to_rgb
from toast_cli.saved import RECIPE, read_recipe
from toast_cli.screen import wide_console

_BATCH = 16
_PREPROCESSING = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")


def predict(export: Path, paths: Iterable[Path], top: int) -> None:
    """Print the ``top`` classes of every image with their chances. Raises ToastError for an export without classes, or no image.

    A file that is no image is named and left out; if all are, that is an error.
    """
    recipe = read_recipe(export)
    config = recipe.get("pretrained_cfg")
    names = config.get("label_names") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not names:
        raise ToastError(f"{export} was exported with head=none and names no classes: export it with head=probe.")
    if top < 1:
        raise ToastError(f"--top {top} cannot be used: give a whole number from 1.")
    form = next((form for form in FORMATS.values() if form.file == recipe.get("file")), None)
    if form is None:
        raise ToastError(f"{export / RECIPE} names no model file that toast export writes: export the model again.")
    if form.executes:  # torch.export.load falls back on pickle and evaluates expressions
        raise ToastError(
            f"{export / form.file} is not opened, since torch.export.load executes what such a file may hold: export with format=safetensors "
            "or onnx for toast predict, or load it yourself if you wrote it."
        )
    try:
        transform = create_transform(**{key: config[key] for key in _PREPROCESSING})
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise ToastError(
            f"{export / RECIPE} describes no preprocessing ({type(e).__name__}: {e}): export the model again."
        ) from e
    runs = form.read(export)
    table = Table("image", *(f"{place}." for place in range(1, min(top, len(names)) + 1)))
    bad: list[str] = []
    for files, images in _batches(_files(paths), transform, bad):
        for file, chances in zip(files, runs(images).softmax(-1), strict=True):
            best = chances.topk(min(top, len(names)))
            table.add_row(
                str(file), *(f"{names[i]} {100 * p:.1f}%" for p, i in zip(*map(Tensor.tolist, best), strict=True))
            )
    for told in bad:
        Console(stderr=True, highlight=False, markup=False).print(told, soft_wrap=True)
    if not table.row_count:
        raise ToastError(f"None of the {len(bad)} files is an image that can be decoded.")
    wide_console().print(table, crop=False)


def _files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ToastError(f"{path} does not exist: give image files or folders of such.")
        endings = Image.registered_extensions()
        found += sorted(file for file in path.rglob("*") if file.suffix.lower() in endings) if path.is_dir() else [path]
    if not found:
        raise ToastError(f"{', '.join(map(str, paths))} holds no image files: give others.")
    return found


def _batches(files: list[Path], transform: Transform, bad: list[str]) -> Iterator[tuple[list[Path], Tensor]]:
    """Files with their normalised images (N, 3, H, W); ``bad`` collects what is wrong with others."""
    for start in range(0, len(files), _BATCH):
        good, images = [], []
        for file in files[start : start + _BATCH]:
            try:
                with Image.open(file) as image:
                    images.append(transform(to_rgb(image)))
                good.append(file)
            except UNDECODABLE as e:
                bad.append(f"{file} cannot be decoded and is left out: {' '.join(str(e).split())}")
        if good:
            yield good, torch.stack(images)
