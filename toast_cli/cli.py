"""The ``toast`` verbs. Imports nothing heavy: a verb that needs torch imports it when it runs."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from toast_cli import __version__
from toast_cli.errors import ToastError, did_you_mean
from toast_cli.listing import listing
from toast_cli.registry import CONF
from toast_cli.sentences import sentence

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``toast``: runs the verb, turns a ToastError into one sentence on stderr and exit status 1."""
    argv = sys.argv[1:] if argv is None else argv
    debug = os.environ.get("TOAST_DEBUG", "") not in ("", "0")
    try:
        _dispatch(argv)
    except KeyboardInterrupt:
        if debug:
            raise
        sys.exit(_complain("Interrupted: what is finished is kept, the same command goes on from there.", status=130))
    except Exception as e:
        told = sentence(e)
        if debug or told is None:
            raise
        sys.exit(_complain(told))


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
    parser = argparse.ArgumentParser(
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
    """``toast run``: what ``run.py`` does, in the run's own folder."""
    from toast_cli.folders import open_folder
    from toast_cli.results import read_csv
    from toast_cli.rows import Summary
    from toast_cli.screen import print_table

    def job(cfg: "DictConfig", path: Path) -> None:
        with open_folder(path, cfg) as folder:
            if not folder.complete:
                from toast_cli.run import run

                run(cfg, folder)
        print_table(read_csv(path / "summary.csv", Summary))
        print(path / "results.csv")

    _hydra("config", argv, job)


def _search(argv: list[str]) -> None:
    """``toast search``: what ``search.py`` does, in a run's folder."""
    from toast_cli.folders import open_folder
    from toast_cli.results import read_csv
    from toast_cli.rows import Found
    from toast_cli.screen import print_front

    def job(cfg: "DictConfig", path: Path) -> None:
        with open_folder(path, cfg, ["front.csv"]) as folder:
            if not folder.complete:
                from toast_cli.search import search

                search(cfg, folder)
        print_front(read_csv(path / "front.csv", Found))
        print(path / "front.csv")

    _hydra("search", argv, job)


def _similarity(argv: list[str]) -> None:
    """``toast similarity``: what ``compare.py`` does, in a run's folder."""
    from toast_cli.folders import open_folder

    def job(cfg: "DictConfig", path: Path) -> None:
        with open_folder(path, cfg, ["similarity.csv"]) as folder:
            if not folder.complete:
                from toast_cli.compare import compare

                compare(cfg, folder)
        print(path / "similarity.csv")

    _hydra("similarity", argv, job)


def _finetune(argv: list[str]) -> None:
    """``toast finetune``: what ``finetune.py`` does, in a run's folder."""
    from toast_cli.folders import open_folder
    from toast_cli.results import read_csv
    from toast_cli.rows import Tuned
    from toast_cli.screen import print_tuned

    def job(cfg: "DictConfig", path: Path) -> None:
        with open_folder(path, cfg, ["finetune.csv"]) as folder:
            if not folder.complete:
                from toast_cli.finetune import finetune

                finetune(cfg, folder)
        print_tuned(read_csv(path / "finetune.csv", Tuned))
        print(path / "finetune.csv")

    _hydra("finetune", argv, job)


def _export(argv: list[str]) -> None:
    """``toast export``: what ``export.py`` does. The first word is the run's folder, ``run=`` for short."""
    if argv and not argv[0].startswith("-") and "=" not in argv[0]:
        argv = [f"run='{argv[0]}'", *argv[1:]]

    def job(cfg: "DictConfig", path: Path) -> None:
        from omegaconf import OmegaConf

        if OmegaConf.is_missing(cfg, "run"):
            raise ToastError(
                "toast export needs the folder of a finished run: toast export outputs/run/<run> plan=9-11."
            )
        from toast_cli.export import export

        print(export(cfg))

    _hydra("export", argv, job)


def _predict(argv: list[str]) -> None:
    """``toast predict``: what ``predict.py`` does."""
    parser = argparse.ArgumentParser(
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
    parser = argparse.ArgumentParser(
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


def _bench(argv: list[str]) -> None:
    """``toast bench``: what ``bench.py`` does."""

    def job(cfg: "DictConfig", path: Path) -> None:
        from toast_cli.bench import bench

        bench(cfg, path)

    _hydra("bench", argv, job)


def _hydra(config: str, argv: list[str], job: "Callable[[DictConfig, Path], None]") -> None:
    """Hand the rest of the command line to Hydra, which composes ``conf/<config>.yaml`` and calls ``job`` with it and its folder."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what goes wrong, and `main` prints the sentence
    failures: list[tuple[Path, Exception]] = []

    def guarded(cfg: "DictConfig") -> None:
        path = Path(HydraConfig.get().runtime.output_dir)
        try:
            job(cfg, path)
        except Exception as e:
            failures.append((path, e))  # raised at the end: other jobs of a multirun go on, and Hydra adds no words

    argv = [
        re.sub(r"^fit_data=", "data@fit_data=", word) for word in argv
    ]  # the group `data` once more, for fit images
    argv = sorted(argv, key=lambda word: "=" in word and not word.startswith("-"))  # Hydra wants overrides in one piece
    _check_flags(argv)
    program, sys.argv = sys.argv, ["toast", *argv]
    try:
        hydra.main(config_path=str(CONF), config_name=config, version_base="1.3")(guarded)()
    finally:
        sys.argv = program
    _raise(failures)


def _check_flags(argv: list[str]) -> None:
    """Let Hydra's own parser read the command line, and say in a sentence what it would say with its whole usage."""
    from hydra._internal.utils import get_args_parser

    def complain(message: str) -> NoReturn:
        raise ToastError(f"{message}: settings are written key=value, such as fresh=true; see toast run --help.")

    parser = get_args_parser()
    parser.error = complain  # type: ignore[method-assign]
    parser.parse_args(argv)


def register_resolvers() -> None:
    """What ``conf/`` may interpolate: ``${toast_folder:}``, a run's folder name, and ``${toast_basename:path}``."""
    from omegaconf import OmegaConf

    from toast_cli.folders import folder_name

    OmegaConf.register_new_resolver("toast_folder", lambda *, _root_: folder_name(_root_), replace=True)
    OmegaConf.register_new_resolver("toast_basename", lambda path: Path(str(path or "")).name or "folder", replace=True)


def _raise(failures: list[tuple[Path, Exception]]) -> None:
    """One failure as it is; several as a list of their sentences."""
    if len(failures) == 1:
        raise failures[0][1]
    if failures:
        reasons = "".join(f"\n  {path}: {sentence(error) or repr(error)}" for path, error in failures)
        raise ToastError(f"{len(failures)} runs failed; the same command tries these again.{reasons}")


def _complete(argv: list[str]) -> None:
    """Hydra's shell completion calls ``toast -sc query=bash`` with the line in COMP_LINE; it completes the verb ``run``."""
    os.environ["COMP_LINE"] = re.sub(r"^(\S+\s+)run(\s|$)", r"\1", os.environ.get("COMP_LINE", ""))
    _run(argv)
