"""How far runs are, by what lies on disk."""

import json
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import SMALL
from toast_cli.runs.folder import RECORD
from toast_cli.verbs.status import Standing, standing


def begun(path: Path, **record: object) -> Path:
    (path / "features").mkdir(parents=True)
    (path / RECORD).write_text(json.dumps({"weights": "w", **record}))
    return path


class TestStanding:
    @pytest.fixture
    def encoding(self, tmp_path: Path) -> Path:
        """A quarter of the features has been written in the 10 s since the stage began with nothing."""
        process, stage = {"pid": 7, "host": "node1"}, {"name": "encode", "begun": 1000.0, "bytes": 0}
        path = begun(tmp_path / "run", process=process, stage=stage, feature_bytes=4000)
        (path / "features" / "train.f32").write_bytes(bytes(1000))
        return path

    def test_running_with_the_time_left(self, encoding: Path):
        with FileLock(encoding / ".lock"):
            told = "encode, 25% of the features, process 7 on node1"
            assert standing(encoding, 1010.0) == Standing(encoding, "running", told, 30.0)

    def test_a_clock_that_was_set_back(self, encoding: Path):
        with FileLock(encoding / ".lock"):
            assert standing(encoding, 900.0).seconds_left is None

    def test_stopped_where_no_process_holds_it(self, encoding: Path):
        (encoding / ".lock").touch()  # what a killed process leaves
        assert standing(encoding, 1010.0).state == "stopped"
        assert standing(encoding, 1010.0).told == "encode, 25% of the features"

    def test_a_run_that_failed_says_why(self, tmp_path: Path):
        path = begun(tmp_path / "run", failed="Memory ran out.")
        assert standing(path, 0.0) == Standing(path, "failed", "Memory ran out.")


def test_all_runs_below_a_folder_are_listed(toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert toast("run", *SMALL)[0] == 0
    monkeypatch.setattr("toast_cli.stages.probe.score", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        toast("run", *SMALL, "seeds=[1]")
    status, out, _ = toast("status")
    assert status == 0
    assert "1 done, 0 running, 1 failed, 0 stopped" in out
    assert "ZeroDivisionError('division by zero')" in out


def test_no_run_at_all_is_a_sentence(toast):
    status, _, err = toast("status", "nowhere")
    assert (status, err) == (
        1,
        "toast: There is no run in nowhere: name the folders that runs are in, such as outputs.\n",
    )
