"""Name a run's folder after the settings that decide what it computes, and their hash.

The same settings always name the same folder, across versions too: classes that have moved are stored and hashed under
their first names, and a setting that was added later is left out while it has its default.
"""

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from toast_cli.errors import ToastError
from toast_cli.folders import as_utf8, child, files_below, tar_files, typed_path

# How a run is carried out, not what it computes; what others report; and the name of an experiment, since its settings are
# there already.
NOT_SCIENTIFIC = (
    "device",
    "batch_size",
    "workers",
    "fresh",
    "fail_fast",
    "dry",
    "rows",
    "tracker",
    "keep_features",
    "keep_probabilities",
    "probes",
    "features_from",
    "expected",
    "experiment",
    "hydra",
)
_PATHS = (("model", "checkpoint"), ("data", "path"), ("fit_data", "path"), ("probe", "text"))
_FOLDER = "local-dir:"  # before a folder that ``model.name`` names
_NAMING = (("model", "label"), ("data", "label"), ("translator", "_target_"))
# Settings that a later version added, with the value that gives what runs were before: only another one is part of a run's
# settings and name. Numbers that earlier versions did not have are added; what they measured is the same.
_ADDED_LATER: dict[tuple[str, str], Any] = {
    ("data", "max_pixels"): 100_000_000,
    ("fit_data", "max_pixels"): 100_000_000,
    ("fit", "heal"): False,
    ("fit", "held_out_r2"): True,
    ("search", "baselines"): ["last", "influence"],
    ("search", "refits"): None,
    ("search", "halves"): False,
    ("search", "penalty"): 1,
}
_FIRST_NAMES = {
    "toast_cli.probes.KnnProbe": "toast_cli.classifiers.KnnProbe",
    "toast_cli.probes.LogisticProbe": "toast_cli.classifiers.LogisticProbe",
    "toast_cli.probes.PretrainedHead": "toast_cli.classifiers.PretrainedHead",
    "toast_cli.translators.Mlp": "toast_cli.trained.Mlp",
    "toast_cli.translators.DeepMlp": "toast_cli.trained.DeepMlp",
}
_TODAY = {first: name for name, first in _FIRST_NAMES.items()}


def today(target: str) -> str:
    """The current name of the class that a config gives as ``_target_``."""
    return _TODAY.get(target, target)


def scientific(cfg: DictConfig) -> dict[str, Any]:
    """The resolved settings that decide what a run computes, with absolute paths."""
    settings: dict[str, Any] = {}
    for key in cfg:
        if key not in NOT_SCIENTIFIC:
            value = cfg[key]
            settings[str(key)] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    for group in settings.values():
        if isinstance(group, dict) and isinstance(target := group.get("_target_"), str):
            group["_target_"] = _FIRST_NAMES.get(target, target)
    if not settings.get("sweep"):  # added later too: a full sweep has no settings
        settings.pop("sweep", None)
    if settings.get("eval") == "classification":  # and this is what runs were
        del settings["eval"]
    for (name, key), before in _ADDED_LATER.items():
        if isinstance(group := settings.get(name), dict) and key in group and repr(group[key]) == repr(before):
            del group[key]
    for group, key in _PATHS:
        path = str(settings.get(group, {}).get(key) or "")
        if path and not path.startswith("pkg://"):
            settings[group][key] = str(typed_path(path).resolve())
    name = str(settings.get("model", {}).get("name") or "")
    if name.startswith(_FOLDER):
        settings["model"]["name"] = f"{_FOLDER}{typed_path(name.removeprefix(_FOLDER)).resolve()}"
    return settings


def folder_name(cfg: DictConfig) -> str:
    """``<model>-<data>-<translator>-<hash8>``: the same settings always name the same folder.

    Raises ToastError if one of the first three is not a name.
    """
    settings = scientific(cfg)
    words = [_word(settings, group, key) for group, key in _NAMING]
    words[-1] = words[-1].rpartition(".")[2].lower()
    name = "-".join(re.sub(r"[^\w.]+", "_", word) for word in words)
    return f"{name}-{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]}"


def _word(settings: dict[str, Any], group: str, key: str) -> str:
    """One of the settings that a folder is named after. Raises ToastError if it is not a name."""
    value = settings.get(group, {}).get(key)
    if not isinstance(value, str if key == "_target_" else str | int | float) or value == "":
        raise ToastError(
            f"{group}.{key}={value} is not a name: choose {group}=<name>, see toast list, or give text as a name for yours."
        )
    return str(value)


def inputs(settings: dict[str, Any]) -> str:
    """Hash of the names, sizes and times of the local files that a run reads: a cheap sign that one has changed."""
    digest = hashlib.sha256()
    for file in _input_files(settings):
        digest.update(os.fsencode(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}"))
    return digest.hexdigest()[:16]


def _input_files(settings: dict[str, Any]) -> list[Path]:
    """The files of weights and of texts, the parquet and tar files of a data folder, and all files in the subfolders named after its splits."""
    stored = _weights(settings["model"])
    stored += [
        file for data in (settings["data"], settings["fit_data"]) if data.get("path") for file in _data_files(data)
    ]
    stored += [Path(text)] if (text := (settings.get("probe") or {}).get("text")) else []
    return sorted(file for file in stored if file.is_file())


def _weights(model: dict[str, Any]) -> list[Path]:
    """The checkpoint and the folder that ``model.name`` may be; all that lies in a folder, or beside an index of several files."""
    name = str(model.get("name") or "")
    given = [name.removeprefix(_FOLDER)] if name.startswith(_FOLDER) else []
    given += [str(model["checkpoint"])] if model.get("checkpoint") else []
    folders = [path.parent if path.name.endswith(".index.json") else path for path in map(Path, given)]
    return [file for path in folders for file in (path.iterdir() if path.is_dir() else [path])]


def _data_files(data: dict[str, Any]) -> Iterator[Path]:
    path = Path(data["path"])
    parquet = [file for pattern in ("*.parquet", "*/*.parquet") for file in path.glob(pattern)]
    yield from parquet
    names = [str(data.get(key)) for key in ("train_split", "test_split")]
    splits = [child(path, name) for name in names]
    for name, split in zip(names, splits, strict=True):
        yield from path.glob(f"*/{glob.escape(name)}/*.parquet")
        yield from (split / file for file in (files_below(split) if split.is_dir() else ()))
    if not parquet and not all(
        split.is_dir() for split in splits
    ):  # else tar files are what folders were unpacked from
        yield from path.glob("*.tar") if path.is_dir() else map(Path, tar_files(path))


def differences(one: Any, other: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys whose values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key), other.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif repr(one) != repr(other):  # nan is not equal to itself
        yield prefix


def register_resolvers() -> None:
    """Register what ``conf/`` may interpolate: ``${toast_folder:}``, a run's folder name, and ``${toast_basename:path}``."""
    OmegaConf.register_new_resolver("toast_folder", lambda *, _root_: folder_name(_root_), replace=True)
    OmegaConf.register_new_resolver("toast_basename", _last_name, replace=True)


def _last_name(path: object) -> str:
    """What a data set is called after the folder that it lies in: for a pattern of tar files, the folder that they are in."""
    found = Path(str(path or ""))
    return as_utf8((found.parent if found.suffix == ".tar" and not found.is_dir() else found).name) or "folder"
