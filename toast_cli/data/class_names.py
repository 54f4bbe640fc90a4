"""What classes are called, and in which order they are numbered."""

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def in_order(names: Iterable[str]) -> list[str]:
    """The different ``names``, sorted: as numbers if all are numbers (2 before 10), else by their letters' codes."""
    found = sorted(set(names))
    if all(_NUMBER.fullmatch(name) for name in found):
        return sorted(found, key=Decimal)
    return found


def composed(names: Iterable[str]) -> list[str]:
    """The ``names`` in Unicode's composed form (NFC): an é in one piece and one of two pieces are the same class."""
    return [unicodedata.normalize("NFC", name) for name in names]
