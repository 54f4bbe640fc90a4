"""What strangers wrote is shown and not obeyed."""

import io

import pytest
from rich.progress import Progress
from rich.table import Table

from toast_cli.machine import console
from toast_cli.machine.console import Screen, progress, say, visible

HOSTILE = "\x1b]0;pwned\x07[red]:dog:\u202eabc\nd"
SHOWN = r"\x1b]0;pwned\x07[red]:dog:\u202eabc\nd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, SHOWN),
        ("\x9b2J\x7f\r\t\0", r"\x9b2J\x7f\r\t\x00"),
        ("a\u2028b\u2066c\u2069", r"a\u2028b\u2066c\u2069"),
        ("photo\udcff.png", r"photo\udcff.png"),  # what Python makes of a file name that is not UTF-8
        ("naïve 写真 ± ≈ – R² {} %s", "naïve 写真 ± ≈ – R² {} %s"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str):
    assert visible(text) == shown


def test_a_table_shows_it_in_every_place():
    screen = Screen(file=io.StringIO(), width=300, force_terminal=True, color_system=None)
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    screen.print(table)
    written = screen.file.getvalue()
    assert "\x1b" not in written
    assert [line.count(SHOWN) for line in written.splitlines() if "pwned" in line] == [1, 1, 1]
    assert len({len(line) for line in written.splitlines()[1:]}) == 1, "the frame fits what is in it"


def test_a_line_is_one_line(capsys: pytest.CaptureFixture):
    say(f"{HOSTILE} {'x' * 10_000}")
    assert capsys.readouterr().err == f"{SHOWN} {'x' * 10_000}\n"


def test_a_bar_shows_it_too(monkeypatch: pytest.MonkeyPatch):
    screen = Screen(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    monkeypatch.setattr(console, "console", screen)
    monkeypatch.setattr(Progress, "start", lambda self: screen.print(self))  # one frame, without moving the cursor
    monkeypatch.setattr(Progress, "stop", lambda self: screen.print(self))
    with progress(HOSTILE, 2) as advance:
        advance(1)
    assert SHOWN in screen.file.getvalue()
    assert "\x1b" not in screen.file.getvalue()
