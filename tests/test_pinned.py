"""What users hold does not break: folder names, run folders, exports and Python names as they were before the wings.

``tests/pinned`` was written by the version of toast that still had all its modules in one folder.
"""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object

from toast_cli.registry import CONF
from toast_cli.runs.naming import folder_name, register_resolvers, today
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.stages.load import load_data

PINNED = Path(__file__).parent / "pinned"
NAMES = json.loads((PINNED / "folder_names.json").read_text())
SIZES = ["data.fit_images=40", "data.train_images=96", "data.test_images=48", "device=cpu"]
COMMANDS = {
    "run-logistic": ["run", *SIZES, "spans=[0-10]", "translator=affine", "probe=logistic", "seeds=[0,1]"],
    "run-mlp": ["run", *SIZES, "spans=[0-10]", "translator=mlp", "translator.steps=3"],
    "finetune": ["finetune", *SIZES, "spans=[0-10]", "tune.epochs=1"],
    "search": [
        "search",
        *SIZES,
        "search.blocks=1",
        "search.images=40",
        "search.rounds=1",
        "search.beam=1",
        "search.halves=false",
        "search.penalty=1",
    ],
    "similarity": ["similarity", *SIZES, "spans=none"],
}
WORK = ("toast_cli.verbs.run.run", "toast_cli.verbs.search.search", "toast_cli.verbs.similarity.similarity",
        "toast_cli.verbs.finetune.finetune")  # fmt: skip


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """The folders that the former version left, as if their digits had been packed by today's Pillow."""
    shutil.copytree(PINNED / "outputs", tmp_path / "outputs")
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        now = load_data(compose("config", SIZES)).fingerprint()
    for record in (tmp_path / "outputs").rglob("run.json"):
        record.write_text(re.sub(r'"data": "\w+"', f'"data": "{now}"', record.read_text()))
    return tmp_path / "outputs"


@pytest.mark.parametrize("command", NAMES)
def test_folder_names(command: str):
    verb, *settings = command.split()
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert folder_name(compose({"run": "config"}.get(verb, verb), settings)) == NAMES[command]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_command_finds_its_run_complete(name: str, outputs: Path, toast, monkeypatch: pytest.MonkeyPatch):
    for work in WORK:
        monkeypatch.setattr(work, lambda *_: pytest.fail("there is nothing left to do"))
    before = {file: file.read_bytes() for file in outputs.rglob("*") if file.suffix in (".csv", ".yaml", ".json")}
    status, out, err = toast(*COMMANDS[name])
    assert status == 0, err
    assert Path(out.splitlines()[-1]).parent.parent == outputs / name.partition("-")[0]
    assert {file: file.read_bytes() for file in before} == before


def test_status_and_report(outputs: Path, toast):
    status, out, _ = toast("status", "outputs")
    assert (status, "5 done, 0 running, 0 failed, 0 stopped" in out) == (0, True)
    assert (
        toast("report", "outputs/run/digits_vit-digits-affine-5317bf72", "outputs/similarity", "outputs/finetune")[0]
        == 0
    )
    assert "affine" in (outputs / "report" / "tables.md").read_text()


@pytest.mark.parametrize("run", ["run/digits_vit-digits-affine-5317bf72", "run/digits_vit-digits-mlp-73d8bc63",
                                 "finetune/digits_vit-digits-linear-060f3d9b"])  # fmt: skip
def test_a_former_run_is_exported(run: str, outputs: Path, toast):
    status, _, err = toast("export", f"outputs/{run}", "plan=0-10", "images=48", "out=model")
    assert status == 0, err
    assert "the same class for 48 of 48 images" in err
    recipe = json.loads(Path("model/recipe.json").read_text())
    assert recipe["plan"] == "0-10"
    if "affine" in run:
        former = json.loads((PINNED / "outputs/export/digits_vit-digits-0-10-safetensors/recipe.json").read_text())
        for key in ("format", "architecture", "blocks", "head", "classes", "params", "plan", "row", "translators"):
            assert former[key].items() <= recipe[key].items() if key == "row" else recipe[key] == former[key]


def test_a_former_export_gives_the_same_logits():
    import toast_cli

    model = toast_cli.load(PINNED / "outputs" / "export" / "digits_vit-digits-0-10-safetensors")
    images = torch.linspace(-1, 1, 4 * 3 * 8 * 8).reshape(4, 3, 8, 8).sin()
    expected = torch.tensor(json.loads((PINNED / "export_logits.json").read_text()))
    with torch.inference_mode():
        assert torch.allclose(model(images), expected, atol=1e-4)


def test_a_run_goes_on_under_the_name_that_its_probe_had(outputs: Path, toast):
    """One seed of the former run is taken away: the same command fits nothing and gives the same rows."""
    folder = outputs / "run" / "digits_vit-digits-affine-5317bf72"
    rows = (folder / "results.csv").read_text()
    (folder / "results.csv").write_text("".join(rows.splitlines(keepends=True)[:3]))
    (folder / "run.json").write_text((folder / "run.json").read_text().replace('"complete": true', '"complete": false'))
    assert toast(*COMMANDS["run-logistic"])[0] == 0
    former = [row.accuracy for row in read_csv(PINNED / folder.relative_to(outputs.parent) / "results.csv", Row)]
    assert [row.accuracy for row in read_csv(folder / "results.csv", Row)] == pytest.approx(former, abs=1 / 48)


def test_python_names():
    import toast_cli

    assert set(toast_cli.__all__) == {"Plan", "Span", "__version__", "compress", "load", "load_elastic"}
    for module, names in {
        "toast_cli": "Plan Span compress load __version__",
        "toast_cli.models": "load Backbone",
        "toast_cli.data": "load Data",
        "toast_cli.moments": "Moments PairMoments",
        "toast_cli.translators": "Translator Identity Linear Affine Ridge Orthogonal LowRank Shift Mlp DeepMlp TrainedTranslator",
        "toast_cli.probes": "Probe LinearProbe MlpProbe KnnProbe LogisticProbe PretrainedHead",
        "toast_cli.surgery": "shorten load",
        "toast_cli.layers": "MapBlock Residual Shift ByPosition",  # pickled models name these
    }.items():
        for name in names.split():
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
    from toast_cli.layers import MapBlock

    assert MapBlock.__module__ == "toast_cli.layers"


@pytest.mark.parametrize(
    "target",
    ["toast_cli.classifiers.KnnProbe", "toast_cli.classifiers.LogisticProbe", "toast_cli.classifiers.PretrainedHead",
     "toast_cli.trained.Mlp", "toast_cli.trained.DeepMlp", "toast_cli.probes.LinearProbe", "toast_cli.translators.Linear",
     "toast_cli.models.load", "toast_cli.data.load"],
)  # fmt: skip
def test_targets_of_former_configs(target: str):
    assert get_object(today(target)).__name__ == target.rpartition(".")[2]


def test_a_config_of_ones_own_may_name_a_former_target(toast, tmp_path: Path):
    (tmp_path / "mine" / "probe").mkdir(parents=True)
    (tmp_path / "mine" / "probe" / "near.yaml").write_text("_target_: toast_cli.classifiers.KnnProbe\nneighbours: 3\n")
    status, _, err = toast("run", *SIZES, "spans=none", "--config-dir", "mine", "probe=near")
    assert status == 0, err


def test_as_a_module():
    said = subprocess.run([sys.executable, "-m", "toast_cli", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("toast ")
