"""Parquet files read in place, one row group at a time: the data set is not copied, and memory does not grow with it.

A data set that is loaded whole is first converted into a copy of the same size; ImageNet-1k then takes twice 150 GB. Here
rows are numbered across all files, labels are read from their column alone, and an image from the one row group it is in.
"""

import copy
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, TypeAlias, TypeVar

import datasets
import fsspec
import numpy as np
import pyarrow.parquet as pq

from toast_cli.data.class_folders import FolderRows
from toast_cli.data.tar_shards import TarRows
from toast_cli.errors import ToastError
from toast_cli.hub.fetching import quiet
from toast_cli.hub.listening import watched
from toast_cli.hub.refusals import is_about_the_hub, refusal
from toast_cli.hub.repository import Repository

# Of the hub, so many parts are read at once, of so many row groups each: most of the time goes into waiting for its answers.
_AT_A_TIME, _PART = 16, 16
S = TypeVar("S")
T = TypeVar("T")
Part: TypeAlias = tuple[int, list[int]]  # the number of a file, and some of its row groups


class StreamedRows:
    """The rows of parquet ``files``, paths or fsspec URLs, with the part of ``datasets.Dataset`` that a split needs.

    ``asked`` is the repository on the hub that they belong to, if any. Raises OSError or pyarrow's ArrowInvalid for files that
    cannot be read or differ in their columns, and ToastError if the hub does not send them.
    """

    def __init__(self, files: Sequence[str], asked: Repository | None = None) -> None:
        self.files, self._asked = list(files), asked
        opened = self._of_all(self._footer, range(len(files)), "reading what is in")
        self.sizes = [size for _, size, _ in opened]
        self._footers = [footer for footer, *_ in opened]
        if opened:
            self.features = datasets.Features.from_arrow_schema(opened[0][2])
        self._groups = [  # file, row group in it, number of rows
            (number, i, footer.row_group(i).num_rows)
            for number, footer in enumerate(self._footers)
            for i in range(footer.num_row_groups)
        ]
        self._ends = np.cumsum([rows for *_, rows in self._groups])  # (number of row groups,)
        self._only = np.arange(self._ends[-1] if self._groups else 0)
        self._held: dict[str, tuple[Any, list[Any]]] = {}  # of each column (process, row group), and its values

    def __len__(self) -> int:
        return len(self._only)

    def select(self, rows: np.ndarray) -> "StreamedRows":
        """The rows with these numbers (N,), in that order."""
        part = copy.copy(self)
        part._only = self._only[rows]
        return part

    def column(self, name: str) -> list[Any]:
        """All values of a column; no other column is read."""
        parts = self._of_all(lambda part: self._column_of(part, name), self._parts(), f"reading column {name} of")
        values = [value for part in parts for value in part]
        return [values[row] for row in self._only]

    def _parts(self) -> list[Part]:
        """All row groups in order."""
        most = _PART if self._asked else sys.maxsize
        groups = [list(range(footer.num_row_groups)) for footer in self._footers]
        return [
            (number, found[begin : begin + most])
            for number, found in enumerate(groups)
            for begin in range(0, len(found), most)
        ]

    def _column_of(self, part: Part, name: str) -> list[Any]:
        number, groups = part
        with self._opened(number) as parquet:
            return parquet.read_row_groups(groups, columns=[name])[name].to_pylist()

    def value(self, row: int, column: str) -> Any:
        """One value; its row group stays in memory until another is needed."""
        place, group, offset = self._place(row)
        key = (os.getpid(), group)  # a process that decodes images opens its own files
        if column not in self._held or self._held[column][0] != key:
            with quiet(), self._opened(place) as parquet:
                number = self._groups[group][1]
                self._held[column] = (key, parquet.read_row_group(number, columns=[column])[column].to_pylist())
        return self._held[column][1][offset]

    def signature(self, row: int) -> bytes:
        """What a fingerprint uses instead of the row's content, which would mean reading its whole row group."""
        place, group, offset = self._place(row)
        return f"{PurePosixPath(self.files[place]).name} {self.sizes[place]} {group} {offset}".encode()

    def _place(self, row: int) -> tuple[int, int, int]:
        """(file, row group, row in that group)."""
        stored = int(self._only[row])
        group = int(np.searchsorted(self._ends, stored, side="right"))
        return self._groups[group][0], group, stored - int(self._ends[group] - self._groups[group][2])

    def _footer(self, number: int) -> tuple[Any, int, Any]:
        """What a file says of its row groups, its size in bytes and its schema."""
        with self._opened(number) as parquet:
            system, path = fsspec.core.url_to_fs(self.files[number])
            return parquet.metadata, int(system.size(path)), parquet.schema_arrow

    def _of_all(self, function: Callable[[S], T], parts: Sequence[S], doing: str) -> list[T]:
        """``function`` of each of the ``parts``, in order; of several at once if they are on the hub."""
        if self._asked is None:
            return list(map(function, parts))
        found: list[T] = []
        with (
            quiet(),
            watched(lambda: f"{doing} {self._asked}: {len(found)} of {len(parts)} parts"),
            ThreadPoolExecutor(_AT_A_TIME) as pool,
        ):
            for each in pool.map(function, parts):
                found.append(each)
        return found

    @contextmanager
    def _opened(self, number: int) -> Iterator[pq.ParquetFile]:
        """A file, of which just the bytes are read that are needed: reading ahead would fetch images along with labels."""
        system, path = fsspec.core.url_to_fs(self.files[number])
        footer = self._footers[number] if hasattr(self, "_footers") else None
        try:
            with (
                system.open(path, "rb", cache_type="none") as stored,
                pq.ParquetFile(stored, metadata=footer, pre_buffer=True) as parquet,
            ):
                yield parquet
        except Exception as e:
            if self._asked is None or isinstance(e, ToastError) or not is_about_the_hub(e):
                raise
            raise refusal(e, self._asked) from e


Rows: TypeAlias = datasets.Dataset | StreamedRows | FolderRows | TarRows
