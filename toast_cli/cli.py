"""The ``toast`` verbs. Imports nothing heavy: a verb that needs torch imports it when it runs."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from toast_cli import __version__
from toast_cli.errors import Parser, ToastError, did_you_mean
from toast_cli.launch import launch
from toast_cli.listing import listing
from toast_cli.sentences import sentence
from toast_cli.signals import Terminated, terminated

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``toast``: runs the verb, turns a ToastError into one sentence on stderr and exit status 1."""
    argv = sys.argv[1:] if argv is None else argv
    debug = os.environ.get("TOAST_DEBUG", "") not in ("", "0")
    try:
        with terminated():
            _dispatch(argv)
    except Terminated:
        sys.exit(_complain(f"Terminated: {_GOES_ON}", status=143))
    except KeyboardInterrupt:
        if debug:
            raise
        sys.exit(_complain(f"Interrupted: {_GOES_ON}", status=130))
    except Exception as e:
        told = sentence(e)
        if debug or told is None:
            raise
        sys.exit(_complain(told))


_GOES_ON = "what is finished is kept, the same command goes on from there."


def _complain(sentence: str, status: int = 1) -> int:
    print(f"toast: {sentence}", file=sys.stderr)
    return status


def _dispatch(argv: list[str]) -> None:
    verbs: dict[str, Callable[[list[str]], None]] = {
        "run": _run,
        "search": _search,
        "similarity": _similarity,
        "finetune": _finetune,
        "export": _export,
        "predict": _predict,
        "bench": _bench,
        "report": _report,
        "status": _status,
        "doctor": _doctor,
        "list": listing,
    }
    if argv[:1] in (["-sc"], ["--shell-completion"]):
        _complete(argv)
    elif argv and argv[0] in verbs:
        verbs[argv[0]](argv[1:])
    elif argv and not argv[0].startswith("-"):
        raise ToastError(
            f"'{argv[0]}' is not a verb{did_you_mean(argv[0], verbs)}: use {', '.join(verbs)}, or see toast --help."
        )
    else:
        _parser().parse_args(argv or ["--help"])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="toast",
        description="Replace spans of a vision transformer's blocks by closed-form maps, and measure what that costs and what it saves.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""\
verbs:
  run [key=value ...]         sweep over spans: results.csv, summary.csv, a table (toast run --help)
  search [key=value ...]      the best plan under a budget, of any number of spans (toast search --help)
  similarity [key=value ...]  CKA, cosine, MSE, R² of blocks and of last latents  (toast similarity --help)
  finetune [key=value ...]    train a shortened model: accuracy before and after  (toast finetune --help)
  export <run> [key=value ..] a shortened model as files that load anywhere       (toast export --help)
  predict <export> <images>   the classes that an exported model sees in files    (toast predict --help)
  bench [key=value ...]       latency, throughput, peak memory of shortened models   (toast bench --help)
  report <folders>            tables, figures and a page from any number of runs  (toast report --help)
  status <folders>            which runs are done, running, failed, and the time left
  doctor                      what this machine, its installation and the hub offer; a self-test
  list [group]                what can be chosen: models, data, translators, probes, experiments

examples:
  toast run                                      the embedded model, offline
  toast run model=dinov2_b data=cifar100         a model and a data set from the hub
  toast run -m model=vit_s,deit_s data=mnist     a sweep over settings
  toast list models

TOAST_DEBUG=1 shows the traceback of an error.""",
    )
    parser.add_argument("--version", action="version", version=f"toast {__version__}")
    return parser


def _run(argv: list[str]) -> None:
    """``toast run``: what ``run.py`` does."""

    def show(path: Path) -> None:
        from toast_cli.results import read_csv
        from toast_cli.rows import Summary
        from toast_cli.screen import print_table

        print_table(read_csv(path / "summary.csv", Summary))

    outputs = ["results.csv", "summary.csv"]

    def job(cfg: "DictConfig", path: Path) -> None:
        from toast_cli.errors import require_flag
        from toast_cli.folders import RunFolder, open_folder
        from toast_cli.run import assist, rehearse, run
        from toast_cli.team import join

        dry = require_flag(cfg.dry, "dry")
        with join() as team:
            if dry:
                if team.leads:
                    rehearse(cfg, RunFolder(path, "", ()))
                return
            if not team.leads:
                if team.share(False):
                    assist(cfg, RunFolder(path, "", ()), team)
                return
            with open_folder(path, cfg, outputs) as folder:
                if team.share(not folder.complete):
                    run(cfg, folder, team)
        show(path)
        print(path / outputs[0])

    launch("config", argv, job)


def _search(argv: list[str]) -> None:
    """``toast search``: what ``search.py`` does."""

    def show(path: Path) -> None:
        from toast_cli.results import read_csv
        from toast_cli.rows import Found
        from toast_cli.screen import print_front

        print_front(read_csv(path / "front.csv", Found))

    _in_folder(argv, "search", "search", ["front.csv"], show)


def _similarity(argv: list[str]) -> None:
    """``toast similarity``: what ``compare.py`` does."""
    _in_folder(argv, "similarity", "compare", ["similarity.csv"], lambda path: None)


def _finetune(argv: list[str]) -> None:
    """``toast finetune``: what ``finetune.py`` does."""

    def show(path: Path) -> None:
        from toast_cli.results import read_csv
        from toast_cli.rows import Tuned
        from toast_cli.screen import print_tuned

        print_tuned(read_csv(path / "finetune.csv", Tuned))

    _in_folder(argv, "finetune", "finetune", ["finetune.csv"], show)


def _in_folder(argv: list[str], config: str, module: str, outputs: list[str], show: Callable[[Path], None]) -> None:
    """A verb whose work, the function named like its module, is done in a run's folder, and only where it is not done yet."""
    from toast_cli.folders import open_folder

    def job(cfg: "DictConfig", path: Path) -> None:
        with open_folder(path, cfg, outputs) as folder:
            if not folder.complete:
                getattr(import_module(f"toast_cli.{module}"), module)(cfg, folder)
        show(path)
        print(path / outputs[0])

    launch(config, argv, job)


def _export(argv: list[str]) -> None:
    """``toast export``: what ``export.py`` does. The first word is the run's folder, ``run=`` for short."""
    if argv and not argv[0].startswith("-") and "=" not in argv[0]:
        quoted = argv[0].replace("'", "\\'")
        argv = [f"run='{quoted}'", *argv[1:]]

    def job(cfg: "DictConfig", path: Path) -> None:
        from omegaconf import OmegaConf

        if OmegaConf.is_missing(cfg, "run"):
            raise ToastError(
                "toast export needs the folder of a finished run: toast export outputs/run/<run> plan=9-11."
            )
        from toast_cli.export import export

        print(export(cfg))

    launch("export", argv, job)


def _predict(argv: list[str]) -> None:
    """``toast predict``: what ``predict.py`` does."""
    parser = Parser(
        prog="toast predict",
        description="The classes that an exported model sees in image files.",
        epilog="example: toast predict outputs/export/<model> photo.jpg holidays/ --top 3",
    )
    parser.add_argument("export", type=Path, help="the folder that toast export wrote")
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of such")
    parser.add_argument("--top", type=int, default=5, help="how many classes (default: %(default)s)")
    args = parser.parse_args(argv)
    from toast_cli.predict import predict

    predict(args.export, args.images, args.top)


def _report(argv: list[str]) -> None:
    """``toast report``: what ``report.py`` does."""
    parser = Parser(
        prog="toast report",
        description="One table, its figures and a page to read, from any number of runs.",
        epilog="example: toast report outputs/run outputs/similarity --out report",
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs, or folders that hold such")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/report"), help="where it is written (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    from toast_cli.report import report

    print(report(args.folders, args.out))


def _status(argv: list[str]) -> None:
    """``toast status``: what ``status.py`` does."""
    parser = Parser(
        prog="toast status",
        description="Which runs are done, running, failed or stopped, and the time left.",
        epilog="example: toast status outputs",
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("outputs")], help="where runs lie (default: outputs)"
    )
    args = parser.parse_args(argv)
    from toast_cli.status import status

    status(args.folders)


def _doctor(argv: list[str]) -> None:
    """``toast doctor``: what ``doctor.py`` does."""
    parser = Parser(
        prog="toast doctor",
        description="What this machine, its installation and the hub offer, and a self-test; status 1 if something is wrong.",
    )
    parser.parse_args(argv)
    from toast_cli.doctor import doctor

    sys.exit(doctor())


def _bench(argv: list[str]) -> None:
    """``toast bench``: what ``bench.py`` does."""

    def job(cfg: "DictConfig", path: Path) -> None:
        from toast_cli.bench import bench

        bench(cfg, path)

    launch("bench", argv, job)


def _complete(argv: list[str]) -> None:
    """Hydra's shell completion calls ``toast -sc query=bash`` with the line in COMP_LINE; it completes the verb ``run``."""
    os.environ["COMP_LINE"] = re.sub(r"^(\S+\s+)run(\s|$)", r"\1", os.environ.get("COMP_LINE", ""))
    _run(argv)
