"""The one exception that a person sees as a sentence."""

import difflib
import errno
from collections.abc import Iterable


class ToastError(Exception):
    """A mistake or a missing thing, told in one sentence: what was given, what is allowed, what to do.

    Raised where the value is used and chained with ``from``; the command line prints its text alone
    (``TOAST_DEBUG=1`` shows the traceback) and exits with status 1.
    """


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """`` (did you mean a, b?)`` for the allowed names closest to ``given``, or an empty string."""
    close = difflib.get_close_matches(given, list(allowed), n=3)
    return f" (did you mean {', '.join(close)}?)" if close else ""


def require_flag(value: object, key: str) -> bool:
    """``value`` if it is true or false. YAML's no and off arrive as text, which Python would take for true."""
    if not isinstance(value, bool):
        raise ToastError(f"{key}={value} is neither true nor false: write {key}=true or {key}=false.")
    return value


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def reraise_disk(error: BaseException) -> None:
    """Raise what lies behind ``error`` if it says that a disk is full or read-only: whoever caught it has another story."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in DISK:
            raise link
        link = link.__cause__ or link.__context__
