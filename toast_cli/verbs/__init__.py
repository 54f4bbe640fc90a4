"""The verbs of ``toast``, one file each: how it is called, its help, its work.

A verb's module is light to import, so that ``toast --help`` answers at once; heavy modules are imported where they are
used.
"""

from typing import Protocol

from toast_cli.verbs import bench, check, doctor, export, finetune, predict, report, run, search, similarity, status
from toast_cli.verbs import list as list_verb


class Verb(Protocol):
    """``USAGE`` and ``SUMMARY`` are its line in ``toast --help``."""

    USAGE: str
    SUMMARY: str

    def main(self, argv: "list[str]") -> None:  # in quotes: at run time ``list`` is a module here
        """Do what the words after the verb ask for. Raises ToastError for what it cannot do."""


VERBS: dict[str, Verb] = {
    "run": run,
    "search": search,
    "similarity": similarity,
    "finetune": finetune,
    "export": export,
    "predict": predict,
    "bench": bench,
    "report": report,
    "check": check,
    "status": status,
    "doctor": doctor,
    "list": list_verb,
}
