"""Complete runs of every verb go to a tracker, once, with what a table says and without folders of this machine.

``tests/report/trackers`` stands in for the packages; where the real ones are installed, its signatures are compared with
theirs, and a run is sent to them without a network.
"""

import csv
import importlib
import importlib.util
import inspect
import io
import json
import shutil
import sys
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from tests.test_pinned import COMMANDS, PINNED
from toast_cli.errors import ToastError
from toast_cli.report.tracking import Tracker, finished
from toast_cli.runs.folder import Folder
from toast_cli.runs.record import read_record

STAND_INS = Path(__file__).parent / "trackers"
NAMES = ("wandb", "trackio", "mlflow")
RUN = "run-logistic"


def forget() -> None:
    """Let the packages be found anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] in NAMES]:
        del sys.modules[name]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Complete runs, in the folder that their commands look in."""
    return Path(shutil.copytree(PINNED / "outputs", tmp_path / "outputs"))


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget()
    monkeypatch.syspath_prepend(STAND_INS)
    yield
    forget()


def calls(name: str) -> list[tuple[str, object]]:
    return importlib.import_module(name).CALLS


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


SENT = {
    RUN: ("summary", {"accuracy_mean", "accuracy_std", "accuracy_delta_mean", "params_ratio", "gflops_ratio"}),
    "finetune": ("finetune", {"accuracy_original", "accuracy_before", "accuracy_after", "params", "gflops"}),
    "search": ("front", {"accuracy_mean", "accuracy_delta_mean", "params_ratio", "blocks_removed"}),
    "similarity": ("similarity", set()),
}


@pytest.mark.parametrize("command", SENT)
def test_a_complete_run_of_each_verb_is_sent_once(command: str, outputs: Path, stand_ins, toast):
    status, out, err = toast(*COMMANDS[command], "tracker=wandb", "tracker.project=mine")
    assert status == 0, err
    assert "greeting" not in out, "stdout is for results"
    table = Path(out.splitlines()[-1])
    (_, begun), (_, logged), (_, (numbers, error)) = calls("wandb")
    verb = COMMANDS[command][0]
    assert (begun["project"], begun["name"], begun["verb"], error) == ("mine", table.parent.name, verb, None)
    assert begun["group"] == "digits_vit-digits"
    assert begun["settings"]["data.train_images"] == 96
    name, columns = SENT[command]
    rows = lines(table.parent / f"{name}.csv")
    assert len(logged[name].rows) == len(rows)
    assert {key: "" if value is None else str(value) for key, value in logged[name].rows[-1].items()}.items() >= {
        key: value for key, value in rows[-1].items() if key in logged[name].rows[-1]
    }.items()
    assert columns <= set(numbers)
    if columns:  # one plan is all that the run has
        assert begun["settings"]["chosen.plan"] == rows[-1]["plan"]
        assert all(numbers[column] == float(rows[-1][column]) for column in columns)
    assert read_record(table.parent)["tracked"] == {"wandb/mine": "https://wandb.example/1"}
    before = len(calls("wandb"))
    again = toast(*COMMANDS[command], "tracker=wandb", "tracker.project=mine")
    assert again[:2] == (0, out)
    assert again[2] == "note: wandb has this run already (https://wandb.example/1)\n"
    assert len(calls("wandb")) == before


def test_trackio_and_mlflow_get_the_same(outputs: Path, stand_ins, toast):
    out = toast(*COMMANDS[RUN], "tracker=trackio")[1]
    folder = Path(out.splitlines()[-1]).parent
    (_, begun), (_, logged), (ended, _) = calls("trackio")
    assert (begun["project"], begun["name"], ended) == ("toast", folder.name, "finish")
    assert begun["settings"]["verb"] == "run"
    assert toast(*COMMANDS[RUN], "tracker=mlflow")[:2] == (0, out)
    assert set(read_record(folder)["tracked"]) == {"trackio/toast", "mlflow/toast"}
    kinds = [kind for kind, _ in calls("mlflow")]
    assert (kinds[:2], kinds[-1]) == (["experiment", "run"], "end")
    assert calls("mlflow")[1][1] == (folder.name, {"verb": "run", "group": "digits_vit-digits"})
    params = {key: value for kind, each in calls("mlflow") if kind == "batch" for key, value in each.items()}
    assert params["probe.strengths"] == str(begun["settings"]["probe.strengths"])
    assert params["accuracy_mean"] == logged["accuracy_mean"]
    (file, columns) = next(each for kind, each in calls("mlflow") if kind == "table")
    assert file == "summary.json"
    assert columns["plan"] == [row["plan"] for row in logged["summary"].rows] == ["none", "0-10"]
    assert calls("mlflow")[-1] == ("end", "FINISHED")


def test_a_tracker_that_fails_fails_no_run(outputs: Path, stand_ins, toast, monkeypatch: pytest.MonkeyPatch):
    wandb = importlib.import_module("wandb")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto host.")

    with monkeypatch.context() as broken:
        broken.setattr(wandb, "init", fail)
        status, out, err = toast(*COMMANDS[RUN], "tracker=wandb")
    folder = Path(out.splitlines()[-1]).parent
    assert (status, "0-10" in out) == (0, True)
    assert err == (
        f"note: wandb has not taken this run (ConnectionError: no route to host): it is complete in {folder}, and the same command sends it "
        "again.\n"
    )
    assert "tracked" not in read_record(folder)
    status, again, err = toast(*COMMANDS[RUN], "tracker=wandb")
    assert (status, again, err.splitlines()[-1]) == (0, out, "wandb has this run (https://wandb.example/1)")
    monkeypatch.setattr(importlib.import_module("mlflow").MlflowClient, "log_table", fail)
    assert toast(*COMMANDS[RUN], "tracker=mlflow")[0] == 0
    assert calls("mlflow")[-1] == ("end", "FAILED")


@pytest.mark.parametrize("verb", ["run", "search"])
def test_a_missing_package_is_named_before_any_work(verb: str, toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    status, out, err = toast(verb, "tracker=mlflow")
    assert (status, out) == (1, "")
    assert err == (
        "toast: tracker=mlflow needs the package mlflow, which is not installed: pip install 'toast-cli[trackers]', or leave tracker out.\n"
    )
    assert not list(tmp_path.rglob("run.json"))


def test_a_folder_of_the_same_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What wandb writes offline lies in ./wandb."""
    forget()
    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    (tmp_path / "wandb" / "offline-run-1").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ToastError, match="needs the package wandb"):
        Tracker.check({"name": "wandb", "project": "toast"})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "aim", "project": "a"}, "tracker.name=aim is not a tracker: use tracker=wandb, tracker=trackio"),
        ({"name": "wandb", "project": None}, "tracker.project=None is not a name"),
        ("wandb", "tracker=wandb replaces a group of settings"),
        ({"name": "wandb", "project": "a", "key": 1}, "tracker.key is not a setting"),
    ],
)
def test_other_settings_are_refused(given: object, told: str, stand_ins):
    with pytest.raises(ToastError, match=f"^{told}"):
        Tracker.check(given)


def test_neither_folders_nor_other_peoples_pictures_are_sent(outputs: Path):
    path = next((outputs / "search").iterdir())
    settings = (path / "config.yaml").read_text()
    for key, value in (("path: null", "path: /home/ann/photos"), ("name: vit", "name: local-dir:/srv/m/vit")):
        assert key in settings
        settings = settings.replace(key, value)
    (path / "config.yaml").write_text(settings)
    record = json.loads((path / "run.json").read_text())
    record["checksums"] = {name: each for name, each in record.get("checksums", {}).items() if name != "config.yaml"}
    record.pop("checksum", None)
    (path / "run.json").write_text(json.dumps(record))
    Folder(path).write("front.png", b"a picture")
    (path / "holiday.png").write_bytes(b"another")
    sent = finished(Folder(path), "search")
    assert sent.pictures == {"figures/front": path / "front.png"}
    assert "front" in sent.tables
    assert sent.settings["data.path"] == sent.settings["fit_data.path"] == "photos"
    assert sent.settings["model.name"].startswith("local-dir:vit")
    assert "/home" not in str(sent.settings)
    assert "/srv" not in str(sent.settings)
    assert sent.settings["model.checkpoint"].startswith("pkg://"), "part of toast, no folder of anybody"


def load_stand_in(name: str) -> ModuleType:
    path = STAND_INS / f"{name}.py" if name != "mlflow" else STAND_INS / "mlflow" / "__init__.py"
    spec = importlib.util.spec_from_file_location(f"stand_in_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CALLED = {
    "wandb": ["init", "Settings", "Table", "Image", "Run.log"],
    "trackio": ["init", "log", "finish", "Table", "Image"],
    "mlflow": [
        "set_experiment", "MlflowClient.create_run", "MlflowClient.log_batch", "MlflowClient.log_table",
        "MlflowClient.log_artifact", "MlflowClient.set_terminated",
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_stand_ins_have_the_real_signatures(name: str):
    real, ours = pytest.importorskip(name), load_stand_in(name)
    for called in CALLED[name]:
        known, wanted = (inspect.signature(attrgetter(called)(module)).parameters for module in (real, ours))
        assert set(wanted) <= set(known), called
        shared = [key for key in known if key in wanted]
        assert called == "Settings" or list(wanted) == shared, "in the same order"


@pytest.fixture
def drawn(outputs: Path) -> Path:
    """A search with a picture."""
    folder = next((outputs / "search").iterdir())
    picture = io.BytesIO()
    Image.new("RGB", (4, 3), "red").save(picture, "PNG")
    Folder(folder).write("front.png", picture.getvalue())
    return folder


@pytest.mark.slow
def test_wandb_itself_offline(drawn: Path, toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    status, _, err = toast(*COMMANDS["search"], "tracker=wandb")
    assert status == 0, err
    run = next((tmp_path / "wandb").glob("offline-run-*"))
    assert f"offline, for wandb sync: {run}" in err
    table = json.loads(next(run.rglob("front*.table.json")).read_text())
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    known = lines(drawn / "front.csv")[0]
    assert len(list(run.rglob("front*.png"))) == 1
    assert (row["plan"], row["accuracy_mean"]) == (known["plan"], float(known["accuracy_mean"]))


@pytest.mark.slow
def test_trackio_itself_on_this_machine(drawn: Path, toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    forget()  # it reads that when it is imported
    trackio = pytest.importorskip("trackio")
    status, _, err = toast(*COMMANDS["search"], "tracker=trackio")
    assert (status, "trackio has this run" in err) == (0, True), err
    (run,) = trackio.Api().runs("toast")
    assert run.name == drawn.name
    assert run.config["chosen.plan"] == lines(drawn / "front.csv")[0]["plan"]
    assert len(list((tmp_path / "trackio").rglob("*.png"))) == 1


@pytest.mark.slow
def test_mlflow_itself_on_this_machine(drawn: Path, toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    status, _, err = toast(*COMMANDS["search"], "tracker=mlflow")
    assert (status, "mlflow has this run" in err) == (0, True), err
    (run,) = mlflow.search_runs(experiment_names=["toast"], output_format="list")
    assert (run.info.run_name, run.info.status, run.data.tags["verb"]) == (drawn.name, "FINISHED", "search")
    assert run.data.metrics["accuracy_mean"] == float(lines(drawn / "front.csv")[0]["accuracy_mean"])
    assert run.data.params["data.train_images"] == "96"
    assert not {"mlflow.user", "mlflow.source.name", "mlflow.source.git.commit"} & set(run.data.tags)
    table = mlflow.load_table("summary.json", run_ids=[run.info.run_id])
    assert list(table["plan"]) == [row["plan"] for row in lines(drawn / "summary.csv")]
    assert "front.png" in {each.path for each in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
