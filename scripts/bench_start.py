"""How long toast takes to answer where it has nothing to compute: seconds and memory of whole commands.

    python scripts/bench_start.py

Makes a small run and a small search of the embedded model, then gives commands that only look at them or are refused, in turn,
several rounds long; the first round is not counted, since it fills the caches. Prints median seconds and the peak of resident
memory (1e6 bytes) of each, and writes them as <out>/start.csv.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = "data.fit_images=40 data.train_images=96 data.test_images=48 spans=[stem-2,9-11,2-3+9-11]"
SEARCH = "data.fit_images=40 data.train_images=96 data.test_images=48 search.halves=false search.rounds=1"
# What is given, and the exit status it should have.
COMMANDS = {
    "--version": 0,
    "--help": 0,
    "run --help": 0,
    f"run {SMALL} hydra.run.dir=run": 0,  # complete
    f"search {SEARCH} hydra.run.dir=search": 0,  # complete
    "status .": 0,
    "report run --out report": 0,
    "rnu": 1,
    "run spanz=all": 1,
    "run spans=3-1": 1,
    "run spans=[9-33]": 1,
    "run probe.epochs=0": 1,
    "run data.fit_images=-5": 1,
    "bench translator=lowrank translator.rank=0": 1,
    "run precision=fp99": 1,
    "run data.path=nowhere": 1,
    "run model.checkpoint=nowhere.safetensors": 1,
    "search search.beam=0": 1,
    "finetune tune.epochs=0": 1,
    "export run": 1,  # of several plans, none is named
    "predict export nowhere.png": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_start"), help="where the CSV file goes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for made in (f"run {SMALL} hydra.run.dir=run", f"search {SEARCH} hydra.run.dir=search",
                     "export run plan=9-11 out=export"):  # fmt: skip
            answer(made, 0, Path(place))
        took: dict[str, list[tuple[float, float]]] = {command: [] for command in COMMANDS}
        for _ in range(1 + args.rounds):
            for command, status in COMMANDS.items():
                took[command].append(answer(command, status, Path(place)))
    rows = [(command, *map(statistics.median, zip(*each[1:], strict=True))) for command, each in took.items()]
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "start.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("command", "seconds", "peak_mb"), *rows])
    for command, seconds, peak in rows:
        print(f"{seconds:6.2f} s {peak:6.0f} MB  toast {command}")


def answer(command: str, status: int, place: Path) -> tuple[float, float]:
    """Seconds and peak memory of ``toast`` with the words of ``command`` in the folder ``place``."""
    begun = time.perf_counter()
    words = [sys.executable, "-m", "toast_cli", *command.split()]
    child = subprocess.Popen(words, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with child:
        told = child.stderr.read() if child.stderr else ""
        _, ended, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(ended)
    if child.returncode != status:
        raise SystemExit(f"toast {command} ended with {child.returncode}: {told}")
    return time.perf_counter() - begun, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    main()
