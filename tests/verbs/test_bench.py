import csv
from pathlib import Path

import pytest
import torch

from toast_cli.machine import memory, timing
from toast_cli.runs.rows import Timing

FAST = ["seconds=0.05", "device=cpu", "hydra.run.dir=here"]


def test_bench_writes_what_it_measured(toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "_LARGEST_BATCH", 8)
    status, out, _ = toast("bench", "spans=[9-11,9-11:identity,stem-11]", *FAST)
    assert status == 0
    assert out.splitlines()[-1] == str(tmp_path / "here" / "bench.csv")
    rows = list(csv.DictReader((tmp_path / "here" / "bench.csv").open()))
    assert list(rows[0]) == list(Timing.__annotations__)
    assert [row["plan"] for row in rows] == ["none", "9-11", "9-11:identity", "stem-11"]
    original, linear, identity, shortest = rows
    assert int(linear["params"]) - int(identity["params"]) == 64**2, "each span has its own translator"
    assert float(original["latency_ratio"]) == float(original["images_per_s_ratio"]) == 1
    assert float(shortest["latency_ratio"]) < 0.7, "no block is left"
    assert float(shortest["images_per_s_ratio"]) > 1.3
    assert float(shortest["params_ratio"]) < 0.1
    for row in rows:
        assert float(row["latency_ms_low"]) <= float(row["latency_ms"]) <= float(row["latency_ms_high"])
        assert int(row["latency_rounds"]) >= 5
        assert float(row["peak_memory_mb"]) > 0


def test_calls_take_turns():
    order: list[str] = []
    times = timing.rounds([lambda: order.append("a"), lambda: order.append("b")], seconds=0, least=2)
    assert order == ["a", "b"] * 5, "three times to warm up, twice measured"
    assert [len(seen) for seen in times] == [2, 2]


def test_best_batch_stops_where_memory_runs_out():
    class Full(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError
            return x

    assert timing.best_batch(Full(), lambda count: torch.zeros(count, 3)) in (1, 2)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_counts_weights_and_activations():
    model = torch.nn.Sequential(torch.nn.Linear(8, 4_000_000, bias=False), torch.nn.Flatten())  # 128 MB
    small, large = (memory.peak_memory(model, (n, 1, 1, 8), torch.device("cpu")) for n in (1, 8))
    assert small == pytest.approx(128 + 16, rel=0.2)
    assert large - small == pytest.approx(7 * 16, rel=0.2)


@pytest.mark.parametrize("value", ["0", "soon", "true"])
def test_seconds_are_checked(toast, value: str):
    status, _, err = toast("bench", f"seconds={value}", "device=cpu", "hydra.run.dir=here")
    assert status == 1
    assert err.endswith("is not a time to measure for: use a number above 0, such as seconds=5.\n")
