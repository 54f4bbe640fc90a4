"""What a person sees during a run: a progress bar on a terminal, plain lines elsewhere. All on stderr; stdout is for results."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_LINE_EVERY = 30.0  # seconds between plain log lines

# What a terminal obeys or cannot write: C0 and C1 with ESC and DEL, other line ends, the order of right to left, lone surrogates.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """``text`` with what a terminal would obey written out, such as ``\\x1b``, ``\\n`` and ``\\u202e``.

    Labels, class names and file names come from strangers.
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Screen(Console):
    """A console that shows every text as it is: no markup, no emoji by name, and only ``visible`` letters.

    This holds for strings, in the cells and titles of tables too, and not for a rich ``Text``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


console = Screen(stderr=True, soft_wrap=True)


def say(text: str) -> None:
    """Print one line on stderr."""
    console.print(text)


@contextmanager
def silenced(silent: bool = True) -> Iterator[None]:
    """Print nothing on stderr inside the ``with`` block, if ``silent``."""
    before, console.quiet = console.quiet, silent
    try:
        yield
    finally:
        console.quiet = before


class _Rate(ProgressColumn):
    """Images per second since the stage began, not counting those that were ``done`` before."""

    def __init__(self, done: int, unit: str) -> None:
        super().__init__()
        self.done, self.unit = done, unit

    def render(self, task: Task) -> Text:
        return Text(f"{(task.completed - self.done) / (task.elapsed or 1e9):.1f} {self.unit}/s")


@contextmanager
def progress(label: str, total: int, done: int = 0, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Show a stage over ``total`` images (or another ``unit``), of which ``done`` are finished.

    Yields a function to call with the number just finished.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        _Rate(done, unit),
        TimeRemainingColumn(),
    )
    if console.is_terminal:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(visible(label), total=total, completed=done)
            yield lambda images: bar.advance(task, images)
    else:
        yield _lines(label, total, done, unit)


def _lines(label: str, total: int, done: int, unit: str) -> Callable[[int], None]:
    begun = last = time.monotonic()
    start = done

    def advance(images: int) -> None:
        nonlocal done, last
        done += images
        now = time.monotonic()
        if now - last >= _LINE_EVERY or done == total:
            last = now
            rate = (done - start) / max(now - begun, 1e-9)
            say(f"{label}: {done}/{total} {unit}, {rate:.1f} {unit}/s, {(total - done) / max(rate, 1e-9):.0f} s left")

    return advance


def duration(seconds: float) -> str:
    """The time as text, in the largest unit that it fills."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
