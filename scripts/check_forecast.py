"""How accurate `toast run dry=true` is: the memory and time it predicts, next to what the run then takes. Linux.

    python scripts/check_forecast.py                                                   # the embedded model
    python scripts/check_forecast.py model=vit_b model.pretrained=false spans=single   # any settings of toast run

Memory is what the process holds for itself (RssAnon), read every 10 ms. Both ratios are predicted / taken.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOAST = [sys.executable, "-m", "toast_cli", "run"]
GIGABYTES = {"kB": 1e-6, "MB": 1e-3, "GB": 1.0, "TB": 1e3}
SIZES = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def foretold(settings: list[str], folder: Path) -> tuple[float, float]:
    """(GB of memory, seconds after loading) that a dry run predicts."""
    words = [*TOAST, *settings, "dry=true", f"hydra.run.dir={folder}"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    (memory, size), (number, unit) = (
        re.findall(rf"^{what} ([\d.]+) (\w+)", text, re.MULTILINE)[0] for what in ("memory", "time")
    )
    return float(memory) * GIGABYTES[size], float(number) * SIZES[unit]


def taken(settings: list[str], folder: Path) -> tuple[float, float]:
    """(GB of memory at most, seconds of the stages after loading) that the run itself takes."""
    most = 0
    with (folder.parent / "log").open("w") as log:
        process = subprocess.Popen([*TOAST, *settings, f"hydra.run.dir={folder}"], stdout=log, stderr=log)
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status")
            found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text()) if status.exists() else None
            most = max(most, int(found[1]) if found else 0)
            time.sleep(0.01)
    if process.returncode:
        raise SystemExit((folder.parent / "log").read_text())
    seconds = json.loads((folder / "run.json").read_text())["seconds"]
    return most * 1024 / 1e9, sum(value for name, value in seconds.items() if name != "load")


def main() -> None:
    settings = sys.argv[1:]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        memory, seconds = foretold(settings, folder)
        real_memory, real_seconds = taken(settings, folder)
    print(f"memory: {memory:.2f} GB predicted, {real_memory:.2f} GB taken, ratio {memory / real_memory:.2f}")
    print(f"time:   {seconds:.0f} s predicted, {real_seconds:.0f} s taken, ratio {seconds / real_seconds:.2f}")


if __name__ == "__main__":
    main()
