"""Where ``conf/`` is and what it offers."""

from collections.abc import Sequence
from pathlib import Path

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
