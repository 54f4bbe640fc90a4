"""toast run -m: several runs, side by side or one after the other."""

from pathlib import Path

import pytest

from tests.conftest import SMALL
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row


@pytest.mark.slow
def test_each_job_in_its_own_folder_and_all_resumable(toast, tmp_path):
    status, out, _ = toast("run", "-m", *SMALL, "translator=identity,linear")
    assert status == 0
    paths = [line for line in out.splitlines() if line.endswith("results.csv")]
    assert [read_csv(Path(path), Row)[0].translator for path in paths] == ["identity", "linear"]
    assert toast("run", *SMALL, "translator=identity")[1].splitlines()[-1] == paths[0]


def test_one_bad_job_does_not_stop_the_others(toast):
    status, out, err = toast(
        "run", "-m", "data.fit_images=40", "data.train_images=96", "data.test_images=48", "spans=9-12,9-11,5-3"
    )
    assert status == 1
    assert out.count("results.csv") == 1
    assert "2 runs failed; the same command tries these again." in err
    assert "span 9-12 ends at block 12" in err
    assert "span 5-3 must start before it ends" in err


def test_fail_fast_stops_at_the_first_bad_job(toast, tmp_path):
    status, out, err = toast("run", "-m", *SMALL[:3], "spans=9-12,9-11,5-3", "fail_fast=true")
    assert (status, out) == (1, "")
    assert err == "toast: span 9-12 ends at block 12, but the model's 12 blocks are 0 to 11.\n"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_launcher_runs_jobs_in_processes_of_their_own(toast, tmp_path, launcher: str):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    words = ["run", "-m", *SMALL[:3], "spans=9-12,9-11", f"hydra/launcher={launcher}"]
    status, _, err = toast(*words)
    assert status == 1
    assert err.endswith("toast: span 9-12 ends at block 12, but the model's 12 blocks are 0 to 11.\n")
    assert len(list(tmp_path.glob("outputs/run/*/results.csv"))) == 1
    assert not list(tmp_path.glob(".toast-failures*"))


def test_a_launcher_that_is_not_installed_is_named(toast):
    status, _, err = toast("run", "-m", "hydra/launcher=ray")
    assert status == 1
    assert err.startswith(
        "toast: hydra/launcher=ray is not available: joblib, submitit_local and submitit_slurm come with pip"
    )
