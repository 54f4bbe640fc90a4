"""Make the parts that a run folder's settings describe: such settings may come from a stranger, so they name no code."""

import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from toast_cli.errors import ToastError
from toast_cli.hub.listening import listening
from toast_cli.machine.console import say
from toast_cli.registry import CONF, targets
from toast_cli.runs.naming import today
from toast_cli.stages.load import Make
from toast_cli.stages.settings import plain

_GROUP = {"fit_data": "data"}  # the group whose options another group has


def known_only(path: Path, own: Sequence[Path] = ()) -> Make:
    """A ``make`` for the settings of the run in ``path``: it calls what toast's own conf/ names, or the user's ``own`` folders.

    It raises ToastError for anything else, and for settings that do not fit what is called.
    """

    @listening(say)
    def make(cfg: DictConfig, name: str, **settings: Any) -> Any:
        group: Any = plain(cfg.get(name))
        target = group.pop("_target_", None) if isinstance(group, dict) else None
        if not isinstance(target, str):
            raise ToastError(f"The settings of {path} describe no {name}: restore its config.yaml.")
        target = today(target)
        if target not in map(today, targets(_GROUP.get(name, name), [CONF, *own])):
            raise ToastError(
                f"The settings of {path} ask for {name}._target_={target}, which is not part of toast and is not run because a folder asks for "
                f"it: if you know and trust it, add --config-dir <dir> with a file {_GROUP.get(name, name)}/<name>.yaml of yours that names it."
            )
        module, _, attribute = target.rpartition(".")
        try:
            return pkgutil.resolve_name(f"{module}:{attribute}")(**group, **settings)
        except (ImportError, AttributeError, TypeError) as e:
            raise ToastError(
                f"The settings of {path} do not fit {target} ({' '.join(str(e).split())[:200]}): use the version that wrote them."
            ) from e

    return make
