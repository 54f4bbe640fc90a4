"""The one exception that users see as a sentence, and the checks that raise it."""

import argparse
import difflib
import errno
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn


class ToastError(Exception):
    """An error that the user can correct, in one sentence: what was given, what is allowed, what to do.

    It is raised where the value is used and chained with ``from``. The command line prints only its text
    (``TOAST_DEBUG=1`` shows the traceback) and exits with status 1.
    """


def did_you_mean(given: object, allowed: Iterable[str]) -> str:
    """`` (did you mean a, b?)`` for the allowed names closest to ``given``, or an empty string."""
    close = difflib.get_close_matches(str(given), list(allowed), n=3)
    return f" (did you mean {', '.join(close)}?)" if close else ""


def require_flag(value: object, key: str) -> bool:
    """``value``. Raises ToastError unless it is true or false: YAML's no and off arrive as text, true in Python."""
    if not isinstance(value, bool):
        raise ToastError(f"{key}={value} is neither true nor false: write {key}=true or {key}=false.")
    return value


def require_group(given: object, key: str, known: Iterable[str]) -> dict[str, Any]:
    """``given`` as a dict. Raises ToastError unless it is the group ``key`` with exactly the ``known`` settings."""
    known = list(known)
    if not isinstance(given, Mapping):
        raise ToastError(
            f"{key}={given} replaces a group of settings: set {', '.join(f'{key}.{name}' for name in known)}."
        )
    for name in known:
        if name not in given:
            raise ToastError(f"{key}.{name} is missing: do not remove it, since it has a default.")
    for name in given:
        if name not in known:
            raise ToastError(
                f"{key}.{name} is not a setting{did_you_mean(name, known)}: use one of {', '.join(f'{key}.{name}' for name in known)}."
            )
    return dict(given)


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number. Python counts true and false as numbers, and YAML has nan and inf."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error as one sentence, without its usage text."""

    def error(self, message: str) -> NoReturn:
        raise ToastError(f"{message}: see {self.prog} --help.")


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def reraise_disk(error: BaseException) -> None:
    """Raise the cause of ``error`` if it is a full or read-only disk: the caller would blame something else."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in DISK:
            raise link
        link = link.__cause__ or link.__context__
