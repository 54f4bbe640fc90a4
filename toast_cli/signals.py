"""SIGTERM, which a scheduler sends before it kills, ends the program as Ctrl-C does."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """It passes wherever Ctrl-C does."""


@contextmanager
def terminated() -> Iterator[None]:
    """SIGTERM raises Terminated in what happens inside."""

    def end(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
