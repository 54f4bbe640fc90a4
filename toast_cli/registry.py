"""Where ``conf/`` is and what it offers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from toast_cli.errors import ToastError


def _conf() -> Path:
    """The folder ``conf/``: inside an installed package, next to it in a checkout."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package / "conf", package.parent / "conf") if path.is_dir())


CONF = _conf()


def options(group: str, roots: Sequence[Path]) -> dict[str, Path]:
    """The files of a config group by the names that choose them; files of later roots replace those of earlier ones."""
    files = [(root / group, path) for root in roots for path in sorted((root / group).rglob("*.yaml"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for folder, path in files}


def targets(group: str, roots: Sequence[Path]) -> set[str]:
    """What the files of a config group name as their ``_target_``. Raises ToastError for a file that is not YAML."""
    found = set()
    for path in options(group, roots).values():
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError) as e:
            raise ToastError(f"{path} cannot be read as settings ({type(e).__name__}): repair or remove it.") from e
        if isinstance(settings, dict) and isinstance(target := settings.get("_target_"), str):
            found.add(target)
    return found


def settings() -> list[str]:
    """The settings that ``conf/`` names, with those of all options of its groups, as they are written: ``data.path``."""
    found: dict[str, None] = {}

    def collect(tree: object, key: str) -> None:
        found[key] = None
        for name, inside in tree.items() if isinstance(tree, dict) else ():
            if name not in ("defaults", "_target_"):
                collect(inside, f"{key}.{name}" if key else str(name))

    for file in sorted(CONF.rglob("*.yaml")):
        group = file.relative_to(CONF).parent.as_posix()
        if not group.startswith("experiment"):
            collect(yaml.safe_load(file.read_text(encoding="utf-8")), "" if group == "." else group.replace("/", "."))
    return [key for key in found if key]


_SETTING = re.compile(r"^( *)(\w+):(.*?)(?:\s#\s*(.*))?$")


def meanings(config: str, chosen: Mapping[str, Any]) -> dict[str, str]:
    """What settings mean, by dotted key, as the comments beside them in ``conf/`` say.

    ``config`` is the verb's own file. Where options of a group share a setting, the option that is ``chosen`` says it,
    else another one: what all have in common is said once.
    """
    found: dict[str, str] = {}
    own = [CONF / f"{config}.yaml", CONF / "base.yaml"]
    groups = [path for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "experiment"]
    groups.sort(key=lambda path: not _is_chosen(path, chosen))
    for path in [*own, *groups, *sorted(CONF.glob("*.yaml"))]:
        for key, told in _told(path):
            found.setdefault(key, told)
    return found


def _is_chosen(path: Path, chosen: Mapping[str, Any]) -> bool:
    group = chosen.get(path.parent.name)
    target = group.get("_target_") if isinstance(group, Mapping) else None
    return target is not None and f"_target_: {target}\n" in path.read_text(encoding="utf-8")


def _told(path: Path) -> Iterator[tuple[str, str]]:
    """The settings of a file with a comment beside them, and the comments."""
    text = path.read_text(encoding="utf-8")
    above: list[tuple[int, str]] = (
        [] if path.parent == CONF or "@package _global_" in text else [(-1, path.parent.name)]
    )
    for line in text.splitlines():
        if found := _SETTING.match(line):
            indent = len(found[1])
            above = [*((depth, name) for depth, name in above if depth < indent), (indent, found[2])]
            if found[4]:
                yield ".".join(name for _, name in above), found[4]
