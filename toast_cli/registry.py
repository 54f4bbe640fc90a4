"""Where ``conf/`` is and what it offers."""

from pathlib import Path


def _conf() -> Path:
    """The folder ``conf/``: inside an installed package, next to it in a checkout."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package / "conf", package.parent / "conf") if path.is_dir())


CONF = _conf()


def options(group: str, roots: list[Path]) -> dict[str, Path]:
    """The files of a config group by the names that choose them; files of later roots replace those of earlier ones."""
    files = [(root / group, path) for root in roots for path in sorted((root / group).rglob("*.yaml"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for folder, path in files}
