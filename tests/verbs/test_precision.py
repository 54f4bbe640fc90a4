"""bf16 is close to fp32, and auto keeps to what a run was begun with."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SMALL
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row


@pytest.mark.slow
def test_bf16_is_close_and_says_so(toast, tmp_path):
    assert toast("run", *SMALL, "hydra.run.dir=fp32", "precision=fp32", "keep_features=true")[0] == 0
    assert toast("run", *SMALL, "hydra.run.dir=bf16", "precision=bf16", "keep_features=true")[0] == 0
    assert {row.precision for row in read_csv(tmp_path / "bf16" / "results.csv", Row)} == {"bf16"}
    one, other = (
        np.memmap(tmp_path / precision / "features" / "test.f32", np.float32, "r", shape=(48, 4, 64))
        for precision in ("fp32", "bf16")
    )
    assert 1e-5 < np.linalg.norm(one - other) / np.linalg.norm(one) < 0.01


def test_auto_stands_for_the_same_precision_when_a_run_goes_on(toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("toast_cli.machine.device._NARROW", 1)
    monkeypatch.setattr("toast_cli.machine.device._faster_in_bf16", lambda device, width: True)
    monkeypatch.setattr("toast_cli.stages.probe.score", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        toast("run", *SMALL, "hydra.run.dir=here")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert toast("run", *SMALL, "hydra.run.dir=here")[0] == 0
    assert {row.precision for row in read_csv(tmp_path / "here" / "results.csv", Row)} == {"bf16"}
