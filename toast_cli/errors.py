"""The one exception that users see as a sentence, the checks that raise it, and what disks and memory raise."""

import argparse
import difflib
import errno
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from toast_cli.room import address_limit


class ToastError(Exception):
    """An error that the user can correct, in one sentence: what was given, what is allowed, what to do.

    It is raised where the value is used and chained with ``from``. The command line prints only its text
    (``TOAST_DEBUG=1`` shows the traceback) and exits with ``status``.
    """

    status = 1


class SingleImageError(ToastError):
    """Memory that runs out with a single image: a smaller batch cannot help."""


def did_you_mean(given: object, allowed: Iterable[str]) -> str:
    """`` (did you mean a, b?)`` for the allowed names closest to ``given``, or an empty string."""
    names = {name.casefold(): name for name in allowed}
    close = [names[match] for match in difflib.get_close_matches(str(given).casefold(), list(names), n=3)]
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


def require_word(value: Any, key: str, words: Sequence[str], use: str, otherwise: str = "is not known") -> str:
    """``value``. Raises ToastError unless it is one of the ``words``; ``use`` says what they are."""
    if value not in words:
        raise ToastError(f"{key}={value} {otherwise}{did_you_mean(value, words)}: use {use}.")
    return value


def require_whole(value: Any, key: str, least: int = 1) -> int:
    """``value``. Raises ToastError unless it is a whole number from ``least``."""
    return require_number(
        value, key, lambda number: type(number) is int and number >= least, f"a whole number from {least}"
    )


def require_seed(value: Any, key: str, below: float = 2**63) -> int:
    """``value``. Raises ToastError unless it is a whole number from 0, ``below`` what is too large for a seed of torch's."""
    if type(value) is not int or not 0 <= value < below:
        raise ToastError(f"{key}={value} is not a seed: use a whole number from 0.")
    return value


def require_positive(value: Any, key: str) -> float:
    """``value``. Raises ToastError unless it is a number above 0."""
    return require_number(value, key, lambda number: number > 0, "a number above 0")


def require_not_negative(value: Any, key: str) -> float:
    """``value``. Raises ToastError unless it is a number from 0."""
    return require_number(value, key, lambda number: number >= 0, "a number from 0")


def require_part(value: Any, key: str) -> float:
    """``value``. Raises ToastError unless it is a share from 0 to below 1."""
    return require_number(value, key, lambda number: 0 <= number < 1, "a share from 0 to below 1")


def require_number(value: Any, key: str, holds: Callable[[float], bool], allowed: str) -> Any:
    """``value``. Raises ToastError, which says what is ``allowed``, unless it is a finite number for which this ``holds``."""
    if not is_number(value) or not holds(value):
        raise ToastError(f"{key}={value} cannot be used: give {allowed}.")
    return value


def require_strengths(given: Any, key: str, example: str) -> list[float]:
    """``given``, a grid of penalties. Raises ToastError unless it is a list of numbers above 0."""
    if not isinstance(given, Sequence) or not given or not all(is_number(value) and value > 0 for value in given):
        raise ToastError(f"{key}={given} cannot be used: give a list of numbers above 0, such as {example}.")
    return list(given)


# Of a value and the setting that it is given for; raises ToastError if it cannot be used.
Check = Callable[[Any, str], object]


def check_settings(group: str, given: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Check those of the settings ``given`` for a ``group`` that have a check. Raises ToastError for the first that cannot be used."""
    for key, value in given.items():
        if key in checks:
            checks[key](value, f"{group}.{key}")


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number. Python counts true and false as numbers, and YAML has nan and inf."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error as one sentence, without its usage text."""

    def error(self, message: str) -> NoReturn:
        raise ToastError(f"{message}: see {self.prog} --help.")


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate memory(?! in static TLS)|failed to allocate memory"  # CUDA, MPS, Pillow; torch; onnxruntime
    r"|bad_alloc|ALLOC(ATION)?_FAILED|cudaErrorMemoryAllocation"  # C++, cuBLAS, cuDNN, cuSOLVER
    r"|could not (create a (primitive(?! desc)|memory)|execute a primitive)"  # oneDNN
    r"|can't start new thread|killed by signal: Killed",  # Python; a DataLoader's worker, by the system
    re.IGNORECASE,
)
# A library that cannot be loaded, and an extension whose allocation failed unseen: either may have other reasons too.
_UNDER_A_LIMIT = re.compile(r"failed to map segment|without (setting an exception|exception set)")


def causes(error: BaseException) -> Iterator[BaseException]:
    """``error``, and what led to it, each once: the latest first. An error that is raised again can be among its own causes."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        link = link.__cause__ or link.__context__


def disk_error(error: BaseException) -> OSError | None:
    """The cause of ``error`` that is a full or read-only disk; None if there is none."""
    return next((link for link in causes(error) if isinstance(link, OSError) and link.errno in DISK), None)


def reraise_disk(error: BaseException) -> None:
    """Raise the cause of ``error`` if it is a full or read-only disk: the caller would blame something else."""
    if (cause := disk_error(error)) is not None:
        raise cause


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that the device or the machine has no memory left, and a smaller batch may help.

    Libraries tell it in their own ways, and wrap it in errors that blame something else.
    """
    for link in causes(error):
        if isinstance(link, SingleImageError):
            return False
        if _has_no_memory(link):
            return True
    return False


def _has_no_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # numpy, pyarrow; torch
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError | OSError | ImportError | SystemError) and not _from_onnxruntime(error):
        return False
    if address_limit() is not None and _UNDER_A_LIMIT.search(str(error)):
        return True
    return _NO_MEMORY.search(str(error)) is not None


def _from_onnxruntime(error: BaseException) -> bool:
    return type(error).__module__.startswith("onnxruntime.")
