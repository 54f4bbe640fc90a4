"""A finished result stays finished: scripts/kill_runs.py, which kills runs at moments all over and starts them again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_killed_twice_anywhere_a_run_ends_with_the_same(tmp_path: Path):
    """In a process of its own: one that has computed, as that of the tests has, cannot be forked."""
    words = [sys.executable, ROOT / "scripts" / "kill_runs.py", "--kills", "7", "--times", "2", "--out", tmp_path]
    told = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    lines = told.stdout.splitlines()
    runs = [re.fullmatch(r" *\d+ of \d+  (SIG\w+) +survived  3 starts  ([\w ]+): .+", line) for line in lines[:7]]
    assert all(runs), told.stdout
    assert {run[2] for run in runs} >= {"begin", "load", "fit", "encode", "probe"}
    assert lines[7].startswith("run: 7 of 7 runs survived, killed 14 times in all, ")
    assert lines[-1] == "by signal: SIGKILL 3 of 3, SIGTERM 2 of 2, SIGINT 2 of 2"
    assert [path.name for path in (tmp_path / "run").iterdir() if path.is_dir()] == ["alone"]
