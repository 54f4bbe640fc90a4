"""Where weights lie: the file that a path, a folder or a name inside a package stands for. Reads none of it."""

import importlib.util
from pathlib import Path

from toast_cli.errors import ToastError
from toast_cli.folders import typed_path

_PACKAGE = "pkg://"
INDEX = ".index.json"
# What a folder may hold, the best first.
IN_A_FOLDER = tuple(
    f"{stem}{end}" for stem, end in (("model", ".safetensors"), ("open_clip_model", ".safetensors"), ("pytorch_model", ".bin"))
    for end in (end, end + INDEX)
)  # fmt: skip


def file_of(checkpoint: str, given: str) -> Path:
    """The file that is read for a path, which may be a folder with weights. Raises ToastError if there is none."""
    path = checkpoint_path(checkpoint)
    if path.is_dir():
        path = next((path / name for name in IN_A_FOLDER if (path / name).is_file()), path)
    if not path.is_file():
        told = f"is a folder without {IN_A_FOLDER[0]}" if path.is_dir() else "is not a file"
        raise ToastError(f"{given} {told}: give the path of a safetensors or torch weights file.")
    return path


def checkpoint_path(checkpoint: str) -> Path:
    """The file that ``model.checkpoint`` names; ``pkg://toast_cli/…`` is inside the installed package.

    Raises ToastError for a package that is not installed.
    """
    if checkpoint.startswith(_PACKAGE):
        package, _, inside = checkpoint.removeprefix(_PACKAGE).partition("/")
        folders = _folders_of(package)
        if not folders:
            raise ToastError(
                f"model.checkpoint={checkpoint} does not name an installed package: write pkg://<package>/<file>."
            )
        return Path(folders[0]) / inside
    return typed_path(checkpoint)


def _folders_of(package: str) -> list[str]:
    """Where a package lies, found without importing it: its code may be a stranger's. Empty for anything else."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    return list((spec.submodule_search_locations if spec else None) or [])
