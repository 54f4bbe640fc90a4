"""The settings of a verb as its help shows them: each as it is typed, with its default, and what it means."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from toast_cli.machine.console import visible
from toast_cli.registry import meanings

_WIDTH = 100  # letters of a line of the help


def explained(config: str, composed: str) -> str:
    """Lines for all settings of a ``composed`` config, in YAML; ``config`` is the verb's file in ``conf/``."""
    settings = yaml.safe_load(composed)
    told = meanings(config, settings)
    lines = []
    for key, value in _flat(settings, ""):
        lines.append(visible(f"  {key}={value}"))
        like = key.removeprefix("fit_")  # the settings of fit_data are those of data
        meaning = told.get(key) or told.get(like) or told.get(like.rpartition(".")[0], "")
        lines += textwrap.wrap(meaning, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"


def _flat(settings: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    """The settings by dotted key with their values as the command line takes them, without classes' names."""
    for name, value in settings.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and value and name != "options":
            yield from _flat(value, f"{key}.")
        elif name != "_target_":
            yield key, _typed(value)


def _typed(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_typed(inside)}" for key, inside in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
