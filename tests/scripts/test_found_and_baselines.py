"""scripts/found_and_baselines.py on tables whose answers are known."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

PATH = Path(__file__).parents[2] / "scripts" / "found_and_baselines.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("found_and_baselines", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def search(folder: Path, found: list[tuple[int, float, float, float]], others: list[tuple[str, int, float]]) -> Path:
    """``found``: size, loss, accuracy, the rival's; the original's is 0.9. ``others``: baseline, size, accuracy."""
    folder.mkdir()
    front = pd.DataFrame(found, columns=["blocks_removed", "loss", "accuracy_mean", "rival_accuracy"])
    front.assign(accuracy_delta_mean=front.accuracy_mean - 0.9).to_csv(folder / "front.csv")
    table = pd.DataFrame(others, columns=["baseline", "blocks_removed", "accuracy_mean"])
    table.assign(accuracy_delta_mean=table.accuracy_mean - 0.9).to_csv(folder / "baselines.csv")
    return folder


def test_means_over_searches(script, tmp_path):
    one = search(
        tmp_path / "one",
        [(1, 0.2, 0.88, 0.86), (1, 0.1, 0.89, 0.86), (2, 0.3, 0.8, 0.7)],
        [("last", 1, 0.8), ("last", 2, 0.6), ("random", 1, 0.5), ("random", 2, 0.3)],
    )
    other = search(tmp_path / "other", [(1, 0.5, 0.91, 0.9)], [("last", 1, 0.9), ("random", 1, 0.7)])
    lines = script.table([one, other])
    assert lines.index.tolist() == [1], "two blocks are out in one search alone"
    assert lines.columns.tolist() == ["found", "one span", "last", "random"]
    assert lines.loc[1].tolist() == pytest.approx([0.0, -2.0, -5.0, -30.0])
    assert script.table([one]).loc[2].tolist() == pytest.approx([-10, -20, -30, -60])
