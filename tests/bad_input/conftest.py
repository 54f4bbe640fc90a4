"""What the tables are checked with, and the files that their commands read."""

import copy
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input.inputs import make
from toast_cli.models import factory as models

Toast = Callable[..., tuple[int, str, str]]
Check = Callable[[str, str], None]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    make(root)
    return root


@pytest.fixture(autouse=True)
def _built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm takes longer to build the embedded model than most commands take to fail."""

    def create(*arguments: object) -> models.Vit:
        key = repr(arguments)
        if key not in _built:
            _built[key] = build(*arguments)
        return copy.deepcopy(_built[key])

    build = models._create
    monkeypatch.setattr(models, "_create", create)


_built: dict[str, models.Vit] = {}


@pytest.fixture
def check_one_line(toast: Toast, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """The command says this one line, with status 1; no run is left, and nothing from the inputs is executed."""

    def check(command: str, sentence: str) -> None:
        here = tmp_path
        if "@" in command:
            here = inputs
            monkeypatch.chdir(inputs)
        before = set(here.rglob("*"))
        status, out, err = toast(*shlex.split(command.replace("@", "")))
        expected = f"toast: {sentence.replace('{here}', str(here))}"
        assert err.count("\n") == 1, err
        assert err.startswith(expected[:-1]) if expected.endswith("…") else err == f"{expected}\n"
        assert (status, out) == (1, "")
        left = {path.relative_to(here) for path in set(here.rglob("*")) - before}
        assert all(path.parts[0] == "outputs" and len(path.parts) < 3 for path in left), (
            "where runs lie, but none of them"
        )
        shutil.rmtree(here / "outputs", ignore_errors=True)
        assert not (inputs / "executed").exists()

    return check


@pytest.fixture
def check_last_line(toast: Toast, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """The command begins a run, and says this line last, with status 1 and no traceback."""

    def check(command: str, sentence: str) -> None:
        monkeypatch.chdir(inputs)
        elsewhere = [f"hydra.run.dir={tmp_path / 'run'}"] if command.startswith(("run", "finetune")) else []
        status, out, err = toast(*shlex.split(command.replace("@", "")), *elsewhere)
        assert (status, out) == (1, "")
        assert err.splitlines()[-1] == f"toast: {sentence}"
        assert "Traceback" not in err

    return check
