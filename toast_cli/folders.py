"""Run folders: named by what they compute, locked while in use, every file written beside its name and renamed."""

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from toast_cli.errors import ToastError, require_flag
from toast_cli.files import beside, read_json, write_atomically
from toast_cli.sentences import sentence

# How a run is carried out, not what it computes; and an experiment's name, whose settings count, not what it is called.
NOT_SCIENTIFIC = (
    "device",
    "batch_size",
    "workers",
    "fresh",
    "fail_fast",
    "dry",
    "keep_features",
    "features_from",
    "experiment",
    "hydra",
)
_PATHS = (("model", "checkpoint"), ("data", "path"), ("fit_data", "path"))
_NAMING = (("model", "label"), ("data", "label"), ("translator", "_target_"))
RECORD = "run.json"
_OWN = (
    "features/train.f32",
    "features/test.f32",
    "translators.safetensors",
    "predictions.safetensors",
    "projection.safetensors",
    "results.csv",
    "summary.csv",
    "similarity.csv",
    "finetune.csv",
    "search.csv",
    "front.csv",
    "epoch.pt",
    "config.yaml",
    RECORD,
)


def scientific(cfg: DictConfig) -> dict[str, Any]:
    """The resolved settings that decide what a run computes, with absolute paths."""
    settings: dict[str, Any] = {}
    for key in cfg:
        if key not in NOT_SCIENTIFIC:
            value = cfg[key]
            settings[str(key)] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    for group, key in _PATHS:
        path = str(settings.get(group, {}).get(key) or "")
        if path and not path.startswith("pkg://"):
            settings[group][key] = str(Path(path).expanduser().resolve())
    return settings


def folder_name(cfg: DictConfig) -> str:
    """``<model>-<data>-<translator>-<hash8>``: the same settings always name the same folder."""
    settings = scientific(cfg)
    words = [_word(settings, group, key) for group, key in _NAMING]
    words[-1] = words[-1].rpartition(".")[2].lower()
    name = "-".join(re.sub(r"[^\w.]+", "_", word) for word in words)
    return f"{name}-{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]}"


def _word(settings: dict[str, Any], group: str, key: str) -> str:
    """One of the settings that a folder is named by. Raises ToastError where it is no name."""
    value = settings.get(group, {}).get(key)
    if not isinstance(value, str if key == "_target_" else str | int | float) or value == "":
        raise ToastError(
            f"{group}.{key}={value} is no name: choose {group}=<name>, see toast list, or give text that names yours."
        )
    return str(value)


def read_record(path: Path) -> dict[str, Any]:
    """What is known of the run at ``path``, nothing where there is none. Raises ToastError where the file has been damaged."""
    return read_json(path / RECORD) if (path / RECORD).is_file() else {}


class RunFolder:
    """The folder of one run: ``config.yaml`` (its settings), ``run.json`` (its record) and what ``run`` puts there."""

    def __init__(self, path: Path, inputs: str, outputs: Sequence[str]) -> None:
        self.path = path
        self._inputs = inputs
        self._outputs = outputs
        self._record = path / RECORD

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def record(self) -> dict[str, Any]:
        return read_record(self.path)

    def note(self, **entries: Any) -> None:
        """Add entries to the record."""
        write_atomically(self._record, json.dumps({**self.record, **entries}, indent=2) + "\n")

    def begin(self, **facts: Any) -> None:
        """Record what the run is made of, or, when it goes on, check that this has not changed. Raises ToastError if it has."""
        for key, value in facts.items():
            before = self.record.get(key, value)
            if before != value:
                raise ToastError(
                    f"{self.path} was begun with {key} {before}, which is now {value}: restore it to go on, or start over with fresh=true."
                )
        self.note(**facts)

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to do: all rows are written, and from files that are as they were."""
        record = self.record
        written = all((self / name).is_file() for name in self._outputs)
        return written and record.get("complete", False) and record.get("inputs") == self._inputs

    def finish(self) -> None:
        """Record that all rows are written."""
        self.note(complete=True, inputs=self._inputs)

    @property
    def feature_bytes(self) -> int:
        """Of the features that lie here so far."""
        return sum(file.stat().st_size for file in (self.path / "features").glob("*.f32"))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall time of what happens inside to the record, and say there that it has begun."""
        begun = time.perf_counter()
        self.note(stage={"name": name, "begun": time.time(), "bytes": self.feature_bytes})
        try:
            yield
        finally:
            before = self.record.get("seconds", {})
            self.note(seconds={**before, name: round(before.get(name, 0) + time.perf_counter() - begun, 3)})


@contextmanager
def open_folder(
    path: Path, cfg: DictConfig, outputs: Sequence[str] = ("results.csv", "summary.csv")
) -> Iterator[RunFolder]:
    """The run folder at ``path``, held by this process alone; empty of results first if ``cfg.fresh``.

    It is complete when it says so and holds the ``outputs``.

    Raises ToastError where another process holds it or it belongs to a run with other settings.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as e:
        raise ToastError(
            f"{path} is in use by another toast process{_holder(path)}: wait until it has finished, or choose another hydra.run.dir=<dir>."
        ) from e
    try:
        settings = scientific(cfg)
        _claim(path, cfg, settings)
        folder = RunFolder(path, _inputs(settings), outputs)
        if not folder.complete:
            folder.note(process={"host": platform.node(), "pid": os.getpid()}, failed=None)
        try:
            yield folder
        except Exception as e:
            with suppress(OSError):  # a full disk has no room for this either
                folder.note(failed=sentence(e) or repr(e))
            raise
    finally:
        try:
            begun = _begun(path)
        except ToastError:  # whatever it is, it is not ours to remove
            begun = True
        if not begun and (path / RECORD).is_file():
            _clear(path)  # a mistyped setting should not leave a folder behind
        lock.release()
        if not begun:
            (path / ".lock").unlink(missing_ok=True)
            if not any(path.iterdir()):
                path.rmdir()


def _holder(path: Path) -> str:
    """`` (process 123 on host)``, as the record has it, or nothing."""
    process = read_record(path).get("process")
    return f" (process {process['pid']} on {process['host']})" if process else ""


def held(path: Path) -> bool:
    """Whether a process has the folder at ``path`` open."""
    if not (path / ".lock").is_file():
        return False
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _begun(path: Path) -> bool:
    """Whether a run has got as far as recording what it is made of."""
    return "weights" in read_record(path)


def _inputs(settings: dict[str, Any]) -> str:
    """Hash of the names, sizes and times of the local files that a run reads: a cheap sign that one of them changed."""
    digest = hashlib.sha256()
    for file in _input_files(settings):
        digest.update(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _input_files(settings: dict[str, Any]) -> list[Path]:
    """The checkpoint; the parquet files of a data folder, and all that lies in those named like its splits."""
    checkpoint = settings["model"].get("checkpoint")
    stored: list[Path] = []
    for data in (settings["data"], settings["fit_data"]):
        patterns = ("*.parquet", "*/*.parquet", *(f"{data.get(key)}/**/*" for key in ("train_split", "test_split")))
        stored += (
            [file for pattern in patterns for file in Path(data["path"]).glob(pattern)] if data.get("path") else []
        )
    return sorted(file for file in [*stored, *([Path(checkpoint)] if checkpoint else [])] if file.is_file())


def _clear(path: Path) -> None:
    """Remove what a run wrote, its record last; nothing else, and nothing from a folder that never was a run's."""
    for name in _OWN:
        (path / name).unlink(missing_ok=True)
    features = [file for kind in ("latent", "round", "front-") for file in (path / "features").glob(f"{kind}*.f32")]
    for file in [*features, *path.glob("model-seed*.safetensors")]:
        file.unlink()
    if (path / "features").is_dir() and not any((path / "features").iterdir()):
        (path / "features").rmdir()


def _claim(path: Path, cfg: DictConfig, settings: dict[str, Any]) -> None:
    """Make a new folder this run's, or check that it is. Raises ToastError where it belongs to something else."""
    foreign = [name for name in _OWN if (path / name).exists()] if not (path / RECORD).is_file() else []
    if foreign:
        raise ToastError(
            f"{path} holds a {foreign[0]} that no toast run left there: choose another hydra.run.dir=<dir>."
        )
    if require_flag(cfg.fresh, "fresh") or not _begun(path):
        _clear(path)
    for name in _OWN:
        beside(path / name).unlink(missing_ok=True)
    if not (path / "config.yaml").is_file():
        write_atomically(path / RECORD, "{}\n")
        write_atomically(path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
    different = sorted(differences(OmegaConf.to_container(OmegaConf.load(path / "config.yaml")), settings))
    if different:
        raise ToastError(
            f"{path} holds a run with another {', '.join(different)}: choose another hydra.run.dir=<dir>, or fresh=true to replace it."
        )


def differences(one: Any, other: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys whose values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key), other.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif repr(one) != repr(other):  # nan is not equal to itself
        yield prefix
