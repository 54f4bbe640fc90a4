"""How long it takes to learn where the images in tar files lie: made files of 5 000 images and labels each, then indexed.

    python scripts/bench_tar_index.py --images 100000 --out tar_index

Images are 2 kB of noise, since their content is not read.
"""

import argparse
import io
import os
import tarfile
import time
from pathlib import Path

from toast_cli.data.tar_shards import TarRows

SHARD = 5000  # images in a file


def pack(file: Path, first: int, count: int) -> None:
    """Write ``count`` images from number ``first`` on, ten classes in turn, unless the file is there."""
    if file.exists():
        return
    with tarfile.open(file.with_suffix(".part"), "w") as tar:
        for number in range(first, first + count):
            for ending, content in (("jpg", os.urandom(2000)), ("cls", b"%d" % (number % 10))):
                member = tarfile.TarInfo(f"{number:08}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    file.with_suffix(".part").rename(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("tar_index"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    files = [args.out / f"train-{first // SHARD:06}.tar" for first in range(0, args.images, SHARD)]
    for number, file in enumerate(files):
        pack(file, number * SHARD, min(SHARD, args.images - number * SHARD))
    begun = time.perf_counter()
    rows = TarRows(list(map(str, files)))
    indexed = time.perf_counter()
    labels = rows.column("label")
    print(
        f"{len(rows)} images: index {indexed - begun:.1f} s, {len(set(labels))} classes read in {time.perf_counter() - indexed:.1f} s"
    )


if __name__ == "__main__":
    main()
