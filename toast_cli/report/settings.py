"""The help of a verb: each setting as it is typed, with its default, and what it means."""

import io
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import yaml

from toast_cli.registry import meanings

_SETTINGS = "Settings and their defaults (key=value)\n"  # before and after the settings in what Hydra prints as help
_WIDTH = 100  # letters of a line of the help


@dataclass(frozen=True)
class Help:
    """What ``toast <verb> --help`` says around the settings; ``groups``: whether the verb has config groups."""

    summary: str
    examples: str
    closing: str = ""
    groups: bool = True

    def template(self, verb: str) -> str:
        """The text of the help, as a template that Hydra fills with the groups and the settings."""
        examples = "".join(f"  {line}\n" for line in self.examples.splitlines())
        closing = "".join(f"  {line}\n" for line in self.closing.splitlines())
        groups = "Groups and their options (group=option)\n$APP_CONFIG_GROUPS\n" if self.groups else ""
        return f"toast {verb}: {self.summary}\n\nExamples\n{examples}\n{groups}{_SETTINGS}\n$CONFIG\n{_SETTINGS}\n{closing}"


def explain(config: str, print_help: Callable[[], None]) -> None:
    """Print the help that Hydra prints, with the meaning of every setting."""
    written = io.StringIO()
    try:
        with redirect_stdout(written):
            print_help()
    finally:
        before, *composed = written.getvalue().split(_SETTINGS)
        print("".join([before, _SETTINGS, "\n", explained(config, composed[0]), *composed[1:]]) if composed else before)


def explained(config: str, composed: str) -> str:
    """Lines for all settings of a ``composed`` config, in YAML; ``config`` is the verb's file in ``conf/``."""
    from toast_cli.machine.console import visible

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
        if isinstance(value, dict) and name != "options":
            yield from _flat(value, f"{key}.")  # nothing for a group without settings
        elif name != "_target_":
            yield key, _typed(value)


def _typed(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_typed(inside)}" for key, inside in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
