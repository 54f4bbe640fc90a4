"""The settings of a run on disk, ``config.yaml``: plain data, of which nothing is resolved or called."""

import re
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from toast_cli.errors import ToastError

_MOST, _DEEPEST = 1_000_000, 40  # characters and levels, many times those of a run's settings


def as_config(settings: Mapping[str, Any]) -> DictConfig:
    """The settings as a config that reads back as given: a path such as ``${oc.env:HOME}`` is resolved to itself."""
    return OmegaConf.create(_with_text(settings, _escape))


def text_of(settings: Mapping[str, Any]) -> str:
    """The settings as YAML."""
    return OmegaConf.to_yaml(as_config(settings))


def read_settings(file: Path) -> dict[str, Any]:
    """The inverse of ``text_of``, from a file. Raises ToastError for anything else, such as aliases that multiply."""
    try:
        text = file.read_text(encoding="utf-8")
        _check(text)
        stored = OmegaConf.to_container(OmegaConf.load(StringIO(text)))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, TypeError, RecursionError) as e:
        raise ToastError(f"{file} cannot be read ({type(e).__name__}): restore it, or move its folder away.") from e
    if not isinstance(stored, dict) or not all(isinstance(key, str) for key in stored):
        raise ToastError(f"{file} holds no settings of a run: restore it, or move its folder away.")
    return _with_text(stored, _unescape)


def _check(text: str) -> None:
    """Raises ValueError for YAML that could take very long to read: long, deep, or with aliases."""
    level = 0
    for event in yaml.parse(text[: _MOST + 1], yaml.SafeLoader):
        opened = isinstance(event, yaml.CollectionStartEvent)
        level += opened - isinstance(event, yaml.CollectionEndEvent)
        if level > _DEEPEST or len(text) > _MOST or isinstance(event, yaml.AliasEvent):
            raise ValueError("toast writes no such settings")


def _with_text(value: Any, change: Callable[[str], str]) -> Any:
    """``value`` with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _with_text(inside, change) for key, inside in value.items()}
    return [_with_text(inside, change) for inside in value] if isinstance(value, list | tuple) else value


def _escape(text: str) -> str:
    """OmegaConf takes ``${`` for an interpolation unless an odd number of backslashes precedes it."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _unescape(text: str) -> str:
    """The inverse; ``${`` without a backslash is taken as it is."""
    return re.sub(r"(\\+)\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${", text)
