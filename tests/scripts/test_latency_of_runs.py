"""The script that times the same plan as several runs have fitted it."""

import importlib.util
from pathlib import Path

import pytest

from tests.verbs.conftest import SMALL

SCRIPT = Path(__file__).parents[2] / "scripts" / "latency_of_runs.py"


def test_each_run_is_timed_against_the_first(toast, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("latency_of_runs", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "SECONDS", 0.05)
    for heal in ("false", "true"):
        assert toast("run", *SMALL, "spans=[2-9]", f"fit.heal={heal}", f"hydra.run.dir=heal-{heal}")[0] == 0
    capsys.readouterr()
    script.main("2-9", [Path("heal-false"), Path("heal-true")])
    first, share, *_ = lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == ["batch 1", "batch 16"]
    assert float(first.split(", ")[1].split()[0]) > 0
    assert share.endswith("heal-true")
    assert 0.2 < float(share.split()[0]) < 5
