"""Labels come from strangers: tables, page, figures and screen show them as they are."""

import re
from dataclasses import fields
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from matplotlib.text import Text

from tests.report.conftest import finding
from toast_cli.machine.console import visible
from toast_cli.report import figures, heatmaps, page, scatters, sweep, tables
from toast_cli.report.labels import name_of
from toast_cli.runs.rows import Row, Summary
from toast_cli.runs.searched import Baseline, Candidate, Found
from toast_cli.search.figure import picture

LABELS = [
    r"\input{/etc/passwd}", r"$\frac{$", "A$x$$", "50%_&<b>", "<script>alert(1)</script>", "a|b", r"a\|b", "`x`", "*x*", "**", "_x_",
    "__x__ ", "~~x~~", "[a](b)", "![a](b)", "[red]", "&amp;", "{}", "{0}", "%s", "#1", "a\nb", "\x1b]0;pwned\x07", "\u202eabc",
    "'\"", "写真", "^~", "*", "[", "plan", "x" * 10_000,
]  # fmt: skip


def hostile(label: str) -> tables.Table:
    """A table with ``label`` as its model, data set and translator."""
    rows = [finding(plan, accuracy, label, label) for plan, accuracy in (("0-1", 0.8), ("1-2", 0.7), ("2-3", 0.6))]
    return tables.by_model([*(type(row)(**vars(row) | {"model": label}) for row in rows)])[0]


@pytest.mark.parametrize("label", LABELS)
def test_markdown_shows_them(label: str):
    shown = MarkdownIt("gfm-like", {"linkify": False}).render(tables.markdown(hostile(label)))
    shown = shown.replace("<span>", "").replace("</span>", "")  # around a dollar sign
    cells = [unescape(cell) for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", shown)]
    assert len(cells) == 4 * 6
    assert cells[0::6] == ["translator", *[visible(label).strip()] * 3]
    assert cells[5] == visible(label).strip()
    assert unescape(re.findall("<h3>(.*?)</h3>", shown)[0]) == f"{visible(label)}: accuracy, 3 seeds".replace(
        "accuracy, 3", "accuracy, mean ± standard deviation over 3"
    )


@pytest.mark.parametrize("name", ["dinov2_s", "7-8:identity+9-11", "stem-2", "lowrank rank=32", "clean+splits=paper"])
def test_ordinary_names_stay_as_they_are_in_markdown(name: str):
    assert f"| {name} | 0-1 |" in tables.markdown(hostile(name))


@pytest.mark.parametrize("label", LABELS)
def test_latex_sets_them_as_text(label: str):
    text = tables.latex(hostile(label))
    assert "\x1b" not in text
    for ours in (r"\textbf{", r"\underline{", r"\begin{longtable}{llrrrr}", r"\end{longtable}", r"\caption{", r"$\pm$", r"$\approx$",
                 r"\toprule", r"\midrule", r"\endhead", r"\bottomrule", "% \\usepackage{booktabs,longtable}", "\\\\\n"):  # fmt: skip
        text = text.replace(ours, "")
    text = re.sub(r"\\text(backslash|asciitilde|asciicircum|less|greater|bar)\{\}|\\[{}$&#_%]|\{[\[*]\}", "", text)
    assert not set(text) & set(r"\$#_%~^<>|[*"), "all that TeX would take for a command is escaped"
    assert text.count("&") == 5 * 4


def test_every_special_letter_of_latex_is_typeset():
    assert tables._in_latex(r"\{}$&#_%~^") == (r"\textbackslash{}\{\}\$\&\#\_\%\textasciitilde{}\textasciicircum{}")
    assert tables._in_latex("a\nb ± ≈ –") == r"a\textbackslash{}nb $\pm$ $\approx$ --"


@pytest.mark.parametrize("label", LABELS)
def test_the_page_shows_them(label: str):
    written = page.render([Path(label)], [hostile(label)], {"a' onerror='x": b""})
    assert written.count("<script>") == 1, "the page's own"
    assert " onerror='" not in written
    cells = [unescape(cell) for cell in re.findall(r"<td.*?>(.*?)</td>", written)]
    assert cells[0::6] == [visible(label)] * 3


@pytest.mark.parametrize("label", [r"$\frac{$", "$x$", "A$x$$", "{}", "%s", "[red]", "a\0b\x1b", "写真", "x" * 10_000])
def test_figures_draw_them(label: str, recwarn: pytest.WarningsRecorder):
    figure = scatters.sample_sizes({label: [(10, 0.5, 0.1), (100, 0.6, 0.1)]}, 0.9, label)
    assert figures.encoded(figure)
    drawn = [text.get_text() for text in figure.findobj(Text)]
    assert [len(text) <= 200 and text.startswith(visible(label)[:5]) for text in drawn].count(True) >= 2
    assert {"10", "100"} <= set(drawn), "the ticks of a log scale"
    panels = {label: heatmaps.Panel(np.eye(2), [label, label], [label, label])}
    matrix = heatmaps.matrices(panels, heatmaps.alike("r2", np.eye(2)), label, ("source", "target"))
    assert figures.encoded(matrix, "pdf")
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def row_of(kind: type, **values: object) -> object:
    """A row with 1 wherever ``values`` say nothing."""
    return kind(**{field.name: 1 for field in fields(kind)} | values)


def test_the_figure_of_a_search_draws_them():
    measured = [row_of(Candidate, plan=plan, round=0) for plan in ("0-1", "1-2")]
    found = [row_of(Found, model="$x$", data=r"$\frac{$", plan="0-1", best_trade_off=True)]
    figure = picture(measured, found, [row_of(Baseline, baseline="last")])
    assert figures.encoded(figure)
    assert "$x$ on $\\frac{$" in figure.get_suptitle()


def test_the_screen_shows_them(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    label = "\x1b]0;pwned\x07[red]\u202e\n:dog:"
    head = row_of(Summary, model=label, data=label, translator=label, plan=label, fit_rank=None, seeds=1)
    monkeypatch.setattr(sweep, "Measured", lambda path: Unknown())
    sweep.print_sweep([head], Path("here"))
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert any(line.startswith(visible(label)) for line in out.splitlines()[1:])
    sweep.print_sweep([row_of(Summary, model="", data="x" * 10_000, translator="", plan="", seeds=1)], Path("here"))


class Unknown:
    """A run of which it is not known what its probes predicted."""

    rows = (row_of(Row, probe="linear"),)

    def interval(self, line: Summary) -> None:
        return None


def test_file_names_are_short_and_their_own():
    assert name_of("spans", "m on d, linear") == "spans-m_on_d_linear"
    one, other = (name_of("spans", label * 1000 + end) for label, end in (("写真", "a"), ("写真", "b")))
    assert one != other
    assert one.startswith("spans-写真")
    assert len(f".{one}.png.tmp".encode()) < 255
    assert not set(name_of("spans", "../\x1b\0\n:*")) & set("/\x1b\0\n:*")
