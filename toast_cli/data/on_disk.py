"""What lies in the folder ``data.path``: image folders, parquet files, tar files, or a saved data set."""

import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import pyarrow.parquet as pq

from toast_cli.data.class_folders import read_class_folders
from toast_cli.data.streamed import Rows, StreamedRows
from toast_cli.data.tar_shards import TarRows, class_names
from toast_cli.errors import ToastError, did_you_mean, reraise_disk
from toast_cli.folders import as_text, child, require_data, tar_files

_DESCRIBED = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # the hub's own tables of images, with file names
_WITHOUT_NUMBER = re.compile(r"[\W_]*\d.*")  # of a shard: train-000012


def read_path(path: Path, names: Sequence[str], streaming: bool) -> Mapping[str, Rows]:
    """The stored splits called ``names``; with ``streaming``, parquet files are read in place. Tar files always are.

    ``path`` is a folder, or a pattern of tar files. Raises ToastError for one that does not hold them or cannot be read.
    """
    require_data(path)
    try:
        saved = {state.parent.name: state.parent for state in sorted(path.glob("*/state.json"))}
        if saved:
            return _read_saved(path, saved, names)
        parquet = _find_parquet(path, names) if path.is_dir() else {}
        if not any(parquet.values()) and (shards := _find_shards(path, names)):
            classes = class_names(next(folder for folder in (path, *path.parents) if folder.is_dir()))
            return {name: TarRows(found, classes) for name, found in shards.items()}
        _require_splits(path, names, parquet)
        if any(parquet.values()):
            return _read_parquet(parquet, streaming)
        splits = {name: _read_images(child(path, name), name) for name in names}
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as e:
        reraise_disk(e)
        if "corresponds to no data" in str(e):
            raise ToastError(f"data.path={path} has an empty split ({e}): it must hold at least one image.") from e
        raise ToastError(
            f"data.path={path} cannot be read as a data set: {' '.join(str(e.__cause__ or e).split())[:300]}"
        ) from e
    first = splits[names[0]].features.get("label")
    if isinstance(first, datasets.ClassLabel) and first.num_classes == 1:
        raise ToastError(
            f"{path / names[0]} holds images of one class only, {first.names[0]}: put those of another into {names[0]}/<class>/."
        )
    return splits


def _read_saved(path: Path, saved: Mapping[str, Path], names: Sequence[str]) -> dict[str, Rows]:
    for name in names:
        if name not in saved:
            raise ToastError(
                f"data.path={path} has no split '{name}' (it has {', '.join(saved)}): set data.train_split or data.test_split."
            )
    return {name: datasets.load_from_disk(str(saved[name])) for name in names}


def _read_parquet(files: Mapping[str, list[str]], streaming: bool) -> dict[str, Rows]:
    if streaming:
        return {name: StreamedRows(found) for name, found in files.items()}
    for file in (file for found in files.values() for file in found):
        if "::" in file:
            raise ToastError(
                f"{file} has :: in its name, which is not read as such: rename it, or use data.streaming=true."
            )
    # To `datasets`, every name is a pattern.
    return {
        name: datasets.load_dataset("parquet", data_files={name: [glob.escape(file) for file in found]}, split=name)
        for name, found in files.items()
    }


def _read_images(split: Path, name: str) -> Rows:
    """Class folders, or images with the table that `datasets` looks for beside them: this says what they are then."""
    if any(_has_file_names(file) for file in split.iterdir() if file.name in _DESCRIBED):
        files = f"{glob.escape(str(split))}/**"
        return datasets.load_dataset("imagefolder", data_files={name: [files]}, split=name)
    return read_class_folders(split)


def _has_file_names(table: Path) -> bool:
    if table.suffix == ".parquet":
        return "file_name" in pq.read_schema(table).names
    with table.open(encoding="utf-8", errors="replace") as lines:
        return "file_name" in next(lines, "")


def _require_splits(path: Path, names: Sequence[str], parquet: Mapping[str, list[str]]) -> None:
    """Raises ToastError for a split that there is not, as files if any split has these, else as a folder."""
    for name in names:
        if not (parquet[name] if any(parquet.values()) else child(path, name).is_dir()):
            raise ToastError(
                f"data.path={path} has no split '{name}'{_perhaps(path, name)}: toast looks for {name}.parquet, {name}-*.tar, a folder {name}/<class>/ "
                "of images or a saved data set; set data.train_split or data.test_split if yours has another name."
            )


def _perhaps(path: Path, name: str) -> str:
    """Where the split ``name`` may be: under a similar name, or in a folder below or above."""
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    has = [folder.name for folder in folders]
    if close := did_you_mean(name, has):
        return close
    for place in (*folders, path.absolute().parent):
        if os.path.isdir(place / name):  # noqa: PTH112  # Path.is_dir raises for a folder that may not be read
            return f" (did you mean data.path={place}?)"
    return f" (it has {', '.join(has[:5])}{', …' * (len(has) > 5)})" if has else ""


def _find_parquet(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The parquet files of each split, in ``path`` or in the only subfolder that has any."""
    found = []
    for folder in (path, *sorted(entry for entry in path.iterdir() if entry.is_dir())):
        files = {name: _parquet_of(folder, name) for name in names}
        found += [(folder.name, files)] if any(files.values()) else []
    if len(found) > 1:
        raise ToastError(
            f"data.path={path} has parquet files in {', '.join(name for name, _ in found)}: name one of these with data.path."
        )
    return found[0][1] if found else {name: [] for name in names}


def _parquet_of(folder: Path, name: str) -> list[str]:
    """``train.parquet`` and the hub's ``train-00000-of-00001.parquet``, with a hash at the end or without; else all of a
    folder ``train.parquet/`` or ``train/`` without subfolders: Spark's parts, and what the hub converts."""
    literal = glob.escape(name)
    patterns = (f"{literal}.parquet", f"{literal}-*-of-*.parquet")
    files = sorted(str(file) for pattern in patterns for file in folder.glob(pattern) if file.is_file())
    for split in (folder / f"{name}.parquet", child(folder, name)):
        if not files and split.is_dir() and not any(entry.is_dir() for entry in os.scandir(split)):
            parts = (file for file in split.glob("*.parquet") if file.name not in _DESCRIBED)
            files = sorted(str(part) for part in parts if not part.name.startswith((".", "_")))
    return files


def _find_shards(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The tar files of each split; none if there are none of any. Raises ToastError for a split without, and one file for two.

    They lie in a folder of the split's name without subfolders, or have its name as a word in theirs. Beside a folder of
    the split's name with anything else in it, they are what that folder was unpacked from.
    """
    beside = tar_files(Path(glob.escape(str(path))) / "*") if path.is_dir() else tar_files(path)
    found = {name: _shards_of(path, name, beside) for name in names}
    if path.is_dir() and not any(found.values()):
        return {}
    for name, files in found.items():
        if not files:
            has = sorted({_WITHOUT_NUMBER.sub("", _stem(file)) for file in beside} - {""})
            others = did_you_mean(name, has) or (f" (it has {', '.join(has[:5])})" if has else "")
            raise ToastError(
                f"data.path={path} has no tar files of split '{name}'{others}: set data.train_split or data.test_split if yours has another name."
            )
    twice = {file for name in names for other in names if other != name for file in found[name] if file in found[other]}
    if twice:
        raise ToastError(
            f"{min(twice)} has the names of two splits in its own, {' and '.join(names)}: put it into a folder named after its split."
        )
    return found


def _shards_of(path: Path, name: str, beside: Sequence[str]) -> list[str]:
    folder = child(path, name)
    if folder.is_dir():
        flat = not any(entry.is_dir() for entry in os.scandir(folder))
        return tar_files(Path(glob.escape(str(folder))) / "*") if flat else []
    word = re.compile(rf"(?<![^\W\d_]){re.escape(as_text(name))}(?![^\W\d_])")
    inside = None if path.is_dir() else name  # a pattern may have found the shards in a folder of the split's name
    return [file for file in beside if word.search(_stem(file)) or Path(file).parent.name == inside]


def _stem(shard: str) -> str:
    return as_text(Path(shard).name).partition(".tar")[0]
