"""What it costs to go on: seconds and memory of `toast run` against images, plans, depth and width.

    python scripts/bench_growth.py
    python scripts/bench_growth.py images width        only these tables
    python scripts/bench_growth.py large               a ViT-L: 8 GB of memory

Takes the embedded model's shape with random weights, every single block as a plan, 500 fit images and 1 000 digits, and lets one
of them grow at a time, in `toast run` as a process of its own. Prints its tables and writes each as <out>/<table>.csv.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, Features, Image
from sklearn.datasets import load_digits

IMAGES, DEPTH, WIDTH = 1000, 12, 64
PLANS = ("single", "all", "all+pairs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "tables", nargs="*", default=["images", "plans", "depth", "width"], help="(default: all but large)"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_growth"), help="where the CSV files go")
    args = parser.parse_args()
    tables = {
        "images": lambda: [sweep(images=images) for images in (IMAGES, 4 * IMAGES, 16 * IMAGES)],
        "plans": lambda: [sweep(spans=spans) for spans in PLANS],
        "depth": lambda: [sweep(depth=depth) for depth in (DEPTH, 2 * DEPTH, 4 * DEPTH)],
        "width": lambda: [sweep(width=width) for width in (WIDTH, 3 * WIDTH, 6 * WIDTH)],
        "large": lambda: [large()],
    }
    if unknown := [name for name in args.tables if name not in tables]:
        parser.error(f"{unknown[0]} is no table: give some of {', '.join(tables)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.tables:
        frame = pd.DataFrame(tables[name]())
        frame.to_csv(args.out / f"{name}.csv", index=False, float_format="%.6g")
        print(f"\n{name}\n{frame.to_string(index=False, float_format=lambda value: f'{value:.4g}')}", flush=True)


def sweep(images: int = IMAGES, spans: str = PLANS[0], depth: int = DEPTH, width: int = WIDTH) -> dict:
    """A row: the four numbers, and what the run took."""
    options = f"{{patch_size:2,embed_dim:{width},depth:{depth},num_heads:{width // 16}}}"
    with tempfile.TemporaryDirectory() as place:
        write_digits(Path(place), images)
        model = ["precision=fp32", "model.checkpoint=null", "model.pretrained=false", f"model.options={options}"]
        return {"images": images, "depth": depth, "width": width,
                **run([*model, f"spans={spans}", "data=folder", f"data.path={place}"], Path(place) / "run")}  # fmt: skip


def write_digits(place: Path, count: int) -> None:
    digits = load_digits()
    for name, size in (("train", 4 * count // 5), ("test", count // 5)):
        which = np.arange(size) % len(digits.target)
        pictures = [(digits.images[i] * 255 / 16).astype(np.uint8) for i in which]
        features = Features({"image": Image(), "label": ClassLabel(num_classes=10)})
        Dataset.from_dict({"image": pictures, "label": digits.target[which].tolist()}, features).to_parquet(
            place / f"{name}.parquet"
        )


def large() -> dict:
    """Every span that keeps block 0 of a 24-block ViT-L with random weights, on a few images of four patches."""
    spans = ",".join(f"{start}-{end}" for start in range(23) for end in range(start + 1, 24))
    words = ["model=timm", "model.name=vit_large_patch16_224", "model.pretrained=false", "model.image_size=32"]
    counts = ["data.fit_images=300", "data.train_images=10", "data.test_images=10"]
    with tempfile.TemporaryDirectory() as place:
        row = run([*words, *counts, f"spans=[{spans}]"], Path(place) / "run")
    pairs = 276
    return {"model": "vit_large_patch16_224", **row, "moments_mb": (pairs + 24) * 1024**2 * 8 / 1e6}


def run(words: Iterable[str], folder: Path) -> dict:
    """What `toast run` takes: plans, seconds in all, of the processor, and in its stages, and on Linux the peak of resident memory (1e6 bytes)."""
    begun, before, peak = time.perf_counter(), os.times(), None
    command = [sys.executable, "-m", "toast_cli", "run", *words, f"hydra.run.dir={folder}"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    status = Path(f"/proc/{child.pid}/status")
    while child.poll() is None:  # wait4's figure would start from what this process holds when it forks
        time.sleep(0.1)
        with suppress(OSError):
            peaks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            peak = 1024 * int(peaks[0]) / 1e6 if peaks else peak
    took, after = time.perf_counter() - begun, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    if child.returncode:
        raise SystemExit(f"{' '.join(command)[:300]} failed")
    record = json.loads((folder / "run.json").read_text())
    stages = {f"{name}_s": record["seconds"][name] for name in ("fit", "encode", "probe")}
    plans = len(pd.read_csv(folder / "summary.csv"))
    return {
        "plans": plans,
        "seconds": took,
        "processor_s": processor,
        **stages,
        "peak_mb": peak,
        "features_mb": record["feature_bytes"] / 1e6,
    }


if __name__ == "__main__":
    main()
