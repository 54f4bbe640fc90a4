"""scripts/bench_growth.py makes as many images as it says, and reads what a run took from the run itself."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from toast_cli.data import dataset as data

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_growth.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_growth", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_growth_has_as_many_digits_as_asked_for(script: ModuleType, tmp_path: Path):
    script.write_digits(tmp_path, 2500)
    assert [len(pd.read_parquet(tmp_path / f"{name}.parquet")) for name in ("train", "test")] == [2000, 500]
    assert data.load("d", None, path=str(tmp_path)).classes == tuple(map(str, range(10)))
