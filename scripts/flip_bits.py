"""Damage is noticed or does no harm: single bits flipped in the files of runs and exports, which are then read again. Linux.

    python scripts/flip_bits.py                   # 200 flips
    python scripts/flip_bits.py --flips 20 --seed 7
    python scripts/flip_bits.py --flips 30 --halves   # the run's plans have half blocks

Runs, searches and fine-tunings are killed at several moments, or left to end, and two of them are exported. One random bit of
one random file is flipped. Then whatever reads such a folder reads it: the same command again and, once a run is complete,
`toast report` and `toast export`; for an export `toast predict`. Each reader must give what it gives without the flip, or say what is
wrong: one sentence and status 1, or a note that a table was changed. Status 1 if one gives something else and says nothing.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads of its own cannot be forked

import argparse
import random
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from kill_runs import HEAVY, OURS, SETTINGS, SHARED, start
from PIL import Image

from toast_cli import cli

MOMENTS = 5  # at which each verb is killed
PLANS = {"run": "9-11", "search": "8-10"}
HALVES = ("spans=[stem-2,8-9a,2-3+9a-11]", "2-3+9a-11")  # of a run, and the one that is exported
FORMATS = {"safetensors": [], "onnx": ["format=onnx"]}
DETECTED, HARMLESS, SILENT, CRASHED = "detected", "without effect", "SILENT", "CRASHED"
SAYS = "was changed"  # the note about a table that is read all the same

Output = tuple[int, str, str, dict[str, bytes]]  # status, stdout, stderr, files
Reader = Callable[[Path], Output]


def forked(words: list[str], place: Path, result: Path | None = None) -> Output:
    """Run a command of toast in a process of its own, in the folder ``place``; its output, and the files in ``result``."""
    sys.stdout.flush()
    if (process := os.fork()) == 0:
        status = 1
        try:
            os.chdir(place)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{place}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            cli.main(words)
            status = 0
        except SystemExit as e:
            status = e.code if isinstance(e.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    out, err = (Path(f"{place}.{name}").read_text(errors="replace") for name in ("out", "err"))
    return status, out, err, {} if result is None else files_of(result)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a run, a report or an export, but for the times in a run's record."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(found.items()) if name not in ("run.json", ".lock")}


@dataclass
class State:
    """A folder to damage: ``readers`` read a copy of it, which always has the same name."""

    name: str
    folder: Path
    readers: dict[str, Reader]

    def expected(self, place: Path) -> dict[str, Output]:
        return {name: self.read(name, place, None)[0] for name in self.readers}

    def read(self, name: str, place: Path, damage: Callable[[Path], str] | None) -> tuple[Output, str]:
        """What a reader gives of a fresh copy, after ``damage``, and what that was."""
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        shutil.copytree(self.folder, place / "it", copy_function=shutil.copy2)
        told = damage(place / "it") if damage else ""
        return self.readers[name](place), told


def reader(words: list[str], result: str | None = None) -> Reader:
    """A command that reads the folder ``it``; what it writes is the folder ``result``."""
    return lambda here: forked(words, here, None if result is None else here / result)


def states(place: Path, halves: bool) -> Iterator[State]:
    """Every kind of folder: half-finished and finished runs, those with ``halves`` of blocks too, and exports."""
    plans = PLANS | ({"run": HALVES[1]} if halves else {})
    for verb, settings in SETTINGS.items():
        words = [verb, *SHARED.split(), *settings.split(), *([HALVES[0]] if halves and verb == "run" else [])]
        plan = [f"plan={plans[verb]}"] if verb in plans else []
        whole = start(words, place / verb)
        if whole.status:
            raise SystemExit((place / f"{verb}.err").read_text())
        for number in range(1, MOMENTS + 1):
            at, half = number * len(whole.moments) // (MOMENTS + 1), place / f"{verb}{number}"
            start(words, half, at)
            yield State(
                f"{verb} killed at {whole.moments[at]}", half, {"again": reader([*words, "hydra.run.dir=it"], "it")}
            )
        export = reader(["export", "it", *plan, "images=8", "device=cpu", "out=export"], "export")
        report = {} if verb == "search" else {"report": reader(["report", "it", "--out", "report"], "report")}
        again = reader([*words, "hydra.run.dir=it"])  # it prints the table and writes nothing
        yield State(f"{verb}, finished", place / verb, {"again": again, **report, "export": export})
    Image.linear_gradient("L").resize((32, 32)).save(place / "picture.png")
    for name, words in FORMATS.items():
        if name == "onnx" and find_spec("onnxruntime") is None:
            continue
        out = place / f"export-{name}"
        forked(
            ["export", str(place / "run"), f"plan={plans['run']}", "images=8", "device=cpu", f"out={out}", *words],
            place,
        )
        yield State(f"export in {name}", out, {"predict": reader(["predict", "it", str(place / "picture.png")])})


def flip(folder: Path, seed: int) -> str:
    """Flip one bit of one file, drawn with ``seed``; returns which."""
    draw = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    file = draw.choice(files)
    content = bytearray(file.read_bytes())
    place, bit = draw.randrange(len(content)), draw.randrange(8)
    content[place] ^= 1 << bit
    file.write_bytes(content)
    return f"{file.relative_to(folder)} byte {place} bit {bit}"


def verdict(expected: Output, found: Output) -> str:
    """What a reader made of a flip."""
    status, _, err, _ = found
    if "Traceback" in err or status not in (0, 1):
        return CRASHED
    if status == 1:
        return DETECTED if err.splitlines()[-1].startswith("toast: ") else CRASHED
    if SAYS in err:
        return DETECTED
    return HARMLESS if (found[1], found[3]) == (expected[1], expected[3]) else SILENT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/flips"), help="where runs go (default: %(default)s)")
    parser.add_argument("--halves", action="store_true", help="half blocks among the plans of toast run")
    args = parser.parse_args()
    for name in (*HEAVY.split(), *(f"toast_cli.{name}" for name in OURS.split()), "toast_cli.stages.deploy"):
        import_module(name)  # here, not again in every process
    begun, place = time.perf_counter(), args.out.absolute()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    found = list(states(place, args.halves))
    there = {state.name: state.expected(place / "here") for state in found}
    for name, outputs in there.items():
        for reader, output in outputs.items():
            if output[0]:
                raise SystemExit(f"{name}: {reader} fails without any damage: {output[2]}")
    draw, tally = random.Random(args.seed), Counter[str]()
    for number in range(args.flips):
        state, seed, worst = found[number % len(found)], draw.randrange(2**32), HARMLESS
        for reader in state.readers:
            output, told = state.read(reader, place / "here", partial(flip, seed=seed))
            made = verdict(there[state.name][reader], output)
            if made in (SILENT, CRASHED):
                print(f"    {made} {reader}: {output[2][-500:]}", flush=True)
            worst = max(worst, made, key=[HARMLESS, DETECTED, CRASHED, SILENT].index)
        tally[worst] += 1
        print(f"{number + 1:4d}  {worst:14}  {state.name}: {told}", flush=True)
    counts = ", ".join(f"{tally[kind]} {kind}" for kind in (DETECTED, HARMLESS, SILENT, CRASHED) if tally[kind])
    print(f"{args.flips} flips, {len(found)} folders: {counts}; {time.perf_counter() - begun:.0f} s")
    sys.exit(bool(tally[SILENT] + tally[CRASHED]))


if __name__ == "__main__":
    main()
