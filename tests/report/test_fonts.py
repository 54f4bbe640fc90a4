"""Letters that matplotlib's own font does not have."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from toast_cli.report import figures, fonts, scatters

BOTH, ONE, NONE = "\u5199", "\u771f", "\U00013000"


@pytest.fixture(autouse=True)
def _two_fonts(tmp_path: Path) -> Iterator[None]:
    """Two fonts of squares beside those installed, one with one letter and one with two."""
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.ttflist[:] = [
        font for font in before if font.name in ("DejaVu Sans", "Last Resort High-Efficiency")
    ]
    for name, letters in (("Squares", BOTH + ONE), ("Square", BOTH)):
        font_manager.fontManager.addfont(squares(tmp_path / f"{name}.ttf", name, letters))
    clear()
    yield
    font_manager.fontManager.ttflist[:] = before
    clear()


def clear() -> None:
    for kept in (fonts._chosen, fonts._letters, fonts._tell):
        kept.cache_clear()


def squares(path: Path, name: str, letters: str) -> Path:
    pen = TTGlyphPen(None)
    for move, at in ((pen.moveTo, (0, 0)), (pen.lineTo, (0, 900)), (pen.lineTo, (900, 900)), (pen.lineTo, (900, 0))):
        move(at)
    pen.closePath()
    glyphs = {".notdef": pen.glyph(), **{f"u{ord(letter):X}": None for letter in letters}}
    glyphs = dict.fromkeys(glyphs, glyphs[".notdef"])
    built = FontBuilder(1000, isTTF=True)
    built.setupGlyphOrder(list(glyphs))
    built.setupCharacterMap({ord(letter): f"u{ord(letter):X}" for letter in letters})
    built.setupGlyf(glyphs)
    built.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    built.setupHorizontalHeader(ascent=900, descent=-100)
    built.setupNameTable({"familyName": name, "styleName": "Regular", "psName": name, "fullName": name})
    built.setupOS2()
    built.setupPost()
    built.save(path)
    return path


def test_the_usual_font_is_enough_for_most(capsys: pytest.CaptureFixture):
    assert fonts.families("A$x$$ é ≈ ² Ω я") == ["DejaVu Sans"]
    assert capsys.readouterr().err == ""


def test_another_font_is_taken_for_what_it_lacks(capsys: pytest.CaptureFixture):
    assert fonts.families(f"a {BOTH}{ONE}") == ["DejaVu Sans", "Squares"]
    assert capsys.readouterr().err == ""


def test_a_letter_that_no_font_has_is_said_once(capsys: pytest.CaptureFixture):
    for _ in range(2):
        assert fonts.families(f"{NONE}{ONE}") == ["DejaVu Sans", "Squares"]
    told = f"note: no installed font has {NONE}, so figures show boxes: install one that does, such as Noto Sans\n"
    assert capsys.readouterr().err == told


def test_a_figure_embeds_the_font(recwarn: pytest.WarningsRecorder):
    lines = {BOTH: [(10, 0.5, 0.1), (100, 0.6, 0.1)]}
    assert b"Squares" in figures.encoded(scatters.sample_sizes(lines, 0.9, ONE), "pdf")
    assert b"Square" not in figures.encoded(scatters.sample_sizes({"a": lines[BOTH]}, 0.9, "b"), "pdf")
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
