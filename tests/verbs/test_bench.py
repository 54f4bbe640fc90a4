"""toast bench: what it writes, and what it refuses."""

import csv
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from toast_cli.machine import timing
from toast_cli.registry import CONF
from toast_cli.runs.measured import Timing

FAST = ["seconds=0.05", "device=cpu", "hydra.run.dir=here"]


@pytest.mark.slow
def test_bench_writes_what_it_measured(toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "_LARGEST_BATCH", 8)
    status, out, _ = toast("bench", "spans=[9-11:identity,stem-11]", *FAST)
    assert status == 0
    assert out.splitlines()[-1] == str(tmp_path / "here" / "bench.csv")
    rows = list(csv.DictReader((tmp_path / "here" / "bench.csv").open()))
    assert list(rows[0]) == list(Timing.__annotations__)
    assert [row["plan"] for row in rows] == ["none", "9-11:identity", "stem-11"]
    original, _, shortest = rows
    none, two_less, one_map = (int(row["params"]) for row in rows)
    assert none - one_map == 6 * (none - two_less) - 64**2, "each span has its own translator"
    assert float(original["latency_ratio"]) == float(original["images_per_s_ratio"]) == 1
    assert float(shortest["latency_ratio"]) < 0.7, "no block is left"
    assert float(shortest["images_per_s_ratio"]) > 1.3
    assert float(shortest["params_ratio"]) < 0.1
    for row in rows:
        assert float(row["latency_ms_low"]) <= float(row["latency_ms"]) <= float(row["latency_ms_high"])
        assert int(row["latency_rounds"]) >= 5
        assert float(row["peak_memory_mb"]) > 0


def test_healed_models_have_the_same_layers(toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "_LARGEST_BATCH", 2)
    monkeypatch.setattr("toast_cli.machine.memory.peak_memory", lambda *_: 1.0)  # a process for each model
    status, _, err = toast("bench", "spans=[2-3a]", "fit.heal=true", *FAST)
    assert status == 0, err
    original, healed = csv.DictReader((tmp_path / "here" / "bench.csv").open())
    assert (original["healed"], healed["healed"]) == ("False", "True")
    assert toast("bench", "spans=[2-3a]", *FAST)[0] == 0
    plain = list(csv.DictReader((tmp_path / "here" / "bench.csv").open()))[1]
    assert plain["healed"] == "False"
    assert (healed["params"], healed["gflops"]) == (plain["params"], plain["gflops"])


@pytest.mark.parametrize("value", ["0", "soon", "true"])
def test_seconds_are_checked(toast, value: str):
    status, _, err = toast("bench", f"seconds={value}", "device=cpu", "hydra.run.dir=here")
    assert status == 1
    assert err.endswith("is not a time to measure for: use a number above 0, such as seconds=5.\n")


def test_bench_help_examples_compose(toast):
    help_text = toast("bench", "--help")[1]
    examples = re.findall(r"^ +toast bench(.*?)(?:  .*)?$", help_text, re.MULTILINE)
    assert len(examples) >= 4
    assert "seconds=5" in help_text
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for example in examples:
            compose("bench", example.split())
