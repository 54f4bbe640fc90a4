"""Tables that were changed after a run wrote them: they are read all the same, and that is said."""

from pathlib import Path
from typing import Any

from toast_cli.machine.console import say
from toast_cli.runs import record
from toast_cli.runs.results import read_csv


def read_table(path: Path, kind: type) -> list[Any]:
    """The rows (of dataclass ``kind``) of a run's table. Says so if the file is not as toast wrote it."""
    if record.changed(path):
        say(f"note: {sentence(path)}")
    return read_csv(path, kind)


def sentence(path: Path) -> str:
    """What a reader of the table has to know."""
    return f"{path} was changed after toast wrote it: its numbers are not those that the run measured"
