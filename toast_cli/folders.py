"""All files below a folder as a person sees them: links are followed, and what other programs leave behind is left out."""

import glob
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from toast_cli.errors import ToastError

# Folders that other programs leave beside files, or with copies of them inside.
_CLUTTER = (".git", ".ipynb_checkpoints", ".thumbnails", ".AppleDouble", "__MACOSX", "__pycache__", "@eaDir",
            "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")  # fmt: skip
_TRASH = ".Trash"  # .Trash, .Trashes, .Trash-1000
_TAR = re.compile(r"\.(tar|tgz|tbz2?|txz)$|\.tar\.\w+$")


@dataclass(frozen=True)
class Found:
    """Files below a folder, as paths from there in the order of these texts.

    ``hidden``: those wanted in folders whose name begins with a dot; ``left_out``: how many others have which ending.
    """

    files: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def find(root: Path, wanted: Callable[[str], bool]) -> Found:
    """The files below ``root`` whose names are ``wanted``. Hidden files and clutter are not.

    Raises OSError for a folder that cannot be listed, and ToastError for a link that leads back.
    """
    found = Found()
    for inside in files_below(root, clutter=False):
        *folders, name = inside.split("/")
        if name.startswith(".") or not wanted(name):
            found.left_out[_ending(name)] += 1
        elif any(folder.startswith(".") for folder in folders):
            found.hidden.append(inside)
        else:
            found.files.append(inside)
    found.files.sort()
    found.hidden.sort()
    return found


def files_below(root: Path, clutter: bool = True) -> Iterator[str]:
    """The files below ``root``, as paths from there in no order; links are followed, and broken ones are files too.

    Pipes and sockets are passed by: from these a reader would wait for ever. So are, without ``clutter``, folders that
    other programs leave behind. Raises OSError for a folder that cannot be
    listed, and ToastError for a link that leads back to a folder that it is in.
    """

    def visit(place: str, inside: str, above: Mapping[tuple[int, int], str]) -> Iterator[str]:
        for entry in os.scandir(place):
            if not _is_folder(entry):
                if entry.is_symlink() or entry.is_file():
                    yield inside + entry.name
            elif clutter or not (entry.name in _CLUTTER or entry.name.startswith(_TRASH)):
                if entry.is_symlink() and (back := above.get(_identity(entry.path))):
                    raise ToastError(
                        f"{entry.path} is a link back to {back}, so that the folder has no end: remove the link."
                    )
                below = {**above, _identity(entry.path): entry.path}
                yield from visit(entry.path, f"{inside}{entry.name}/", below)

    yield from visit(str(root), "", {_identity(str(root)): str(root)})


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116  # this is called for every folder of a large set
    return status.st_dev, status.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _ending(name: str) -> str:
    if name.startswith("._"):
        return "._*"  # what macOS keeps beside a file on other disks
    if name.startswith("."):
        return name
    return PurePosixPath(name).suffix.lower() or "without an ending"


def in_words(left_out: Mapping[str, int]) -> str:
    """``3 .json, 2 .heic, 1 without an ending``: how many files have which ending, the most frequent first."""
    most = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {ending}" for ending, count in most[:12]) + ", …" * (len(most) > 12)


def as_text(name: str) -> str:
    """A file's name as text that any file can hold: ``as_utf8``, and composed (NFC)."""
    return unicodedata.normalize("NFC", as_utf8(name))


def as_utf8(name: str) -> str:
    """What the system has given as a name, with bytes that are not UTF-8 written out, such as ``\\xe9``."""
    return os.fsencode(name).decode(errors="backslashreplace")


def child(folder: Path, name: str) -> Path:
    """What is called ``name`` in ``folder``, even if the disk spells it in another Unicode form."""
    exact = folder / name
    if exact.exists() or not folder.is_dir():
        return exact
    return next((path for path in folder.iterdir() if as_text(path.name) == as_text(name)), exact)


def require_data(path: Path, key: str = "data.path") -> None:
    """Raises ToastError unless ``path``, which was given as the setting ``key``, is a folder or a pattern of tar files."""
    if not path.is_dir() and not tar_files(path):
        raise ToastError(
            f"{key}={path} is not a folder: give one with an image folder, parquet files, tar files or a saved data set, or a pattern such as "
            "'shards/*.tar'."
        )


def tar_files(pattern: Path) -> list[str]:
    """The tar files, compressed ones too, that a pattern such as ``shards/*.tar`` stands for, in the order of their names."""
    return sorted(file for file in glob.glob(str(pattern)) if _TAR.search(file) and os.path.isfile(file))  # noqa: PTH113, PTH207


def typed_path(text: object) -> Path:
    """The path that a person has typed: ``~`` is the home folder, and ``~x`` that of user x or, without one, a name."""
    return Path(os.path.expanduser(str(text)))  # noqa: PTH111  # Path.expanduser refuses a user that there is not


def from_here(path: Path) -> str:
    """The path as one types it from the current folder: relative if it is below, else absolute."""
    whole = path.absolute()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)
