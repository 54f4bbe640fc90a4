"""What needs no model answers without what computes one: a folder is looked at, or settings are refused, before torch is imported."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import tiny
from tests.exports import saved
from tests.verbs.conftest import COMMANDS
from toast_cli import cli

HEAVY = ("torch", "timm", "torchvision", "datasets", "sklearn", "scipy", "pandas", "matplotlib")
TRACKERS = ("wandb", "trackio", "mlflow")
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({HEAVY + TRACKERS})); from toast_cli.cli import main; main()"  # importing one fails
SAID = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def without(*words: object) -> subprocess.CompletedProcess:
    """What ``toast`` says to the words in a process that cannot import what is heavy."""
    command = [sys.executable, "-c", WITHOUT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(("run", "table"), [("plain", "results.csv"), ("tuned", "finetune.csv")])
def test_a_complete_run_is_shown_from_its_folder(run: str, table: str, finished: Callable[[str], Path], toast):
    folder = finished(run)
    words = [*COMMANDS[run], f"hydra.run.dir={folder}"]
    ended = without(*words)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == str(folder / table)
    assert ended.stdout == toast(*words)[1]


def test_status_reads_records_alone(finished: Callable[[str], Path]):
    ended = without("status", finished("plain").parent)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.search(r"[1-9]\d* done, 0 running, 0 failed", ended.stdout)


def test_an_export_without_a_plan_asks_for_one(finished: Callable[[str], Path]):
    folder = finished("plain")
    ended = without("export", folder)
    told = f"toast: {folder} has several plans: choose one with plan=, such as plan=4-6.\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told)


def test_predict_looks_for_its_images_first(tmp_path: Path):
    saved(tmp_path, tiny())
    recipe = tmp_path / "recipe.json"
    recipe.write_text(
        recipe.read_text().replace('"num_classes": 5', '"num_classes": 5, "label_names": ["a", "b", "c", "d", "e"]')
    )
    ended = without("predict", tmp_path, "nowhere.png")
    told = "toast: nowhere.png does not exist: give image files or folders of images.\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("run spans=3-1", "span 3-1 must start before it ends"),
        ("run seeds=[x] dry=true", "seeds=['x'] is not a list of seeds"),
        ("similarity data=folder data.path=nowhere", "data.path=nowhere is not a folder"),
        ("search search.beam=0", "search.beam=0 cannot be used"),
        ("finetune tune.epochs=0", "tune.epochs=0 cannot be used"),
        ("bench model.checkpoint=nowhere.bin", "model.checkpoint=nowhere.bin is not a file"),
        ("run features_from=nowhere", "features_from=nowhere holds no features"),
        ("run spans=[9-33]", "span 9-33 ends at block 33, but the model's 12 blocks are 0 to 11"),
        ("run fit_data=folder fit_data.path=nowhere", "fit_data.path=nowhere is not a folder"),
        ("run readout=papr", "readout=papr is not known (did you mean paper?)"),
        ("run model.image_size=0", "model.image_size=0 is not a size"),
        ("run data.fit_images=-5", "data.fit_images=-5 cannot be used"),
        ("run probe.epochs=0", "probe.epochs=0 cannot be used"),
        ("run probe=logistic probe.strengths=[-1]", "probe.strengths=[-1] cannot be used"),
        ("bench translator=lowrank translator.rank=0", "translator.rank=0 cannot be used"),
    ],
)
def test_settings_are_refused_at_once(command: str, told: str):
    ended = without(*command.split())
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"toast: {told}"), ended.stderr


def test_threads_fall_asleep_soon_while_they_wait():
    code = "from toast_cli.cli import main\ntry: main(['--version'])\nexcept SystemExit: import torch"
    unsaid = {name: value for name, value in os.environ.items() if name not in SAID}
    environment = {**unsaid, "OMP_DISPLAY_ENV": "verbose"}  # OpenMP then says what it has read, when torch loads it
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    told = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", ended.stderr)
    if not told:
        pytest.skip("this torch brings another OpenMP along than GNU's")
    assert set(map(int, told)) == {1000}


@pytest.mark.parametrize("said", SAID)
def test_what_a_person_has_said_of_threads_stays(said: str, monkeypatch: pytest.MonkeyPatch, capsys):
    for name in SAID:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(said, "7")
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert {name: os.environ[name] for name in os.environ if name.startswith(("OMP_W", "GOMP_S", "KMP_B"))} == {
        said: "7"
    }
