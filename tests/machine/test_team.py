"""Several processes of one run."""

import math
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tests.conftest import SMALL
from toast_cli.machine import team
from toast_cli.machine.team import Team
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row

WORK = [
    *(setting for setting in SMALL if not setting.startswith(("data.fit_images", "spans"))),
    "data.fit_images=[33,40]",
    "spans=[stem-2,9-11,2-3+9-11,stem-2:context,2-3:context+9-11:context]",
    "translator=ridge",
    "keep_features=true",
    "batch_size=16",
]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 7), (4, 31), (31, 31)])
def test_the_shares_are_all_items_in_order_and_equally_many(size: int, start: int, stop: int):
    shares = [Team(rank, size).ranges(start, stop, 4) for rank in range(size)]
    in_turn = [item for together in zip(*shares, strict=True) for share in together for item in share]
    assert in_turn == list(range(start, stop))


def several(*words: str, processes: int = 2) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run([*launcher, "-m", "toast_cli", *words], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_two_processes_give_what_one_does(toast, tmp_path: Path):
    assert toast("run", *WORK, "hydra.run.dir=one")[0] == 0
    done = several("run", *WORK, "hydra.run.dir=two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("two/results.csv") == 1, "the first process speaks alone"
    one, two = (read_csv(tmp_path / name / "results.csv", Row) for name in ("one", "two"))
    assert [(row.plan, row.fit_images, row.accuracy) for row in one] == [
        (row.plan, row.fit_images, row.accuracy) for row in two
    ]
    with safe_open(tmp_path / "two" / "translators.safetensors", "pt") as file:
        chosen = [file.get_tensor(key) for key in file.keys() if ":context" in key and key.endswith("strengths_")]  # noqa: SIM118
    assert any((each < math.inf).any() for each in chosen), "some maps see the image"
    for split in ("train", "test"):
        a, b = (np.fromfile(tmp_path / name / "features" / f"{split}.f32", np.float32) for name in ("one", "two"))
        assert np.abs(a - b).max() < 2e-6 * np.abs(a).max()


class TestWhatOneProcessDoes:
    @pytest.fixture(autouse=True)
    def _started_by_torchrun(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "4")

    def test_other_verbs_refuse_several_processes(self, toast):
        status, _, err = toast("search")
        assert (status, err) == (
            1,
            "toast: 4 processes were started, but only toast run can share its work between them: start one, or unset WORLD_SIZE.\n",
        )

    def test_a_multirun_refuses_several_processes(self, toast):
        status, _, err = toast("run", "-m", "seeds=[0],[1]")
        assert status == 1
        assert "Several processes can share one run, but not a multirun" in err

    def test_processes_that_no_one_has_started_are_named(self, toast):
        told = (
            "toast: WORLD_SIZE=4 and RANK are set, as for one of 4 processes, but MASTER_ADDR is not: unset both, or start the processes "
            "with torchrun.\n"
        )
        assert toast("run") == (1, "", told)

    @pytest.mark.parametrize("rank", ["4", "-1", "x", ""])
    def test_a_rank_that_there_is_not_is_named(self, rank: str, toast, monkeypatch: pytest.MonkeyPatch):
        for name, value in (("RANK", rank), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")):
            monkeypatch.setenv(name, value)
        assert f"for one of 4 processes, but RANK={rank} is none of them: unset both" in toast("run")[2]

    def test_processes_that_do_not_come_are_not_waited_for_ever(self, toast, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(team, "_ASSEMBLY", timedelta(seconds=2))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(port))
        status, out, err = toast("run")
        assert (status, out) == (1, "")
        assert err.splitlines()[0] == "waiting for 3 other processes, since WORLD_SIZE=4 is set"
        assert "did not come within 2 s: unset WORLD_SIZE and RANK for a run alone, or start" in err


@pytest.mark.parametrize(
    "environment",
    [{"WORLD_SIZE": "8"}, {"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "3"},
     {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}],
)  # fmt: skip
def test_what_a_scheduler_has_left_behind_does_not_matter(environment: dict, toast, monkeypatch: pytest.MonkeyPatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    status, out, err = toast("run", *SMALL)
    assert (status, out.splitlines()[-1].endswith("results.csv")) == (0, True), err
