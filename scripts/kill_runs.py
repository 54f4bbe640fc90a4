"""A finished result stays finished: runs killed all over, started again, and compared with one left alone. Linux.

    python scripts/kill_runs.py                                             # toast run, 48 kills
    python scripts/kill_runs.py --verb search --kills 40                    # or finetune
    python scripts/kill_runs.py --times 3 translator=mlp translator.steps=5   # three kills a run, any settings of toast

A run that is left alone counts its moments: each batch, encoder call, probe seed and epoch that begins, and each file
when it is about to be opened, half written, written, flushed to the disk, renamed, about to be removed, removed. Every
other run kills itself at one of these, and the same command is given again until it ends. Its files must equal those of
the first run bit for bit, with nothing that was finished done again and no temporary file or features left behind;
SIGINT and SIGTERM must have left one line on how to go on. Status 1 if a run does not survive; its folder then stays in
--out.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads of its own cannot be forked

import argparse
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.plugins import Plugins
from PIL import Image as Pillow

from toast_cli import cli
from toast_cli.probes import batched as probes
from toast_cli.runs.folder import RunFolder
from toast_cli.stages import fit as fitting
from toast_cli.stages import tune as tuning
from toast_cli.stages import walk as encode
from toast_cli.stages.job import Job

SETTINGS = {
    "run": "spans=[stem-2,9-11,2-3+9-11] seeds=[0,1] batch_size=16",
    "search": "search.blocks=2 search.halves=false search.beam=2 search.rounds=2 seeds=[0,1] batch_size=32",
    "finetune": "spans=[6-11] seeds=[0,1] batch_size=32 tune.epochs=2 tune.learning_rate=1e-4 tune.batch_size=32",
}
SHARED = "data.fit_images=40 data.train_images=96 data.test_images=48 device=cpu"
STATUS = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}
GOES_ON = "what is finished is kept, and the same command goes on from there."
SAID = {"SIGTERM": f"toast: Terminated: {GOES_ON}", "SIGINT": f"toast: Interrupted: {GOES_ON}"}
KEEPERS = {  # what is worked on, by the file that keeps it once it is renamed
    "translators.safetensors": "maps",
    "results.csv": "seeds",
    "finetune.csv": "seeds",
    "epoch.pt": "epochs",
}
OF_ITS_OWN = {"run.json", ".lock"}  # times and processes differ from run to run
HEAVY = "pandas scipy.stats sklearn.datasets matplotlib.backends.backend_agg matplotlib.backends.backend_pdf"
OURS = (
    "stages.load stages.finetune search.rounds search.baselines search.front search.figure report.screen "
    "probes.classifiers data.sources"
)


@dataclass
class Start:
    """One process of a run, after its end: the moments it reached, the work it began, and the part of that it lost."""

    status: int
    said: str
    moments: list[str] = field(default_factory=list)
    work: Counter = field(default_factory=Counter)
    lost: Counter = field(default_factory=Counter)

    @classmethod
    def read(cls, status: int, trace: Path, stderr: Path) -> "Start":
        start = cls(status, (stderr.read_text().splitlines() or [""])[-1])
        pending: dict[str, Counter] = {}
        for line in trace.read_text().splitlines():
            kind, keeper, what = line.split("\t")
            if kind == "moment":
                start.moments.append(what)
            elif kind == "work":
                start.work[what] += 1
                pending.setdefault(keeper, Counter())[what] += 1
            else:
                pending.pop(keeper, None)
        start.lost = sum(pending.values(), Counter())
        return start


class Victim:
    """Notes what its process does, in a file that outlives it, and kills it at moment number ``at`` by ``by``."""

    def __init__(self, folder: Path, trace: Path, at: int | None, by: str) -> None:
        self.folder, self.at, self.by = folder, at, by
        self.trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.count, self.stage, self.file, self.trained = 0, "begin", "", False

    def note(self, kind: str, keeper: str, what: str) -> None:
        os.write(self.trace, f"{kind}\t{keeper}\t{what}\n".encode())

    def moment(self, what: str) -> None:
        self.note("moment", "", f"{self.stage}: {what}")
        self.count += 1
        if self.count - 1 == self.at:
            os.kill(os.getpid(), signal.Signals[self.by])

    def work(self, keeper: str, what: str) -> None:
        """Note work that has begun; whoever goes on does it again unless ``kept`` comes first."""
        self.note("work", keeper, what)
        self.moment(what)

    def kept(self, keeper: str) -> None:
        self.note("kept", keeper, "")

    def holds(self, path: Path) -> bool:
        return path.is_relative_to(self.folder)

    def watch(self) -> None:
        """Wrap everything that makes a moment."""
        for owner, name in (
            (RunFolder, "stage"), (Job, "batches"), (encode.Encoder, "__call__"), (fitting, "_train"), (fitting, "_trained"),
            (probes.BatchedProbe, "fit"), (tuning.Training, "_epoch"),
            (Path, "open"), (Path, "replace"), (Path, "unlink"), (os, "fsync"),
        ):  # fmt: skip
            setattr(owner, name, self.around(getattr(self, f"on_{name.strip('_')}"), getattr(owner, name)))

    @staticmethod
    def around(hook: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *values, **named: hook(original, *values, **named)

    @contextmanager
    def on_stage(self, original: Any, folder: RunFolder, name: str) -> Iterator[None]:
        self.stage = name
        with original(folder, name):
            yield
        self.stage = f"after {name}"

    def on_batches(self, original: Any, job: Job, images: Any, *rest: Any, **named: Any) -> Iterator[Any]:
        for batch in original(job, images, *rest, **named):
            self.batch = f"{images.split.name} images {batch.first} to {batch.first + batch.size - 1}"
            if self.stage == "fit":
                self.work("latents" if self.trained else "maps", f"latents of {self.batch}")
            else:
                self.moment(f"decoded {self.batch}")
            yield batch

    def on_call(self, original: Any, *values: Any) -> Any:
        if self.stage == "fit":
            self.moment("encoder called")
        else:
            self.work("features", f"encoder called for {self.batch}")
        return original(*values)

    def on_train(self, original: Any, *values: Any) -> Any:
        self.trained = True
        return original(*values)

    def on_trained(self, original: Any, translator: Any, source: Any, target: Any, *rest: Any) -> Any:
        self.work("maps", f"training from {source.path.stem} to {target.path.stem}")
        return original(translator, source, target, *rest)

    def on_fit(self, original: Any, probe: Any, *values: Any, **named: Any) -> Any:
        self.work("seeds", f"probe seed {values[3]}")
        return original(probe, *values, **named)

    def on_epoch(self, original: Any, training: Any, images: Any, epoch: int) -> float:
        self.work("epochs", f"epoch {epoch} of seed {training.seed}")
        return original(training, images, epoch)

    def on_open(self, original: Any, path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if mode not in ("wb", "ab") or not self.holds(path):
            return original(path, mode, *rest, **named)
        self.file = path.name.removeprefix(".").removesuffix(".tmp")
        self.moment(f"{self.file} about to be opened")
        return Halves(original(path, mode, *rest, **named), self)

    def on_fsync(self, original: Any, number: int) -> None:
        original(number)
        self.moment(f"{self.file} flushed")

    def on_replace(self, original: Any, path: Path, target: Path) -> None:
        original(path, target)
        self.kept(KEEPERS.get(target.name, "nothing"))
        self.moment(f"{target.name} renamed")

    def on_unlink(self, original: Any, path: Path, missing_ok: bool = False) -> None:
        there = self.holds(path) and path.exists()
        if there:
            self.moment(f"{path.name} about to be removed")
        original(path, missing_ok)
        if path.name.startswith("latent"):
            self.kept("latents")
        if there:
            self.moment(f"{path.name} removed")


class Halves:
    """A file that writes everything in two parts."""

    def __init__(self, file: Any, victim: Victim) -> None:
        self.file, self.victim = file, victim

    def __enter__(self) -> "Halves":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: bytes) -> None:
        half, appended = len(content) // 2, self.victim.file.endswith(".sums")
        for part, what in ((content[:half], "half written"), (content[half:], "written")):
            self.file.write(part)
            self.file.flush()
            if appended and what == "written":
                self.victim.kept("features")
            self.victim.moment(f"{self.victim.file} {what}")


def start(words: list[str], folder: Path, at: int | None = None, by: str = "SIGKILL") -> Start:
    """Run a command in a process of its own, which kills itself at moment ``at``; returns after its end."""
    beside = {name: folder.with_name(f"{folder.name}.{name}") for name in ("trace", "out", "err")}
    sys.stdout.flush()
    if (process := os.fork()) == 0:
        _end(words, folder, beside, at, by)
    _, status = os.waitpid(process, 0)
    return Start.read(os.waitstatus_to_exitcode(status), beside["trace"], beside["err"])


def _end(words: list[str], folder: Path, beside: dict[str, Path], at: int | None, by: str) -> NoReturn:
    """The whole life of a forked process."""
    status = 1
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(beside[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        Victim(folder, beside["trace"], at, by).watch()
        cli.main([*words, f"hydra.run.dir={folder}"])
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def contents(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(files.items()) if name not in OF_ITS_OWN}


def wrong(alone: Start, expected: dict[str, bytes], starts: list[Start], by: str, folder: Path) -> list[str]:
    """What is wrong with a run that was killed in all its ``starts`` but the last, and has ended."""
    *killed, last = starts
    found = []
    for each in killed:
        if each.status != STATUS[by]:
            found.append(f"it ended with status {each.status} where it should be {STATUS[by]}: {each.said}")
        elif by in SAID and each.said != SAID[by]:
            found.append(f"its last line was: {each.said}")
    if last.status != 0:
        return [*found, f"started again, it ended with status {last.status}: {last.said}"]
    there = contents(folder)
    found += [f"{name} is left behind" for name in there.keys() - expected.keys()]
    found += [f"{name} is missing" for name in expected.keys() - there.keys()]
    found += [f"{name} is different" for name in there.keys() & expected.keys() if there[name] != expected[name]]
    done = sum((each.work - each.lost for each in killed), Counter()) + last.work
    return [*found, *(f"done again: {what}" for what in done - alone.work)]


def temporary(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*.tmp")]


def kill(words: list[str], folder: Path, alone: Start, at: int, by: str, times: int) -> tuple[list[Start], list[str]]:
    """Kill a run at moment ``at``, and again when it goes on, ``times`` in all; then start it again so that it ends.

    Returns all its starts, and which temporary files were there after signals that can be handled.
    """
    starts, found = [start(words, folder, at, by)], []
    while starts[-1].status == STATUS[by] and len(starts) < times:
        found += [f"{name} was left by {by}" for name in temporary(folder) if by != "SIGKILL"]
        at = (at + len(alone.moments)) // 2 % max(len(starts[-1].moments), 1)
        starts.append(start(words, folder, at, by))
    if starts[-1].status == STATUS[by]:
        found += [f"{name} was left by {by}" for name in temporary(folder) if by != "SIGKILL"]
        starts.append(start(words, folder))
    return starts, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="settings of toast, in addition to those of this small run")
    parser.add_argument("--verb", choices=SETTINGS, default="run")
    parser.add_argument("--kills", type=int, default=48, help="moments to kill a run at (default: %(default)s)")
    parser.add_argument("--times", type=int, default=1, help="how often each run is killed (default: %(default)s)")
    parser.add_argument("--signals", default=",".join(STATUS), help="signals to use in turn (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/kills"), help="where runs go (default: %(default)s)")
    args = parser.parse_args()
    signals = args.signals.split(",")
    if unknown := set(signals) - STATUS.keys():
        parser.error(f"--signals takes {','.join(STATUS)}, not {','.join(unknown)}")
    for name in (*HEAVY.split(), *(f"toast_cli.{name}" for name in OURS.split())):  # here, not again in every process
        import_module(name)
    Pillow.init()
    Plugins.instance()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has background processes ignore SIGINT

    begun, place = time.perf_counter(), args.out.absolute() / args.verb
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    words = [args.verb, *SHARED.split(), *SETTINGS[args.verb].split(), *args.settings]
    alone = start(words, place / "alone")
    if alone.status:
        raise SystemExit((place / "alone.err").read_text())
    expected, total = contents(place / "alone"), len(alone.moments)
    tally: dict[str, Counter] = {"by stage": Counter(), "by signal": Counter()}
    survived: dict[str, Counter] = {"by stage": Counter(), "by signal": Counter()}
    kills, deaths = min(args.kills, total), 0
    for number in range(kills):
        at, by, folder = number * total // kills, signals[number % len(signals)], place / f"kill{number}"
        starts, found = kill(words, folder, alone, at, by, args.times)
        found += wrong(alone, expected, starts, by, folder)
        deaths += len(starts) - 1
        verdict = "FAILED" if found else "survived"
        print(f"{at + 1:4d} of {total}  {by:7}  {verdict}  {len(starts)} starts  {alone.moments[at]}", flush=True)
        for sentence in found:
            print(f"              {sentence}", flush=True)
        for how, key in (("by stage", alone.moments[at].partition(":")[0]), ("by signal", by)):
            tally[how][key] += 1
            survived[how][key] += not found
        if not found:
            for path in place.glob(f"{folder.name}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    lived = survived["by signal"].total()
    seconds = time.perf_counter() - begun
    print(f"{args.verb}: {lived} of {kills} runs survived, killed {deaths} times in all, {seconds:.0f} s")
    for how, counts in tally.items():
        print(f"{how}: {', '.join(f'{key} {survived[how][key]} of {count}' for key, count in counts.items())}")
    sys.exit(lived != kills)


if __name__ == "__main__":
    main()
