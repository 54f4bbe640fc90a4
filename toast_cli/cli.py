"""The ``toast`` verbs. Imports nothing heavy: a verb that needs torch imports it when it runs."""

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from toast_cli import __version__
from toast_cli.errors import ToastError, did_you_mean


def _conf() -> Path:
    """The registry: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package / "conf", package.parent / "conf") if path.is_dir())


CONF = _conf()
GROUPS = {
    "models": "model",
    "data": "data",
    "translators": "translator",
    "probes": "probe",
    "experiments": "experiment",
}


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
        sentence = _sentence(e)
        if debug or sentence is None:
            raise
        sys.exit(_complain(sentence))


def _complain(sentence: str, status: int = 1) -> int:
    print(f"toast: {sentence}", file=sys.stderr)
    return status


def _dispatch(argv: list[str]) -> None:
    verbs: dict[str, Callable[[list[str]], None]] = {"run": _run, "list": _list}
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
  run [key=value ...]   sweep over spans: results.csv, summary.csv and a table   (toast run --help)
  list [group]          what can be chosen: models, data, translators, probes, experiments

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
    """``toast run``: hand the rest of the command line to Hydra, which composes ``conf/`` and calls the runner."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    from toast_cli.folders import open_folder
    from toast_cli.results import Summary, print_table, read_csv

    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what goes wrong, and `main` prints the sentence
    failures: list[tuple[Path, Exception]] = []

    def job(cfg: DictConfig) -> None:
        path = Path(HydraConfig.get().runtime.output_dir)
        try:
            with open_folder(path, cfg) as folder:
                if not folder.complete:
                    from toast_cli.run import run

                    run(cfg, folder)
            print_table(read_csv(path / "summary.csv", Summary))
            print(path / "results.csv")
        except Exception as e:
            failures.append((path, e))  # raised at the end: other jobs of a multirun go on, and Hydra adds no words

    argv = sorted(argv, key=lambda word: "=" in word and not word.startswith("-"))  # Hydra wants overrides in one piece
    _check_flags(argv)
    program, sys.argv = sys.argv, ["toast", *argv]
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(job)()
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
    OmegaConf.register_new_resolver("toast_basename", lambda path: Path(path or "").name or "folder", replace=True)


def _raise(failures: list[tuple[Path, Exception]]) -> None:
    """One failure as it is; several as a list of their sentences."""
    if len(failures) == 1:
        raise failures[0][1]
    if failures:
        reasons = "".join(f"\n  {path}: {_sentence(error) or repr(error)}" for path, error in failures)
        raise ToastError(f"{len(failures)} runs failed; the same command tries these again.{reasons}") from failures[0][
            1
        ]


def _complete(argv: list[str]) -> None:
    """Hydra's shell completion calls ``toast -sc query=bash`` with the line in COMP_LINE; it completes the verb ``run``."""
    os.environ["COMP_LINE"] = re.sub(r"^(\S+\s+)run(\s|$)", r"\1", os.environ.get("COMP_LINE", ""))
    _run(argv)


def _list(argv: list[str]) -> None:
    """``toast list [group]``: the options of a config group with the first comment of each file."""
    parser = argparse.ArgumentParser(
        prog="toast list", description="What can be chosen on the command line of toast run."
    )
    parser.add_argument("group", nargs="?", metavar="{" + "|".join(GROUPS) + "}", help="one group (default: all)")
    parser.add_argument("--config-dir", "-cd", type=Path, help="your own groups, listed too")
    args = parser.parse_args(argv)
    if args.group is not None and args.group not in GROUPS:
        raise ToastError(
            f"'{args.group}' cannot be listed{did_you_mean(args.group, GROUPS)}: use one of {', '.join(GROUPS)}."
        )
    if args.config_dir is not None and not args.config_dir.is_dir():
        raise ToastError(
            f"--config-dir {args.config_dir} is not a folder: give one that holds groups such as model/ or data/."
        )
    roots = [CONF] if args.config_dir is None else [CONF, args.config_dir]
    for title, group in GROUPS.items():
        if args.group in (None, title):
            _list_group(title, group, roots)


def _list_group(title: str, group: str, roots: list[Path]) -> None:
    files = _options(group, roots)
    print(f"{title} ({group}=...)")
    width = max(map(len, files), default=0)
    for name, path in files.items():
        comments = [
            line.lstrip("# ")
            for line in path.read_text().splitlines()
            if line.startswith("#") and "@package" not in line
        ]
        print(f"  {name:{width}}  {comments[0] if comments else ''}".rstrip())
    print()


def _options(group: str, roots: list[Path]) -> dict[str, Path]:
    """The files of a config group by the names that choose them, those of later roots in the place of earlier ones."""
    files = [(root / group, path) for root in roots for path in sorted((root / group).rglob("*.yaml"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for folder, path in files}


def _sentence(error: Exception) -> str | None:
    """The one line a person needs of an error that is hers to mend; None for anything else, which is a bug of ours."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for link in chain:
        if isinstance(link, ToastError):
            return str(link)
        if isinstance(link, OSError) and link.errno is not None:
            return _file_sentence(link)
        if isinstance(link, MemoryError) or type(link).__name__ == "OutOfMemoryError":
            return f"Memory ran out: use a smaller batch_size=, fewer spans= at a time, or another device=; {_KEPT}"
    ours = type(error).__name__ == "InstantiationException" and not re.search(
        r"Error locating target| argument", str(error)
    )
    if type(error).__module__.startswith(("hydra.", "omegaconf.")) and not ours:
        return _settings_sentence(error)
    return None


_KEPT = "what is finished is kept, and the same command goes on from there."
_REMEDIES = {errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.EACCES: "change the permissions"}


def _file_sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    remedy = _REMEDIES.get(error.errno or 0, "check that path")
    return f"{error.strerror}{where}: {remedy}, or give another place with hydra.run.dir=<dir>; {_KEPT}"


def _settings_sentence(error: Exception) -> str:
    """Hydra's and OmegaConf's complaints, which take several lines, in one."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in str(error).splitlines()]
    lines = [
        line for line in lines if line and not line.startswith(("full_key", "object_type", "See https", "Set the env"))
    ]
    text = re.sub(r"Config search path:.*|,? set env var HYDRA_FULL_ERROR.*", "", " ".join(lines)).strip().rstrip(".")
    if ambiguous := re.match(r"Ambiguous value for argument '(\S+?)=(\S+)'", text):
        key, values = ambiguous.groups()
        return f"{key}={values} has several values: write {key}=[{values}] for a list, or toast run -m for a run with each."
    if missing := re.search(r"Could not find '(\w+)/(.+?)'", text):
        group, name = missing.groups()
        options = sorted(_options(group, [CONF]))
        return f"{group}={name} is not there{did_you_mean(name, options)}: use one of {', '.join(options)}, or --config-dir <dir> with your own."
    return f"{text}. See toast run --help for the settings and toast list for the options."
