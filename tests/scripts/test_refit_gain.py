"""scripts/refit_gain.py on tables whose answers are known."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

PATH = Path(__file__).parents[2] / "scripts" / "refit_gain.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("refit_gain", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_best_plans_with_linear_maps_once_each(script, tmp_path):
    losses = {"0-1+2-5": 0.3, "0-1:identity+2-5": 0.1, "3-7": 0.0, "0-2+5-7": 0.2, "0-3+5-7": 0.5, "0-1+2-3": 0.0}
    removed = [4, 4, 4, 4, 5, 2]
    table = pd.DataFrame({"plan": losses.keys(), "loss": losses.values(), "blocks_removed": removed})
    table.to_csv(tmp_path / "search.csv")
    assert script.plans([tmp_path], most=2) == "[0-1+2-5,0-2+5-7,0-3+5-7]"
    assert script.plans([tmp_path], most=1) == "[0-1+2-5,0-3+5-7]"


def test_points_of_accuracy_by_number_of_blocks(script, tmp_path):
    rows = [
        (plan, removed, seed, kind, 0.9 + kind * gained)
        for plan, removed, gained in (("0-1+2-5", 4, 0.01), ("0-2+3-5", 4, -0.02), ("0-3+4-6", 5, 0.03))
        for seed in (0, 1)
        for kind in (False, True)
    ]
    table = pd.DataFrame(rows, columns=["plan", "blocks_removed", "data_seed", "sequential", "accuracy"])
    pd.concat([table, table.head(1).assign(plan="0-5")]).to_csv(tmp_path / "results.csv")
    found = script.gain([tmp_path])
    assert found.gain.tolist() == pytest.approx([-0.5, 3.0, 1.25])
    assert found.better.tolist() == pytest.approx([0.5, 1.0, 0.75])
    assert found.pairs.tolist() == [4, 2, 6]
