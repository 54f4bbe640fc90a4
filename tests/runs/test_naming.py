"""A folder is named by what its run computes."""

import pytest

from tests.runs.conftest import config
from toast_cli.runs.naming import folder_name, inputs


def test_the_same_settings_name_the_same_folder():
    name = folder_name(config())
    assert name.startswith("digits_vit-digits-linear-")
    assert len(name.rpartition("-")[2]) == 8
    assert folder_name(config()) == name
    for execution in ("device=cpu", "batch_size=3", "workers=2", "fresh=true", "keep_features=true"):
        assert folder_name(config(execution)) == name
    for science in (
        "spans=single",
        "seeds=[1]",
        "data.fit_images=400",
        "precision=bf16",
        "probe.epochs=6",
        "translator=identity",
    ):
        assert folder_name(config(science)) != name


def test_an_experiment_is_its_settings_not_its_name(tmp_path):
    named = config("experiment=smoke/digits")
    spelled = config(
        "spans=[stem-0,0-4,10-11,2-3+9-11]", "data.fit_images=100", "data.train_images=300", "data.test_images=100"
    )
    assert folder_name(named) == folder_name(spelled)


def test_paths_are_absolute(tmp_path, monkeypatch: pytest.MonkeyPatch):
    here = folder_name(config("data=folder", "data.path=set"))
    assert folder_name(config("data=folder", f"data.path={tmp_path}/set")) == here
    monkeypatch.chdir("/")
    assert folder_name(config("data=folder", "data.path=set")) != here


def test_a_model_in_a_folder_is_its_path_and_its_files(tmp_path, monkeypatch: pytest.MonkeyPatch):
    words = ["model=timm", "model.label=mine"]
    here = folder_name(config(*words, "model.name=local-dir:mine"))
    assert folder_name(config(*words, f"model.name=local-dir:{tmp_path}/mine")) == here
    monkeypatch.chdir("/")
    assert folder_name(config(*words, "model.name=local-dir:mine")) != here
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"1")
    (tmp_path / "mine" / "model.safetensors.index.json").write_bytes(b"1")
    for model in (
        {"name": f"local-dir:{tmp_path}/mine"},
        {"checkpoint": f"{tmp_path}/mine"},
        {"checkpoint": f"{tmp_path}/mine/model.safetensors.index.json"},
    ):
        settings = {"model": model, "data": {}, "fit_data": {}}
        before = inputs(settings)
        (tmp_path / "mine" / "model.safetensors").open("ab").write(b"2")
        assert inputs(settings) != before
