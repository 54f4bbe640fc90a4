"""An export on this disk, brought to a repository of the hub: the files that toast wrote, and no others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toast_cli.errors import ToastError
from toast_cli.hub.listening import listening
from toast_cli.hub.pushing import Target, licence_of, push
from toast_cli.machine.console import say
from toast_cli.models.origin import origin_of
from toast_cli.report.card import CARD, write_card
from toast_cli.report.quantised import COMPARISON
from toast_cli.room import in_words
from toast_cli.runs.folder import Folder
from toast_cli.stages.exporting import Settings
from toast_cli.surgery.formats import FORMATS
from toast_cli.surgery.recipe import RECIPE, checksum, intact, read_recipe
from toast_cli.surgery.standalone import CONFIG, MODELING


def publish(out: Path, run: Path, settings: Settings) -> list[str]:
    """Push the export in ``out``, made from the ``run``, as ``settings`` say; returns what would go up if nothing may.

    Its card is written anew, with the repository's name. Raises ToastError for files that were changed since they were
    compared, and for whatever the hub refuses.
    """
    name = str(settings.push)
    recipe = read_recipe(out)
    beside = _beside(out, recipe)
    if not write_card(out, run, name, _licence(run)):
        say(f"note: {out / CARD} was edited and goes up as it is")
    files = _files(out, recipe, [FORMATS[settings.format].file, *beside])
    if settings.dry:
        return _told(name, files, settings.private)
    with listening(say):
        again = "the same command" + " without fresh=true" * settings.fresh
        kept = f"the export is in {out}, and {again} pushes it without making it again"
        address = push(Target(name, settings.private, kept), files)
    say(f"pushed {len(files)} files, {in_words(_bytes(files))}: {address}")
    return []


def _licence(run: Path) -> str | None:
    """What the hub says of the base model's licence, where timm does not."""
    origin = origin_of(Folder(run).settings["model"])
    return licence_of(origin.repository) if origin.repository and not origin.licence else None


def _beside(out: Path, recipe: Mapping[str, Any]) -> list[str]:
    """The names of the files beside the model's that the recipe knows. Raises ToastError if one was changed."""
    beside = recipe.get("beside", {})
    for name in beside:
        if (
            name not in (CONFIG, MODELING, COMPARISON)
            or not (out / name).is_file()
            or checksum(out / name) != beside[name]
        ):
            raise ToastError(
                f"{out / name} is not as toast wrote it: restore it, or export the model again with fresh=true."
            )
    return list(beside)


def _files(out: Path, recipe: Mapping[str, Any], names: Sequence[str]) -> dict[str, Path]:
    """The files of an export: its card, its recipe, and those of the ``names``, the model's first.

    Raises ToastError if that was changed, or if one is a link.
    """
    files = {name: out / name for name in (CARD, RECIPE, *names)}
    intact(out / names[0], dict(recipe))
    for file in files.values():
        if file.is_symlink():  # to whatever whoever made the folder would like to read
            raise ToastError(f"{file} is a link, which is not pushed: put the file itself in its place.")
    return files


def _bytes(files: Mapping[str, Path]) -> int:
    return sum(file.stat().st_size for file in files.values())


def _told(name: str, files: Mapping[str, Path], private: bool) -> list[str]:
    """What would go up, line by line."""
    kind = "private" if private else "public"
    width = max(map(len, files))
    return [
        f"would upload {len(files)} files, {in_words(_bytes(files))}, to {name}, made {kind} if it is not there",
        *(f"  {file:<{width}}  {in_words(path.stat().st_size)}" for file, path in files.items()),
    ]
