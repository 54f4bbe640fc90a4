"""Who hears what happens between toast and the hub, and whether it may fetch at all.

No ground wing prints. Whoever loads a job says who listens, and is told in a line what is fetched and, where no progress
bar can be drawn, every ten seconds how far it is.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

_LINE_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class Listener:
    """``say`` takes a line. With ``asks_only``, nothing is fetched: ``wanted`` collects (what, bytes) instead."""

    say: Callable[[str], None]
    asks_only: bool = False
    wanted: list[tuple[str, int]] = field(default_factory=list)


_stack = [Listener(lambda line: None)]  # not of a context: the threads that fetch tell the same listener


def listener() -> Listener:
    """Whoever listens now."""
    return _stack[-1]


@contextmanager
def listening(say: Callable[[str], None]) -> Iterator[None]:
    """Tell ``say`` what happens inside the ``with`` block."""
    _stack.append(replace(listener(), say=say))
    try:
        yield
    finally:
        _stack.pop()


@contextmanager
def asking_only() -> Iterator[list[tuple[str, int]]]:
    """Fetch nothing inside the ``with`` block. Yields a list that fills with what would be fetched: (what, bytes)."""
    wanted: list[tuple[str, int]] = []
    _stack.append(replace(listener(), asks_only=True, wanted=wanted))
    try:
        yield wanted
    finally:
        _stack.pop()


@contextmanager
def watched(progress: Callable[[], str]) -> Iterator[None]:
    """Say ``progress()`` every ten seconds inside the ``with`` block. On a terminal a bar shows it."""
    if sys.stderr.isatty():
        yield
        return
    say, ended = listener().say, threading.Event()

    def tell() -> None:
        while not ended.wait(_LINE_EVERY):
            say(progress())

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def bytes_in(folder: Path) -> int:
    """How much of the disk the files below ``folder`` take, those that are still being written too."""
    total = 0
    for file in folder.rglob("*"):
        try:
            if not file.is_symlink() and file.is_file():
                found = file.stat()
                total += min(found.st_size, found.st_blocks * 512) if hasattr(found, "st_blocks") else found.st_size
        except OSError:  # renamed meanwhile
            continue
    return total
