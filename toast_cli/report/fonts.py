"""Installed fonts for letters that matplotlib's own font does not have, such as 写真."""

import unicodedata
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from toast_cli.machine.console import say

_USUAL = "DejaVu Sans"  # comes with matplotlib


def families(text: str) -> list[str]:
    """The fonts that the ``text`` takes together, the usual one first. Letters that no installed font has are said, once."""
    missing = {letter for letter in text if letter.isprintable()} - _letters(font_manager.findfont(_USUAL))
    chosen, without = _chosen(frozenset(letter for letter in missing if not unicodedata.combining(letter)))
    if without:
        _tell("".join(without))
    return [_USUAL, *chosen]


@cache
def _chosen(missing: frozenset[str]) -> tuple[list[str], list[str]]:
    """Fonts that have the ``missing`` letters, the most useful first, and the letters that none has."""
    left, chosen = set(missing), []
    fonts = {
        font.name: font.fname for font in font_manager.fontManager.ttflist if not font.name.startswith("Last Resort")
    }
    while left:
        count, name = max(((len(left & _letters(file)), name) for name, file in fonts.items()), default=(0, ""))
        if not count:
            break
        chosen.append(name)
        left -= _letters(fonts[name])
    return chosen, sorted(left)


@cache
def _letters(file: str) -> frozenset[str]:
    """The letters of a font; none of one that cannot be read, or that has no outlines to draw."""
    try:
        font = FT2Font(Path(file))
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@cache
def _tell(letters: str) -> None:
    say(
        f"note: no installed font has {', '.join(letters)}, so figures show boxes: install one that does, such as Noto Sans"
    )
