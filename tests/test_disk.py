"""A disk that fills up, turns read-only or loses what was written: one sentence, no lost rows, and the next run recovers."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SMALL
from toast_cli.runs import record


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB, where one can be had (Linux, root)."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or _mount(place, "-t", "tmpfs", "-o", "size=100k", "tmpfs"):
        pytest.skip("a file system can be mounted by root alone")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def _mount(place: Path, *words: str) -> int:
    return subprocess.run(["mount", *words, str(place)], capture_output=True).returncode


@pytest.fixture
def undisturbed(toast, tmp_path: Path) -> bytes:
    assert toast("run", *SMALL, "hydra.run.dir=reference", "batch_size=16")[0] == 0
    return (tmp_path / "reference" / "results.csv").read_bytes()


def test_a_full_disk_loses_nothing(undisturbed: bytes, small_disk: Path, toast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("toast_cli.stages.forecast.Forecast.check", lambda *_: None)  # it would say so before it begins
    words = ["run", *SMALL, f"hydra.run.dir={small_disk}/run", "batch_size=16"]
    status, _, err = toast(*words)
    assert status == 1
    said = err.splitlines()[-1]
    assert said.startswith("toast: No space left on device"), said
    assert said.endswith("what is finished is kept, and the same command goes on from there.")
    _mount(small_disk, "-o", "remount,size=10m")
    status, _, err = toast(*words)
    assert status == 0, err
    assert (small_disk / "run" / "results.csv").read_bytes() == undisturbed
    assert not list((small_disk / "run").rglob(".*.tmp"))


def test_a_read_only_folder_is_named(undisturbed: bytes, small_disk: Path, toast):
    _mount(small_disk, "-o", "remount,ro")
    status, _, err = toast("run", *SMALL, f"hydra.run.dir={small_disk}/run")
    assert (status, err.count("\n")) == (1, 1), err
    assert err.startswith(f"toast: Read-only file system ({small_disk}/run): ")


def test_features_that_were_cut_off_are_encoded_again(undisturbed: bytes, toast, tmp_path: Path, monkeypatch):
    words = ["run", *SMALL, "hydra.run.dir=here", "batch_size=16"]
    monkeypatch.setattr("toast_cli.stages.probe.score", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert toast(*words)[0] == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "here" / "features" / "train.f32"
    os.truncate(file, file.stat().st_size // 2 + 5)
    status, _, err = toast(*words)
    assert status == 0, err
    assert (tmp_path / "here" / "results.csv").read_bytes() == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "model,data\n", "model,da"])
def test_a_table_of_another_version_is_refused(toast, tmp_path: Path, content: str):
    words = ["run", *SMALL, "hydra.run.dir=here"]
    assert toast(*words)[0] == 0
    record.write(tmp_path / "here" / "results.csv", content)
    (tmp_path / "here" / "summary.csv").unlink()
    status, _, err = toast(*words)
    path = Path("here/results.csv").absolute()
    assert status == 1
    assert err.splitlines()[-1] == (
        f"toast: {path} does not have the columns that this version of toast writes: move it away, or use fresh=true."
    )
    assert toast(*words, "fresh=true")[0] == 0


def test_a_table_that_ends_in_the_middle_of_a_row_is_named(toast, tmp_path: Path):
    words = ["run", *SMALL, "hydra.run.dir=here"]
    assert toast(*words)[0] == 0
    table = tmp_path / "here" / "results.csv"
    record.write(table, table.read_bytes()[:-60])
    (tmp_path / "here" / "summary.csv").unlink()
    status, _, err = toast(*words)
    assert status == 1
    assert err.endswith(f"toast: Line 5 of {table} cannot be read: restore the file, or use fresh=true.\n")


def test_a_record_that_cannot_be_read_is_named(toast, tmp_path: Path):
    words = ["run", *SMALL, "hydra.run.dir=here"]
    assert toast(*words)[0] == 0
    (tmp_path / "here" / "run.json").write_text('{"weights"')
    status, _, err = toast(*words)
    assert (status, err.count("\n")) == (1, 1), err
    assert "run.json cannot be read" in err
