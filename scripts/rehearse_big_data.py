"""A data set too large for memory, rehearsed: synthetic 224 x 224 JPEGs in parquet, streamed through a tiny model. Linux.

    python scripts/rehearse_big_data.py --images 100000 --out rehearsal

Generates the images (about 0.6 GB per 100 000), starts a run over them, kills it in the middle, starts it again and
prints how much memory the process held for itself along the way, and how many images it encoded again.
"""

import argparse
import io
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS = 100  # in a row group, as in the hub's own conversion
MODEL = (
    "model=timm model.name=vit_tiny_patch16_224 model.pretrained=false model.label=tiny "
    "+model.options={depth:4,embed_dim:32,num_heads:2,patch_size:32} spans=single"
)


def generate(folder: Path, count: int, test: int) -> None:
    """Write ``count`` images of smooth noise, all different, ten classes in turn, ``test`` of them for testing."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])
    for split, images in (("train", count - test), ("test", test)):
        path = folder / f"{split}.parquet"
        if path.exists():
            continue
        with pq.ParquetWriter(path.with_suffix(".part"), schema) as writer:
            for first in range(0, images, ROWS):
                labels = [(first + i) % 10 for i in range(min(ROWS, images - first))]
                coarse = generator.integers(0, 256, (len(labels), 12, 12, 3), dtype=np.uint8)
                files = [{"bytes": jpeg(pixels), "path": None} for pixels in coarse]
                writer.write_table(pa.table({"image": files, "label": labels}, schema), row_group_size=ROWS)
        path.with_suffix(".part").rename(path)


def jpeg(pixels: np.ndarray) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR).save(stored, "JPEG", quality=75)
    return stored.getvalue()


class Run:
    """`toast run` in a process of its own, watched."""

    def __init__(self, out: Path, row_bytes: int) -> None:
        settings = f"run {MODEL} data=folder data.path={out}/images data.label_column=label data.streaming=true keep_features=true"
        self.folder, self.row_bytes = out / "run", row_bytes
        self.log = (out / "log").open("a")
        words = [sys.executable, "-m", "toast_cli", *settings.split(), f"hydra.run.dir={self.folder}"]
        self.process = subprocess.Popen(words, stdout=self.log, stderr=self.log)

    @property
    def encoded(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("features/t*.f32")) // self.row_bytes

    @property
    def megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"RssAnon:\s+(\d+)", status)[0]) / 1024

    def watch(self, until: int, every: int) -> None:
        """Print the memory whenever ``every`` more images are encoded, until ``until`` are or the run has ended."""
        told = self.encoded // every
        while self.process.poll() is None and self.encoded < until:
            if self.encoded // every > told:
                told = self.encoded // every
                print(f"{self.encoded:8d} images encoded, {self.megabytes:.0f} MB", flush=True)
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--test", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=Path("rehearsal"))
    args = parser.parse_args()
    begun = time.perf_counter()
    generate(args.out / "images", args.images, args.test)
    size = sum(file.stat().st_size for file in (args.out / "images").iterdir())
    print(f"{args.images} images, {size / 1e9:.2f} GB, generated in {time.perf_counter() - begun:.0f} s")
    row_bytes = 4 * 5 * 32  # five plans, 32 features
    run = Run(args.out, row_bytes)
    run.watch(args.images // 2, args.images // 10)
    run.process.kill()
    run.process.wait()
    before = run.encoded
    print(f"killed with {before} images encoded; started again")
    again = Run(args.out, row_bytes)
    again.watch(before + 1, args.images)
    again.watch(args.images, args.images // 10)
    if again.process.wait():
        raise SystemExit((args.out / "log").read_text())
    counts = re.findall(r"^encode train: (\d+)/", (args.out / "log").read_text(), re.MULTILINE)
    print(
        f"complete: {again.encoded} images, in {time.perf_counter() - begun:.0f} s; progress was reported at {', '.join(counts)}"
    )


if __name__ == "__main__":
    main()
