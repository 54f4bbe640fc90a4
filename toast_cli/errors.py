"""The one exception that a person sees as a sentence."""

import argparse
import difflib
import errno
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn


class ToastError(Exception):
    """A mistake or a missing thing, told in one sentence: what was given, what is allowed, what to do.

    Raised where the value is used and chained with ``from``; the command line prints its text alone
    (``TOAST_DEBUG=1`` shows the traceback) and exits with status 1.
    """


def did_you_mean(given: object, allowed: Iterable[str]) -> str:
    """`` (did you mean a, b?)`` for the allowed names closest to ``given``, or an empty string."""
    close = difflib.get_close_matches(str(given), list(allowed), n=3)
    return f" (did you mean {', '.join(close)}?)" if close else ""


def require_flag(value: object, key: str) -> bool:
    """``value`` if it is true or false. YAML's no and off arrive as text, which Python would take for true."""
    if not isinstance(value, bool):
        raise ToastError(f"{key}={value} is neither true nor false: write {key}=true or {key}=false.")
    return value


def require_group(given: object, key: str, known: Iterable[str]) -> dict[str, Any]:
    """``given`` as a dict if it is the group of settings ``key``, with those ``known`` and no others."""
    known = list(known)
    if not isinstance(given, Mapping):
        raise ToastError(
            f"{key}={given} takes the place of a group: set {', '.join(f'{key}.{name}' for name in known)}."
        )
    for name in known:
        if name not in given:
            raise ToastError(f"{key}.{name} was taken out: leave it in, it has a default.")
    for name in given:
        if name not in known:
            raise ToastError(
                f"{key}.{name} is not a setting{did_you_mean(name, known)}: use one of {', '.join(f'{key}.{name}' for name in known)}."
            )
    return dict(given)


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number. Python takes true and false for numbers, and YAML has nan and inf."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


class Parser(argparse.ArgumentParser):
    """One whose complaint is a sentence, not its usage."""

    def error(self, message: str) -> NoReturn:
        raise ToastError(f"{message}: see {self.prog} --help.")


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def reraise_disk(error: BaseException) -> None:
    """Raise what lies behind ``error`` if it says that a disk is full or read-only: whoever caught it has another story."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in DISK:
            raise link
        link = link.__cause__ or link.__context__
