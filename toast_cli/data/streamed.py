"""Parquet files read in place, one row group at a time: the data set is not copied, and memory does not grow with it.

A data set that is loaded whole is first converted into a copy of the same size; ImageNet-1k then takes twice 150 GB. Here
rows are numbered across all files, labels are read from their column alone, and an image from the one row group it is in.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, TypeAlias

import datasets
import fsspec
import numpy as np
import pyarrow.parquet as pq

from toast_cli.data.class_folders import FolderRows


class StreamedRows:
    """The rows of parquet ``files``, paths or fsspec URLs, with the part of ``datasets.Dataset`` that a split needs.

    Raises OSError or pyarrow's ArrowInvalid for files that cannot be read or differ in their columns.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self.files = list(files)
        self.sizes: list[int] = []
        self._groups: list[tuple[int, int, int]] = []  # file, row group in it, number of rows
        for number, file in enumerate(self.files):
            with _opened(file) as parquet:
                if number == 0:
                    self.features = datasets.Features.from_arrow_schema(parquet.schema_arrow)
                metadata = parquet.metadata
                self._groups += [(number, i, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups)]
            system, path = fsspec.core.url_to_fs(file)
            self.sizes.append(int(system.size(path)))
        self._ends = np.cumsum([rows for *_, rows in self._groups])  # (number of row groups,)
        self._only = np.arange(self._ends[-1] if self._groups else 0)
        self._held: tuple[Any, list[Any]] = (None, [])  # (process, row group, column), and its values

    def __len__(self) -> int:
        return len(self._only)

    def select(self, rows: np.ndarray) -> "StreamedRows":
        """The rows with these numbers (N,), in that order."""
        part = copy.copy(self)
        part._only = self._only[rows]
        return part

    def column(self, name: str) -> list[Any]:
        """All values of a column; no other column is read."""
        values: list[Any] = []
        for file in self.files:
            with _opened(file) as parquet:
                values += parquet.read(columns=[name])[name].to_pylist()
        return [values[row] for row in self._only]

    def value(self, row: int, column: str) -> Any:
        """One value; its row group stays in memory until another is needed."""
        place, group, offset = self._place(row)
        key = (os.getpid(), group, column)  # a process that decodes images opens its own files
        if self._held[0] != key:
            with _opened(self.files[place]) as parquet:
                number = self._groups[group][1]
                self._held = (key, parquet.read_row_group(number, columns=[column])[column].to_pylist())
        return self._held[1][offset]

    def signature(self, row: int) -> bytes:
        """What a fingerprint uses instead of the row's content, which would mean reading its whole row group."""
        place, group, offset = self._place(row)
        return f"{PurePosixPath(self.files[place]).name} {self.sizes[place]} {group} {offset}".encode()

    def _place(self, row: int) -> tuple[int, int, int]:
        """(file, row group, row in that group)."""
        stored = int(self._only[row])
        group = int(np.searchsorted(self._ends, stored, side="right"))
        return self._groups[group][0], group, stored - int(self._ends[group] - self._groups[group][2])


@contextmanager
def _opened(file: str) -> Iterator[pq.ParquetFile]:
    with fsspec.open(file) as stored, pq.ParquetFile(stored) as parquet:
        yield parquet


Rows: TypeAlias = datasets.Dataset | StreamedRows | FolderRows
