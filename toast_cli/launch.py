"""Run a verb through Hydra: compose the config, run one job or many, report failures at the end."""

import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from toast_cli.errors import ToastError, require_flag
from toast_cli.folders import as_utf8
from toast_cli.machine.processes import check_processes
from toast_cli.registry import CONF
from toast_cli.report.settings import Help, explain
from toast_cli.room import take_for_products
from toast_cli.sentences import sentence

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from toast_cli.runs.folder import RunFolder

# Settings that take a path, and those that take any other text, which Hydra's grammar would read as something else.
_PATHS = (
    "data.path",
    "fit_data.path",
    "model.checkpoint",
    "probe.text",
    "features_from",
    "run",
    "out",
    "hydra.run.dir",
    "hydra.sweep.dir",
)
_TEXTS = (
    "push",
    "model.label",
    "model.name",
    *(f"{data}.{key}" for data in ("data", "fit_data")
      for key in ("label", "source", "config", "train_split", "test_split", "image_column", "label_column")),
)  # fmt: skip

Work = Callable[["DictConfig", Path], None]  # takes the settings and the folder that they name


class _Stop(BaseException):
    """Ends a multirun at once: Hydra would keep an Exception until all runs have ended."""


@dataclass
class _Task:
    """One run of the command line, wherever a launcher calls it: here, in another process or on another machine.

    Failures are kept until all runs have ended: the other runs of a multirun go on, and Hydra adds no text of its own.
    """

    job: Work
    notes: Path  # a folder where other processes write what went wrong, for the first one to read
    failures: list[tuple[Path, Exception]] = field(default_factory=list)
    elsewhere: bool = False  # in a process other than that of the command line

    def __call__(self, cfg: "DictConfig") -> None:
        from hydra.core.hydra_config import HydraConfig

        path = Path(_as_written(HydraConfig.get().runtime, "output_dir"))
        try:
            require_flag(cfg.get("fail_fast", False), "fail_fast")
            self.job(cfg, path)
        except Exception as e:
            self.failures.append((path, e))
            if self.elsewhere:
                from toast_cli.files import write_atomically

                self.notes.mkdir(exist_ok=True)
                note = [str(path), sentence(e) or repr(e)]
                write_atomically(self.notes / f"{HydraConfig.get().job.num}.json", json.dumps(note))
            if cfg.get("fail_fast") is True:
                raise _Stop from e
        finally:
            if path != Path.cwd():
                with suppress(OSError):
                    path.rmdir()  # Hydra made it; it stays if it holds anything

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, elsewhere=True)
        from toast_cli.runs.naming import register_resolvers

        register_resolvers()  # Hydra names a run's folder before it calls any of our code

    def collect(self) -> None:
        """Add the failures that other processes have written down."""
        for note in sorted(self.notes.glob("*.json"), key=lambda note: int(note.stem)):
            path, told = json.loads(note.read_text())
            self.failures.append((Path(path), ToastError(told)))
        shutil.rmtree(self.notes, ignore_errors=True)


def launch_in_folder(
    verb: str,
    argv: list[str],
    help: Help,
    outputs: Sequence[str],
    work: "Callable[[DictConfig, RunFolder], None]",
    show: Callable[[Path], None],
) -> None:
    """Launch a verb that works in a run's folder: ``work`` unless the ``outputs`` are complete, then ``show`` them."""

    def job(cfg: "DictConfig", path: Path) -> None:
        from toast_cli.report.tracking import Tracker
        from toast_cli.runs.folder import open_folder

        tracker = Tracker.check(cfg.get("tracker"))
        with open_folder(path, cfg, outputs) as folder:
            if not folder.complete:
                work(cfg, folder)
            if tracker is not None:
                tracker.take(folder, verb)
        tell(path / outputs[0], show)

    launch(verb, verb, argv, help, job)


def tell(file: Path, show: Callable[[Path], None]) -> None:
    """Show the results in the folder of ``file``, and where the file is.

    The last thing on a terminal is the answer; a program that reads the output finds the file's path in its last line.
    """
    if sys.stdout.isatty():
        print(file)
        show(file.parent)
    else:
        show(file.parent)
        print(file)


def launch(verb: str, config: str, argv: list[str], help: Help, job: Work) -> None:
    """Let Hydra compose ``conf/<config>.yaml`` with the words after the ``verb``, and call ``job`` with each config.

    Raises ToastError for words that are not settings, and for runs that failed.
    """
    take_for_products()
    import hydra
    from hydra.core.config_store import ConfigStore

    from toast_cli.runs.naming import register_resolvers

    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors, and `main` prints the sentence
    argv = [re.sub(r"^fit_data=", "data@fit_data=", word) for word in argv]  # the group `data` again, for fit images
    argv = sorted(argv, key=lambda word: "=" in word and not word.startswith("-"))  # Hydra wants all overrides together
    argv = as_typed(argv)
    _check_flags(argv)
    check_processes(config, argv)
    if {"--help", "-h"} & set(argv):
        node = {"app_name": f"toast {verb}", "header": "", "footer": "", "template": help.template(verb)}
        ConfigStore.instance().store(group="hydra/help", name="toast", node=node)
        argv = [*argv, "hydra/help=toast"]
    helps = {"--help", "-h"} & set(argv)
    task = _Task(job, Path.cwd() / f".toast-failures-{uuid.uuid4().hex[:8]}")
    program, sys.argv = sys.argv, ["toast", *argv]
    try:
        run = hydra.main(config_path=str(CONF), config_name=config, version_base="1.3")(task)
        explain(config, run) if helps else run()
    except _Stop:
        pass
    finally:
        sys.argv = program
    task.collect()
    _raise(task.failures)


def as_typed(argv: list[str]) -> list[str]:
    """The words with every path and name in quotes for Hydra: its grammar reads 1e3 as a number and (, #, = as signs.

    Words that are quoted already, and null, are left alone; in a multirun, a comma stands between two values.
    """
    several = bool({"-m", "--multirun"} & set(argv))
    words = []
    for word in argv:
        key, sign, value = word.partition("=")
        kind = key.lstrip("+").replace("data@fit_data", "fit_data")
        if sign and kind in (*_PATHS, *_TEXTS) and not _is_grammar(kind, value, several):
            values = value.split(",") if several else [value]
            value = ",".join(_quoted(os.path.expanduser(one) if kind in _PATHS else as_utf8(one)) for one in values)  # noqa: PTH111
        words.append(key + sign + value)
    return words


def _is_grammar(key: str, value: str, several: bool) -> bool:
    """Whether a value is in Hydra's own notation, or one that it reads as typed."""
    if value.lower() in ("", "null") or re.fullmatch(r"'([^'\\]|\\.)*'|\"([^\"\\]|\\.)*\"", value):
        return True
    if several and re.search(r"['\"]|^(choice|glob|interval|range|shuffle|sort|tag)\(", value):
        return True
    return key.endswith(".label") and _is_plain_number(value)


def _is_plain_number(value: str) -> bool:
    """Whether Python writes the number ``value`` in the same way: earlier versions named folders after the number."""
    for kind in (int, float):
        with suppress(ValueError):
            if str(kind(value)) == value:
                return True
    return False


def _quoted(value: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(value, Quote.single).with_quotes()


def own_folders() -> list[Path]:
    """The user's own folders of settings, given with ``--config-dir``."""
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources
    return [Path(_as_written(source, "path")) for source in sources if source.provider == "command-line"]


def _as_written(node: Any, key: str) -> str:
    """A path as Hydra has stored it: what looks like an interpolation is part of a folder's name."""
    from omegaconf import OmegaConf

    stored: Any = OmegaConf.to_container(node)
    return stored[key]


def _check_flags(argv: list[str]) -> None:
    """Parse the command line with Hydra's own parser, and report its error as one sentence, without the usage text."""
    from hydra._internal.utils import get_args_parser

    def complain(message: str) -> NoReturn:
        raise ToastError(f"{message}: settings are written key=value, such as fresh=true; see toast run --help.")

    parser = get_args_parser()
    parser.error = complain  # type: ignore[method-assign]
    parser.parse_args(argv)


def _raise(failures: list[tuple[Path, Exception]]) -> None:
    """Raise one failure as it is, several as a list of their sentences."""
    if len(failures) == 1:
        raise failures[0][1]
    if failures:
        reasons = "".join(f"\n  {path}: {sentence(error) or repr(error)}" for path, error in failures)
        raise ToastError(f"{len(failures)} runs failed; the same command tries these again.{reasons}")
