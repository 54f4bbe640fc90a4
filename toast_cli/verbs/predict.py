"""``toast predict``: the classes that an exported model sees in image files."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toast_cli.errors import Parser, ToastError

if TYPE_CHECKING:
    from torch import Tensor

    from toast_cli.models.preprocessing import Transform
    from toast_cli.surgery.formats import Format

USAGE = "predict <export> <images>"
SUMMARY = "the classes that an exported model sees in files"
_BATCH = 16
_MAX_PIXELS = "--max-pixels"


def main(argv: list[str]) -> None:
    """Print the classes of the given images."""
    parser = Parser(
        prog="toast predict",
        description="The classes that an exported model sees in image files.",
        epilog="example: toast predict outputs/export/<model> photo.jpg holidays/ --top 3",
    )
    parser.add_argument(
        "export",
        help="the folder that toast export wrote, or <user>/<name> of one on the Hugging Face hub; a folder of that name comes first",
    )
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of images")
    parser.add_argument("--top", type=int, default=5, help="how many classes (default: %(default)s)")
    parser.add_argument(
        _MAX_PIXELS,
        type=int,
        default=100_000_000,
        help="an image with more pixels is left out (default: %(default)s)",
    )
    parser.add_argument("--plan", help="which plan of an export that holds several")
    args = parser.parse_args(argv)
    predict(args.export, args.images, args.top, args.max_pixels, args.plan)


def predict(given: str | Path, paths: Iterable[Path], top: int, max_pixels: int, plan: str | None = None) -> None:
    """Print the ``top`` classes of every image with their probabilities, as the export that is ``given`` sees them, or the ``plan``
    of it.

    A file that is not an image, or one with more than ``max_pixels``, is reported and left out.

    Raises ToastError if all are, if the export has no classes, or if it does not give one number for each class.
    """
    from rich.table import Table

    from toast_cli.data.allowed import require_pixels
    from toast_cli.hub.listening import listening
    from toast_cli.machine.console import say
    from toast_cli.report.screen import wide_console
    from toast_cli.surgery.fetched import Export
    from toast_cli.surgery.formats import read_plan
    from toast_cli.surgery.recipe import read_recipe

    with listening(say):
        found = Export.find(given)
    export = found.folder
    recipe = read_recipe(export)
    config, names = _classes(recipe, export)
    if top < 1:
        raise ToastError(f"--top {top} cannot be used: give a whole number from 1.")
    require_pixels(max_pixels, f"{_MAX_PIXELS} ")
    form = _format(recipe, export)
    named, bad = _files(paths)

    from toast_cli.surgery.elastic import is_elastic
    from toast_cli.surgery.saved import of_one

    of_one(export, recipe, plan)  # refuses a plan that is not there, before anything is fetched
    transform = _transform(config, export)
    with listening(say):
        found.require(form.file)
    runs = read_plan(export, plan) if is_elastic(recipe) else form.read(export)
    table = Table("image", *(f"{place}." for place in range(1, min(top, len(names)) + 1)))
    for files, images in _batches(named, transform, max_pixels, bad):
        outputs = runs(images)
        if outputs.shape != (len(files), len(names)) or not outputs.isfinite().all():
            raise ToastError(
                f"{export / form.file} does not give one finite number for each of its {len(names)} classes: export the model again."
            )
        for file, chances in zip(files, outputs.softmax(-1), strict=True):
            values, classes = chances.topk(min(top, len(names)))
            best = zip(classes.tolist(), values.tolist(), strict=True)
            table.add_row(str(file), *(f"{names[i]} {100 * p:.1f}%" for i, p in best))
    for told in bad:
        say(told)
    if not table.row_count:
        raise ToastError(f"None of the {len(named)} files is an image that can be decoded.")
    wide_console().print(table, crop=False)


def _classes(recipe: Mapping[str, Any], export: Path) -> tuple[dict[str, Any], list[str]]:
    """timm's config of the exported model, and the names of its classes. Raises ToastError if it has none."""
    from toast_cli.surgery.recipe import check_config

    config = recipe.get("pretrained_cfg")
    names = config.get("label_names") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not names:
        raise ToastError(f"{export} was exported with head=none and names no classes: export it with head=probe.")
    check_config(config)
    return config, names


def _format(recipe: Mapping[str, Any], export: Path) -> "Format":
    from toast_cli.surgery.formats import FORMATS
    from toast_cli.surgery.recipe import RECIPE

    form = next((form for form in FORMATS.values() if form.file == recipe.get("file")), None)
    if form is None:
        raise ToastError(f"{export / RECIPE} names no model file that toast export writes: export the model again.")
    if form.executes:  # torch.export.load falls back on pickle and evaluates expressions
        raise ToastError(
            f"{export / form.file} is not opened, since torch.export.load executes what such a file may hold: export with format=safetensors "
            "or onnx for toast predict, or load it yourself if you wrote it."
        )
    return form


def _transform(config: Mapping[str, Any], export: Path) -> "Transform":
    from toast_cli.models.preprocessing import to_input
    from toast_cli.surgery.recipe import RECIPE

    try:
        return to_input(config)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise ToastError(
            f"{export / RECIPE} describes no preprocessing ({type(e).__name__}: {e}): export the model again."
        ) from e


def _files(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The image files that are named or lie in a folder that is named, and a sentence for each folder with other files."""
    from toast_cli.data.class_folders import find_images, told

    files: list[Path] = []
    notes: list[str] = []
    for path in paths:
        if not path.exists():
            raise ToastError(f"{path} does not exist: give image files or folders of images.")
        if path.is_dir():
            found = find_images(path)
            files += [path / file for file in found.files]
            notes += told(path, found)
            if found.hidden:
                notes.append(
                    f"{path}: {len(found.hidden)} images in hidden folders are left out, {found.hidden[0]} among them"
                )
        else:
            files.append(path)
    if not files:
        others = f" ({'; '.join(notes)})" if notes else ""
        raise ToastError(f"{', '.join(map(str, paths))} holds no image files{others}: give others.")
    return files, notes


def _batches(
    files: list[Path], transform: "Transform", max_pixels: int, bad: list[str]
) -> "Iterator[tuple[list[Path], Tensor]]":
    """Files with their normalised images (N, 3, H, W); ``bad`` collects what is wrong with the others."""
    import torch

    from toast_cli.data.decoding import UNDECODABLE, read_image, reason

    for start in range(0, len(files), _BATCH):
        good, images = [], []
        for file in files[start : start + _BATCH]:
            try:
                image = read_image(file, max_pixels, f"{_MAX_PIXELS} ", getattr(transform, "bands", 3))
            except UNDECODABLE as e:
                bad.append(f"{file} cannot be decoded and is left out: {reason(e)}")
                continue
            images.append(transform(image))
            good.append(file)
        if good:
            yield good, torch.stack(images)
