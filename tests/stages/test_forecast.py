"""What a run will take, said before it begins."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL


def test_a_dry_run_tells_all_and_leaves_nothing(toast, tmp_path: Path):
    status, out, err = toast("run", *SMALL, "dry=true", "hydra.run.dir=here")
    assert status == 0, err
    assert re.fullmatch(
        r"time \d.* \(fit \d.*, encode \d.*, probe \d.*\)\n"
        r"memory [\d.]+ [MG]B at most, disk [\d.]+ kB of [\d.]+ [GT]B free\n"
        r"folder \S*here\n",
        out,
    )
    assert "plans: none stem-2 9-11 2-3+9-11" in err
    assert "images: 40 fit, 96 train, 48 test" in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_of_a_complete_run_nothing_is_left(toast):
    assert toast("run", *SMALL, "hydra.run.dir=here", "keep_features=true")[0] == 0
    assert toast("run", *SMALL, "hydra.run.dir=here", "dry=true")[1].startswith(
        "time 0 s (fit 0 s, encode 0 s, probe 0 s)"
    )


def test_mistakes_are_found_dry_too(toast):
    assert toast("run", "dry=true", "spans=9-12")[0] == 1
    assert "dry=perhaps is neither true nor false" in toast("run", "dry=perhaps")[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of another process is read from /proc")
def test_memory_is_foretold_within_30_percent():
    script = Path(__file__).parents[2] / "scripts" / "check_forecast.py"
    done = subprocess.run([sys.executable, str(script), *SMALL], capture_output=True, text=True, check=True)
    assert 0.7 < float(re.search(r"^memory: .* ratio ([\d.]+)", done.stdout, re.MULTILINE)[1]) < 1.3
