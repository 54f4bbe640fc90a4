"""A run's folder belongs to one process, one set of settings and one set of files."""

import os
import platform
from functools import partial

import pytest
from omegaconf import OmegaConf

from tests.runs.conftest import config
from toast_cli.errors import ToastError
from toast_cli.files import write_atomically
from toast_cli.runs.folder import open_folder

open_run = partial(open_folder, outputs=("results.csv", "summary.csv"))


def test_one_process_at_a_time(tmp_path):
    with (
        open_run(tmp_path / "run", config()),
        pytest.raises(
            ToastError,
            match=rf"run is in use by another toast process \(process {os.getpid()} on {platform.node()}\): wait until it has",
        ),
        open_run(tmp_path / "run", config()),
    ):
        pass
    with open_run(tmp_path / "run", config()):
        pass


def test_a_folder_belongs_to_its_settings(tmp_path):
    with open_run(tmp_path, config()) as folder:
        folder.begin(weights="aa")
    with (
        pytest.raises(
            ToastError, match=r"holds a run with another data.fit_images, spans: choose another hydra.run.dir"
        ),
        open_run(tmp_path, config("data.fit_images=10", "spans=single")),
    ):
        pass
    with open_run(tmp_path, config("data.fit_images=10", "fresh=true")):
        assert OmegaConf.load(tmp_path / "config.yaml").data.fit_images == 10


def test_fresh_removes_what_a_run_writes_and_nothing_else(tmp_path):
    with open_run(tmp_path, config()) as folder:
        folder.begin(weights="aa")
        (tmp_path / "features").mkdir()
        for name in ("results.csv", "features/train.f32", "thesis.tex"):
            (tmp_path / name).write_text("old")
    with open_run(tmp_path, config("fresh=true")) as folder:
        assert not folder.complete
        folder.begin(weights="aa")
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex", "config.yaml", "run.json", ".lock"}


def test_what_no_run_left_is_never_touched(tmp_path):
    for name in ("results.csv", "config.yaml"):
        (tmp_path / name).write_text("mine")
        for setting in ("fresh=true", "fresh=false"):
            with (
                pytest.raises(
                    ToastError,
                    match=f"holds a {name} that no toast run left there: choose another hydra.run.dir=<dir>.",
                ),
                open_run(tmp_path, config(setting)),
            ):
                pass
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


def test_fresh_must_be_true_or_false(tmp_path):
    with open_run(tmp_path, config()) as folder:
        folder.begin(weights="aa")
        (tmp_path / "results.csv").write_text("rows")
    with (
        pytest.raises(ToastError, match="fresh=no is neither true nor false: write fresh=true or fresh=false."),
        open_run(tmp_path, config("fresh=no")),
    ):
        pass
    assert (tmp_path / "results.csv").exists()


def test_a_mistyped_setting_leaves_no_folder(tmp_path):
    with pytest.raises(ToastError), open_run(tmp_path / "run", config()):
        raise ToastError("span 9-12 ends at block 12")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(ToastError), open_run(tmp_path / "run", config("spans=9-12")):
        raise ToastError("span 9-12 ends at block 12")
    with open_run(tmp_path / "run", config("spans=9-11")) as folder:
        folder.begin(weights="aa")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"notes.txt", "config.yaml", "run.json", ".lock"}


def test_temporary_files_of_a_killed_run_go(tmp_path):
    (tmp_path / ".results.csv.tmp").write_text("half a")
    (tmp_path / ".thesis.tex.tmp").write_text("mine")
    with open_run(tmp_path, config()):
        assert not (tmp_path / ".results.csv.tmp").exists()
        assert (tmp_path / ".thesis.tex.tmp").exists()


def test_what_a_run_is_made_of_must_not_change_under_it(tmp_path):
    with open_run(tmp_path, config()) as folder:
        folder.begin(weights="aa", precision="fp32")
        folder.begin(weights="aa", precision="fp32")
        with pytest.raises(
            ToastError,
            match="was begun with weights aa, which is now bb: restore it to go on, or start over with fresh=true.",
        ):
            folder.begin(weights="bb")


def test_complete_until_the_files_it_read_change(tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_text("one")
    settings = config(f"model.checkpoint={weights}")
    with open_run(tmp_path / "run", settings) as folder:
        folder.begin(weights="aa")
        folder.finish()
        for name in ("results.csv", "summary.csv"):
            assert not folder.complete
            write_atomically(folder / name, "")
        assert folder.complete
    weights.write_text("other")
    with open_run(tmp_path / "run", settings) as folder:
        assert not folder.complete
