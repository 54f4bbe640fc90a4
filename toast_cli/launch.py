"""The rest of the command line, as Hydra takes it: configs composed, one job or many, failures told at the end."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from toast_cli.errors import ToastError
from toast_cli.registry import CONF
from toast_cli.sentences import sentence

if TYPE_CHECKING:
    from omegaconf import DictConfig


def launch(config: str, argv: list[str], job: "Callable[[DictConfig, Path], None]") -> None:
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
    _check_processes(config, argv)
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


def _check_processes(config: str, argv: list[str]) -> None:
    """Raises ToastError where several processes have been started for what one does."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return
    if config != "config":
        raise ToastError(
            f"{os.environ['WORLD_SIZE']} processes were started, and only toast run shares its work out: start one."
        )
    if {"-m", "--multirun"} & set(argv):
        raise ToastError(
            "Several processes share one run, not a multirun: start them without -m, or the multirun without torchrun."
        )


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
