"""The one exception that a person sees as a sentence."""

import difflib
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
