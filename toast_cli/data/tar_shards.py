"""Tar files of images with their labels, as WebDataset packs them: indexed by their headers, and read in place.

A sample is all files with one key, which is the name up to the first dot of its last part: ``a/01.jpg`` and ``a/01.cls`` belong together.
"""

import copy
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import datasets
import numpy as np
import pyarrow as pa

from toast_cli.data.class_folders import is_image_name
from toast_cli.data.tar_members import Member, members
from toast_cli.errors import ToastError
from toast_cli.folders import in_words
from toast_cli.hub.listening import listener, watched
from toast_cli.room import in_words as size_in_words

_CLASS_NAMES = ("classnames.txt", "classes.txt")  # a line for each class
_SAMPLE = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_IMAGE, _CLASS, _TABLE = "image", "cls", "json"  # the kinds of members that are read
_LARGEST = {_IMAGE: 1 << 30, _CLASS: 1 << 20, _TABLE: 1 << 20}  # bytes
_NUMBER = re.compile(r"[0-9]{1,18}")
_PLAIN = {bool: "bool", int: "int64", float: "float64", str: "string", type(None): "string"}
_AT_A_TIME = 8  # tar files that are indexed at once: on the disks of a cluster most of the time goes into waiting
_WORTH_SAYING = 10**9  # bytes
_NONE = (-1, 0)


class _Shard(NamedTuple):
    """The samples of one tar file: image names, (offset, size) of each kind of member, and what samples without an image hold."""

    names: pa.Array  # N bytes; as arrays, since a million samples as Python's own objects would take half a gigabyte
    places: dict[str, np.ndarray]  # (N, 2), −1 where a sample has no such member
    left_out: Counter[str]


class TarRows:
    """The samples of tar ``files``, with the part of ``datasets.Dataset`` that a split needs.

    Columns are ``image``, ``label`` if there are .cls members, and the plain fields of the first .json member. With ``classes``, the
    names of the classes 0 … C−1, labels are numbers of these. Images are indexed by (file, offset, size); labels are read when they are
    asked for. ``left_out`` are sentences about samples without an image.

    Raises OSError for files that cannot be read, and ToastError for tar files that are no samples of one image and a label each.
    """

    def __init__(self, files: Sequence[str], classes: list[str] | None = None) -> None:
        self.files = list(files)
        shards = _indexed(self.files)
        self._names = pa.concat_arrays([shard.names for shard in shards])
        self._shards = np.repeat(np.arange(len(shards)), [len(shard.names) for shard in shards])  # (N,)
        self._places = {kind: np.concatenate([shard.places[kind] for shard in shards]) for kind in _LARGEST}  # (N, 2)
        self._held: tuple[tuple[int, int], BinaryIO] | None = None  # (process, number of a file), opened
        self._numbered = bool((self._places[_CLASS][:, 0] >= 0).any())  # whether there are .cls members
        self.features = self._columns(classes)
        self.left_out = _told(self.files, sum((shard.left_out for shard in shards), Counter()))

    def __len__(self) -> int:
        return len(self._shards)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_held": None}  # a process that decodes images, and a copy, open their own files

    def select(self, rows: np.ndarray) -> "TarRows":
        """The rows with these numbers (N,), in that order."""
        part = copy.copy(self)
        part._names, part._shards = self._names.take(pa.array(rows)), self._shards[rows]
        part._places = {kind: places[rows] for kind, places in self._places.items()}
        return part

    def column(self, name: str) -> list[Any]:
        """All values of a column; None where there is none. Raises ToastError for labels that cannot be read."""
        values = [self.value(row, name) for row in range(len(self))]
        kinds = {type(value) for value in values if value is not None}
        if name != _IMAGE and (kinds - set(_PLAIN) or (str in kinds and len(kinds) > 1)):
            raise ToastError(
                f"data.label_column={name} holds {', '.join(sorted(kind.__name__ for kind in kinds))} in the .json files of "
                f"{Path(self.files[0]).parent}: give a field that holds one kind of plain value."
            )
        return values

    def value(self, row: int, column: str) -> Any:
        """One value; an image is its encoded file, under the path ``<tar file>/<name in it>``."""
        if column == _IMAGE:
            return {"bytes": self._content(row, _IMAGE), "path": self._name(row)}
        if column == "label" and self._numbered:
            return self._number(row)
        fields = self._fields(row)
        return None if fields is None else fields.get(column)

    def _columns(self, classes: list[str] | None) -> datasets.Features:
        found: dict[str, Any] = {_IMAGE: datasets.Image()}
        if self._numbered:
            found["label"] = datasets.Value("int64") if classes is None else datasets.ClassLabel(names=classes)
        with_table = np.flatnonzero(self._places[_TABLE][:, 0] >= 0)
        for name, value in ((self._fields(int(with_table[0])) or {}) if len(with_table) else {}).items():
            if type(value) in _PLAIN:
                found.setdefault(name, datasets.Value(_PLAIN[type(value)]))
        return datasets.Features(found)

    def _number(self, row: int) -> int | None:
        """The class that a .cls member gives."""
        stored = self._content(row, _CLASS)
        if stored is None:
            return None
        text = stored.decode("ascii", "replace").strip()
        if not _NUMBER.fullmatch(text):
            raise ToastError(
                f"{self._name(row)} has the label {text[:40]!r} in its .cls: give the class as a whole number from 0."
            )
        feature = self.features["label"]
        if isinstance(feature, datasets.ClassLabel) and int(text) >= feature.num_classes:
            raise ToastError(
                f"{self._name(row)} has the label {text}, and the file of class names has lines for 0 to {feature.num_classes - 1}: add the "
                "missing names, or remove that file."
            )
        return int(text)

    def _fields(self, row: int) -> dict[str, Any] | None:
        """What a .json member says."""
        stored = self._content(row, _TABLE)
        if stored is None:
            return None
        try:
            fields = json.loads(stored)
        except (ValueError, RecursionError) as e:
            raise ToastError(f"The .json beside {self._name(row)} cannot be read ({e}): repair it.") from e
        if not isinstance(fields, dict):
            raise ToastError(
                f'The .json beside {self._name(row)} is no object with fields: pack one such as {{"label": 3}}.'
            )
        return fields

    def _name(self, row: int) -> str:
        return f"{self.files[self._shards[row]]}/{os.fsdecode(self._names[row].as_py())}"

    def _content(self, row: int, kind: str) -> bytes | None:
        """The bytes of one member; None if the sample has none of this kind."""
        offset, size = self._places[kind][row].tolist()
        if offset < 0:
            return None
        file = self._opened(int(self._shards[row]))
        file.seek(offset)
        return file.read(size)

    def _opened(self, number: int) -> BinaryIO:
        """A tar file, which stays open until another is needed."""
        key = (os.getpid(), number)
        if self._held is None or self._held[0] != key:
            if self._held is not None:
                self._held[1].close()
            self._held = (key, Path(self.files[number]).open("rb"))  # noqa: SIM115  # read until another is needed
        return self._held[1]


def _indexed(files: Sequence[str]) -> list[_Shard]:
    """The samples of each file, from one pass over its headers."""
    found: list[_Shard] = []
    total = sum(Path(file).stat().st_size for file in files)
    if total > _WORTH_SAYING:
        listener().say(f"reading the headers of {len(files)} tar files with {size_in_words(total)}")
    with (
        watched(lambda: f"reading the headers of tar files: {len(found)} of {len(files)}"),
        ThreadPoolExecutor(_AT_A_TIME) as pool,
    ):
        for each in pool.map(_index, files):
            found.append(each)
    return found


def _index(file: str) -> _Shard:
    samples: dict[str, dict[str, Member]] = {}
    others: dict[str, str] = {}  # one ending of each key
    for member in members(file):
        key, ending = _parts(member.name)
        kind = _kind(ending)
        if kind is None or key is None:
            others.setdefault(key or member.name, f".{ending}" if ending else "without an ending")
            continue
        _require_small(file, member, kind)
        if (twin := samples.setdefault(key, {}).get(kind)) is not None:
            what = {_IMAGE: "two images", _CLASS: "two labels", _TABLE: "two tables"}[kind]
            raise ToastError(
                f"{file} holds {what} under the key {key}, {twin.name} and {member.name}: give each image a key of its own, the name before the "
                "first dot."
            )
        samples[key][kind] = member
    return _sorted(file, samples, others)


def _sorted(file: str, samples: Mapping[str, Mapping[str, Member]], others: Mapping[str, str]) -> _Shard:
    """The samples with an image, in the order in which their files are stored."""
    complete = {key: sample for key, sample in samples.items() if _IMAGE in sample}
    for sample in complete.values():
        if len(sample) == 1:
            raise ToastError(
                f"{file} holds {sample[_IMAGE].name} without a label: pack its class as a whole number in a file of the same name with the ending "
                ".cls, or a .json with a field for it."
            )
    orphans = [key for key in samples if key not in complete and key not in others]
    left_out = Counter(ending for key, ending in others.items() if key not in complete)
    left_out.update(f".{next(iter(samples[key]))}" for key in orphans)
    if not complete:
        why = in_words(left_out) or "it is empty"
        raise ToastError(
            f"{file} holds no images ({why}): pack each image beside its label, such as 0001.jpg and 0001.cls."
        )
    places = {
        kind: np.array([sample[kind][1:] if kind in sample else _NONE for sample in complete.values()], np.int64)
        for kind in _LARGEST
    }
    names = pa.array([os.fsencode(sample[_IMAGE].name) for sample in complete.values()], pa.large_binary())
    return _Shard(names, places, left_out)


def _parts(name: str) -> tuple[str | None, str]:
    """The key of a member and its ending in small letters; no key for hidden files and names without a dot."""
    found = _SAMPLE.fullmatch(name)
    return (found[1], found[2].lower()) if found else (None, "")


@cache
def _kind(ending: str) -> str | None:
    if ending in (_CLASS, _TABLE):
        return ending
    return _IMAGE if is_image_name(f"x.{ending}") else None


def _require_small(file: str, member: Member, kind: str) -> None:
    if member.size > _LARGEST[kind]:
        raise ToastError(
            f"{file} holds {member.name} with {size_in_words(member.size)}, more than the {size_in_words(_LARGEST[kind])} that toast reads as "
            f"{'an image' if kind == _IMAGE else 'a label'}: remove it."
        )


def _told(files: Sequence[str], left_out: Counter[str]) -> list[str]:
    count = left_out.total()
    which = "1 sample without an image is" if count == 1 else f"{count} samples without an image are"
    return [f"{Path(files[0]).parent}: {which} left out ({in_words(left_out)})"] if count else []


def class_names(folder: Path) -> list[str] | None:
    """The names of the classes 0 … C−1 from the lines of a file in ``folder``; None if there is none.

    A name that repeats gets its number, since some well-known lists have the same word twice.
    """
    file = next((folder / name for name in _CLASS_NAMES if (folder / name).is_file()), None)
    if file is None:
        return None
    lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").rstrip().split("\n")]
    again = Counter(lines)
    return [name if name and again[name] == 1 else f"{name} ({number})".strip() for number, name in enumerate(lines)]
