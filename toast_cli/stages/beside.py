"""Further probes of a run, on the same features: each is a run of its own, in the folder that its settings name."""

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from toast_cli.errors import ToastError, did_you_mean, require_flag
from toast_cli.machine.team import expected
from toast_cli.registry import CONF, options
from toast_cli.runs import contents
from toast_cli.runs.folder import Folder, RunFolder
from toast_cli.runs.naming import folder_name

Further = list[tuple[DictConfig, Path]]  # settings and folders
_LENT = "lent_features"  # in the record: the features are there for other runs alone


def further(cfg: DictConfig, path: Path, own: Sequence[Path]) -> Further:
    """The runs that ``probes`` asks for beside the one in ``path``; ``own`` are the user's folders of settings.

    Their folders lie next to ``path``: named as those of other runs are, or after a folder that the user has named. A probe
    that the run has itself is not repeated. Raises ToastError for anything but a list of probes that there are, and where
    several processes or a race would have to share the features.
    """
    if cfg.probes is not None and (cfg.get("sweep") or expected() > 1):
        raise ToastError(
            "probes is for a full sweep in one process: leave it out with sweep=race and torchrun, and choose one by probe=."
        )
    known, found = options("probe", [CONF, *own]), {folder_name(cfg): path}
    runs: Further = []
    for name in _names(cfg.probes, known):
        settings = copy.deepcopy(cfg)
        settings.probe = OmegaConf.load(known[name])
        hashed = folder_name(settings)
        if hashed not in found:
            usual = path.name == folder_name(cfg)
            found[hashed] = path.with_name(hashed if usual else f"{path.name}-{name.replace('/', '-')}")
            runs.append((settings, found[hashed]))
    return runs


def _names(given: Any, known: dict[str, Path]) -> list[str]:
    names = OmegaConf.to_object(given) if OmegaConf.is_config(given) else given
    if names is None:
        return []
    if not isinstance(names, list):
        raise ToastError(f"probes={names} is not a list of probes: write probes=[{names}].")
    for name in names:
        if name not in known:
            raise ToastError(
                f"probes=[{','.join(map(str, names))}]: {name} is not a probe{did_you_mean(name, known)}: use {', '.join(sorted(known))}."
            )
    return names


def run_and_lend(
    run: Callable[[DictConfig, RunFolder, Any], None],
    cfg: DictConfig,
    folder: RunFolder,
    team: object,
    source: Path | None = None,
) -> None:
    """Complete a run that keeps its features for others, and takes those of the run in ``source`` if there is one."""
    lent = not require_flag(cfg.keep_features, "keep_features")
    lending = copy.deepcopy(cfg)
    lending.keep_features = True
    if source is not None:
        lending.features_from = str(source)
    run(lending, folder, team)
    folder.note(**{_LENT: lent})


def forget_lent(paths: Iterable[Path]) -> None:
    """Remove the features that runs have kept for others alone; those that the user has asked for stay."""
    for folder in map(Folder, paths):
        if folder.record.get(_LENT):
            contents.remove_features(folder.path)
            folder.note(**{_LENT: False})


def has_features(path: Path) -> bool:
    """Whether the folder of a run holds the features of its train and its test images."""
    return all((path / name).is_file() for split in ("train", "test") for name in contents.features_and_sums(split))
