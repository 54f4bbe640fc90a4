"""Run folders: locked while in use; every file is written under a temporary name, then renamed."""

import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from toast_cli.errors import ToastError, require_flag
from toast_cli.files import beside
from toast_cli.runs import record
from toast_cli.runs.contents import CONFIG, FIXED, LOCK, RECORD, clear, features_in
from toast_cli.runs.naming import differences, inputs, scientific
from toast_cli.runs.record import read_record
from toast_cli.runs.results import csv_of, read_csv
from toast_cli.runs.settings import read_settings, text_of
from toast_cli.sentences import sentence


class Folder:
    """A folder that holds the files of a run; see contents.py."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def record(self) -> dict[str, Any]:
        """What ``run.json`` says."""
        return read_record(self.path)

    def note(self, **entries: Any) -> None:
        """Add entries to the record."""
        record.note(self.path, **entries)

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file, whole or not at all, with its checksum in the record."""
        record.write(self.path / name, content)

    def checked(self, name: str) -> Path:
        """The path of a file. Raises ToastError if the file was changed after toast wrote it."""
        return record.checked(self.path / name)

    def write_rows(self, name: str, rows: Iterable[Any], kind: type) -> None:
        """Write a table, the ``rows`` of dataclass ``kind``, with its checksum in the record."""
        self.write(name, csv_of(rows, kind))

    def rows(self, name: str, kind: type) -> list[Any]:
        """The rows of a table, none if there is none. Raises ToastError if it was changed or is no such table."""
        return read_csv(self.checked(name), kind)

    @property
    def settings(self) -> dict[str, Any]:
        """What ``config.yaml`` says, as plain data. Raises ToastError if it was changed or is no such file."""
        return read_settings(self.checked(CONFIG))

    @property
    def images_used(self) -> dict[int, int]:
        """How many fit images could be used, by how many were asked for, as far as the run has recorded it."""
        counts = self.record.get("fit_images", {})
        if not isinstance(counts, dict) or not all(
            key.isdecimal() and type(used) is int for key, used in counts.items()
        ):
            raise ToastError(f"{self / RECORD} does not say how many fit images were used: restore it.")
        return {int(asked): used for asked, used in counts.items()}

    def note_images_used(self, counts: Mapping[int, int]) -> None:
        """Record how many fit images could be used, by how many were asked for."""
        self.note(fit_images={str(asked): used for asked, used in counts.items()})

    @property
    def feature_bytes(self) -> int:
        """The size of the features stored so far."""
        return sum(file.stat().st_size for file in features_in(self.path))


class RunFolder(Folder):
    """The folder of a run, held by this process.

    ``inputs`` is a hash of the files that the run reads, ``outputs`` are the tables that it ends with.
    """

    def __init__(self, path: Path, inputs: str, outputs: Sequence[str]) -> None:
        super().__init__(path)
        self._inputs, self._outputs = inputs, outputs

    def begin(self, **facts: Any) -> None:
        """Record what the run is made of or, when it resumes, check it. Raises ToastError if it has changed."""
        for key, value in facts.items():
            before = self.record.get(key, value)
            if before != value:
                raise ToastError(
                    f"{self.path} was begun with {key} {before}, which is now {value}: restore it to go on, or start over with fresh=true."
                )
        self.note(**facts)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do: all tables are written, from files that have not changed since."""
        known = self.record
        written = all((self / name).is_file() for name in self._outputs)
        return written and known.get("complete", False) and known.get("inputs") == self._inputs

    def finish(self) -> None:
        """Record that all tables are written. Raises ToastError if a file was changed after toast wrote it."""
        record.settle(self.path)
        self.note(complete=True, inputs=self._inputs)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record that a stage has begun and, at its end, the seconds that it took."""
        begun = time.perf_counter()
        self.note(stage={"name": name, "begun": time.time(), "bytes": self.feature_bytes})
        try:
            yield
        finally:
            before = self.record.get("seconds", {})
            self.note(seconds={**before, name: round(before.get(name, 0) + time.perf_counter() - begun, 3)})


@contextmanager
def open_folder(path: Path, cfg: DictConfig, outputs: Sequence[str]) -> Iterator[RunFolder]:
    """The run folder at ``path``, held by this process alone; if ``cfg.fresh``, its results are removed first.

    It is complete when its record says so and it holds the ``outputs``.

    Raises ToastError if another process holds it or it belongs to a run with other settings.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as e:
        raise ToastError(
            f"{path} is in use by another toast process{_holder(path)}: wait until it has finished, or choose another hydra.run.dir=<dir>."
        ) from e
    try:
        settings = scientific(cfg)
        _claim(path, cfg, settings)
        folder = RunFolder(path, inputs(settings), outputs)
        if not folder.complete:
            folder.note(process={"host": platform.node(), "pid": os.getpid()}, failed=None)
        try:
            yield folder
        except Exception as e:
            with suppress(OSError):  # a full disk has no room for this either
                folder.note(failed=sentence(e) or repr(e))
            raise
    finally:
        _leave(path, lock)


def _leave(path: Path, lock: FileLock) -> None:
    """Release the folder, and remove it if no run has begun in it: a mistyped setting should not leave one behind."""
    try:
        begun = _begun(path)
    except ToastError:  # a damaged record is left for the user to look at
        begun = True
    if not begun and (path / RECORD).is_file():
        clear(path)
    lock.release()
    if not begun:
        (path / LOCK).unlink(missing_ok=True)
        if not any(path.iterdir()):
            path.rmdir()


def _holder(path: Path) -> str:
    """`` (process 123 on host)`` from the record, or an empty string."""
    process = read_record(path).get("process")
    return f" (process {process.get('pid')} on {process.get('host')})" if isinstance(process, dict) else ""


def held(path: Path) -> bool:
    """Whether a process has the folder at ``path`` open."""
    if not (path / LOCK).is_file():
        return False
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _begun(path: Path) -> bool:
    """Whether a run has recorded what it is made of."""
    return "weights" in read_record(path)


def _claim(path: Path, cfg: DictConfig, settings: dict[str, Any]) -> None:
    """Claim a new folder for this run, or check that it is this run's. Raises ToastError if it is not."""
    foreign = [name for name in FIXED if (path / name).exists()] if not (path / RECORD).is_file() else []
    if foreign:
        raise ToastError(
            f"{path} holds a {foreign[0]} that no toast run left there: choose another hydra.run.dir=<dir>."
        )
    if require_flag(cfg.fresh, "fresh") or not _begun(path):
        clear(path)
    for name in FIXED:
        beside(path / name).unlink(missing_ok=True)
    folder = Folder(path)
    if not (path / CONFIG).is_file():
        folder.write(CONFIG, text_of(settings))
    different = sorted(differences(folder.settings, settings))
    if different:
        raise ToastError(
            f"{path} holds a run with another {', '.join(different)}: choose another hydra.run.dir=<dir>, or fresh=true to replace it."
        )
