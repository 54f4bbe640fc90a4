"""A finished run as a stranger would hand it on, and code of the stranger's that must never run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import SMALL
from toast_cli.cli import main
from toast_cli.runs import record

WORDS = [*SMALL[:3], "spans=[9-11]", "device=cpu", "keep_features=true"]
_EVIL = """
from pathlib import Path
Path({marker!r}).write_text("imported")
def run(*args, **kwargs):
    Path({marker!r}).write_text("called")
"""


@pytest.fixture(scope="session")
def _honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest") / "run"
    main(["run", *WORDS, f"hydra.run.dir={folder}"])
    return folder


@pytest.fixture
def stranger(_honest: Path, tmp_path: Path) -> Path:
    """A complete run that a test may change."""
    return Path(shutil.copytree(_honest, tmp_path / "stranger"))


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that exists once the module ``evil`` was imported or called."""
    path = tmp_path / "marker"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "evil.py").write_text(_EVIL.format(marker=str(path)))
    monkeypatch.syspath_prepend(tmp_path / "code")
    return path


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a run's settings as its author could: with the checksum that belongs to them."""
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    change(settings)
    record.write(folder / "config.yaml", yaml.safe_dump(settings))
