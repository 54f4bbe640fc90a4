"""The ``toast`` command: find the verb, and print an error as one line on stderr. Imports nothing heavy."""

import argparse
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress

from toast_cli import __version__
from toast_cli.errors import Parser, ToastError, did_you_mean
from toast_cli.machine.threads import wait_briefly
from toast_cli.sentences import sentence
from toast_cli.verbs import VERBS

_GOES_ON = "what is finished is kept, and the same command goes on from there."


def main(argv: list[str] | None = None) -> None:
    """Run the verb that ``argv`` names. A ToastError becomes one sentence on stderr, and its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    _write_any_text()
    wait_briefly()
    debug = os.environ.get("TOAST_DEBUG", "") not in ("", "0")
    try:
        with _terminated():
            _dispatch(argv)
            sys.stdout.flush()
    except BrokenPipeError:  # head, or a pager that was closed: it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left when it ends
        sys.exit(141)
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
        sys.exit(_complain(told, status=getattr(e, "status", 1)))


def _write_any_text() -> None:
    """Write out what the terminal's encoding has no letter for, such as ``\\xe9``: a result is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Terminated(KeyboardInterrupt):
    """SIGTERM, which a scheduler sends before it kills a job. It ends the program as Ctrl-C does."""


@contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM raise Terminated inside the ``with`` block."""

    def end(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return
    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _complain(sentence: str, status: int = 1) -> int:
    from toast_cli.machine.console import visible

    lines = sentence.split("\n")  # a list of failures has several
    print("toast:", "\n".join(map(visible, lines)), file=sys.stderr)
    return status


def _dispatch(argv: list[str]) -> None:
    if argv[:1] in (["-sc"], ["--shell-completion"]):
        _complete(argv)
    elif argv and argv[0] in VERBS:
        VERBS[argv[0]].main(argv[1:])
    elif argv and not argv[0].startswith("-"):
        raise ToastError(
            f"'{argv[0]}' is not a verb{did_you_mean(argv[0], VERBS)}: use {', '.join(VERBS)}, or see toast --help."
        )
    else:
        _parser().parse_args(argv or ["--help"])


def _parser() -> argparse.ArgumentParser:
    width = max(len(verb.USAGE) for verb in VERBS.values())
    verbs = "\n".join(f"  {verb.USAGE:{width}}  {verb.SUMMARY}" for verb in VERBS.values())
    parser = Parser(
        prog="toast",
        description="Replace spans of a vision transformer's blocks by closed-form maps, and measure what that costs and what it saves.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"""\
verbs:
{verbs}

examples:
  toast run                                      the embedded model, offline
  toast run model=dinov2_b data=cifar100         a model and a data set from the hub
  toast run -m model=vit_s,deit_s data=mnist     a sweep over settings
  toast run --help                               the settings of a verb
  toast list models

TOAST_DEBUG=1 shows the traceback of an error.""",
    )
    parser.add_argument("--version", action="version", version=f"toast {__version__}")
    return parser


def _complete(argv: list[str]) -> None:
    """Complete a verb, or what comes after it: Hydra's completion calls ``toast -sc query=bash`` with COMP_LINE set.

    Where nothing is printed, the shell completes names of files.
    """
    line = os.environ.get("COMP_LINE", "")
    program, *words = line.split() or ["toast"]
    unfinished = words.pop() if words and not line.endswith(" ") else ""
    if argv[1:2] != ["query=bash"]:
        VERBS["run"].main(argv)  # install=bash
    elif not words:
        print(" ".join(verb for verb in VERBS if verb.startswith(unfinished)))
    elif hasattr(verb := VERBS.get(words[0]), "HELP"):
        settings = [word for word in words[1:] if "=" in word or word.startswith("-")]  # and no folder of a run
        if unfinished and os.sep in unfinished and "=" not in unfinished:
            return
        os.environ["COMP_LINE"] = " ".join([program, *settings, unfinished])
        VERBS[words[0]].main(argv)
    elif verb is not None:
        print(" ".join(word for word in _flags(words[0]) if word.startswith(unfinished)))


def _flags(verb: str) -> list[str]:
    """The flags of a verb without settings, and the names that it takes."""
    written = io.StringIO()
    with redirect_stdout(written), suppress(SystemExit):
        VERBS[verb].main(["--help"])
    return [*dict.fromkeys(re.findall(r"--[a-z][\w-]*", written.getvalue())), *getattr(VERBS[verb], "GROUPS", ())]
