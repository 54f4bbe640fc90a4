"""Findings as tables for papers, in Markdown and LaTeX: plans down, data sets across.

Labels come from strangers: whatever is in them is set as text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from toast_cli.machine.console import visible
from toast_cli.report.findings import Finding

NOTE = (
    "≈: the 95% paired bootstrap interval of the change over test images contains 0 (± is the spread over probe and data seeds). Bold and "
    "underlined: best and second best among plans that remove the same number of blocks."
)
_Cell = tuple[str, int | None]  # its text and its rank


@dataclass(frozen=True)
class Table:
    """Cells of text: ``rows`` of (cells, rank of each cell or None). Rank 1 is best in its group, 2 second best."""

    title: str
    head: list[str]
    rows: list[tuple[list[str], list[int | None]]]
    note: str = NOTE

    @property
    def of_words(self) -> range:
        """The columns that hold words; all others hold numbers."""
        return range(self.head.index("plan") + 1)

    def noting(self, sentences: Sequence[str]) -> "Table":
        """The same table with further ``sentences`` in its note."""
        return replace(self, note=" ".join([self.note, *sentences]).strip())


def by_model(findings: Sequence[Finding], changes: bool = False) -> list[Table]:
    """A table for each model: accuracy of every plan on every data set, ranked among plans of equally many blocks.

    With ``changes``, there are columns beside each data set's for the changes, their intervals and their shares of the
    original's accuracy, and all of these come before the sizes.
    """
    return [
        _table(model, [f for f in findings if f.model == model], changes)
        for model in dict.fromkeys(f.model for f in findings)
    ]


def _table(model: str, findings: list[Finding], changes: bool) -> Table:
    columns = list(dict.fromkeys(column_of(f, findings) for f in findings))
    extras = varying(findings)
    cells: dict[tuple, dict[str, Finding]] = {}
    for finding in findings:
        row = (finding.translator, *(getattr(finding, name) for name in extras), finding.plan)
        cells.setdefault(row, {})[column_of(finding, findings)] = finding
    ordered = sorted(cells.items(), key=lambda item: _first(item[1]).blocks_removed)
    rows = []
    for row, found in ordered:
        first = _first(found)
        group = [other for _, other in ordered if _first(other).blocks_removed == first.blocks_removed]
        texts = [str(cell) if cell else "–" for cell in row[:-1]]
        words: list[_Cell] = [(text, None) for text in (*texts, row[-1])]
        sizes: list[_Cell] = [(str(first.blocks_removed), None)]
        sizes += [(f"{ratio:.3f}", None) for ratio in (first.params_ratio, first.gflops_ratio)]
        of_data = [cell for column in columns for cell in _cells(found, group, column, changes)]
        line = [*words, *of_data, *sizes] if changes else [*words, *sizes, *of_data]
        rows.append(([text for text, _ in line], [rank for _, rank in line]))
    told = [f"{column}{of}" for column in columns for of in ("", *(_CHANGES if changes else ()))]
    names, sized = [name.replace("_", " ") for name in extras], ["blocks removed", "params", "GFLOPs"]
    head = ["translator", *names, "plan", *([*told, *sized] if changes else [*sized, *told])]
    return Table(f"{model}: accuracy, {_over(findings)}", head, rows)


def _first(found: dict[str, Finding]) -> Finding:
    return next(iter(found.values()))


def varying(findings: list[Finding]) -> list[str]:
    """The settings that need columns of their own, since they differ between ``findings``."""
    return [
        name
        for name in ("tokens", "solver", "sequential", "healed", "fit_data", "fit_images")
        if _varies(findings, name)
    ]


def _varies(findings: list[Finding], name: str) -> bool:
    values = {getattr(f, name) for f in findings if f.plan != "none"}
    return len(values) > 1 if name != "fit_data" else any(f.fit_data not in (f.data, "") for f in findings)


def column_of(finding: Finding, findings: list[Finding]) -> str:
    """The data set, with whatever else tells its columns apart."""
    names = ("probe", "readout", "protocol", "precision")
    return " ".join([finding.data, *(str(getattr(finding, name)) for name in names if _varies_at_all(findings, name))])


def _varies_at_all(findings: list[Finding], name: str) -> bool:
    return len({getattr(f, name) for f in findings}) > 1


def _over(findings: list[Finding]) -> str:
    runs = sorted({f.runs for f in findings})
    spread = "mean ± standard deviation over " if runs[-1] > 1 else ""
    counted = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    return f"{spread}{counted} seed{'s' * (runs[-1] > 1)}"


def _cells(found: dict[str, Finding], group: list[dict[str, Finding]], column: str, changes: bool) -> list[_Cell]:
    """The texts and ranks of a line for one data set."""
    finding = found.get(column)
    writers = (_cell, *(_CHANGES.values() if changes else ()))
    texts = ["" if finding is None else write(finding) for write in writers]
    return [(text, None if number else _rank(found, group, column)) for number, text in enumerate(texts)]


def _cell(finding: Finding) -> str:
    spread = "" if finding.accuracy_std is None else f" ± {finding.accuracy_std:.4f}"
    return f"{finding.accuracy_mean:.4f}{spread}{' ≈' if finding.within_noise else ''}"


def _delta(finding: Finding) -> str:
    return "" if finding.plan == "none" else f"{finding.delta_mean:+.4f}"


def _interval(finding: Finding) -> str:
    known = finding.delta_low is not None and finding.delta_high is not None
    return f"{finding.delta_low:+.4f} … {finding.delta_high:+.4f}" if known else ""


def _relative(finding: Finding) -> str:
    relative = finding.delta_relative_mean
    return "" if relative is None or finding.plan == "none" else f"{100 * relative:+.2f}%"


_CHANGES = {": change": _delta, ": 95% interval": _interval, ": relative change": _relative}


def _rank(found: dict[str, Finding], group: list[dict[str, Finding]], column: str) -> int | None:
    """1 for the best of at least two, 2 for the second of at least three; never for the original."""
    if column not in found or found[column].plan == "none":
        return None
    accuracies = sorted({other[column].accuracy_mean for other in group if column in other}, reverse=True)
    place = accuracies.index(found[column].accuracy_mean) + 1
    return place if place < len(accuracies) and place <= 2 else None


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown; bold is best, underlined second best."""
    marks = {1: "**{}**", 2: "<u>{}</u>", None: "{}"}
    lines = [[in_markdown(text) for text in table.head], ["---"] * len(table.head)]
    lines += [
        [marks[rank].format(in_markdown(text)) for text, rank in zip(texts, ranks, strict=True)]
        for texts, ranks in table.rows
    ]
    return (
        f"### {in_markdown(table.title)}\n\n"
        + "\n".join(f"| {' | '.join(line)} |" for line in lines)
        + f"\n\n{table.note}".rstrip()
        + "\n"
    )


_MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*[]|~"}
_MARKDOWN |= {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "<span>$</span>"}  # GitHub takes $…$ for mathematics
_EDGE = re.compile(r"(?<!\w)_+|_+(?!\w)")  # underscores inside a word, as in dinov2_s, are no marks


def in_markdown(text: str) -> str:
    """``text`` so that GitHub's Markdown shows it as it is, in a cell or in a heading."""
    plain = "".join(_MARKDOWN.get(letter, letter) for letter in visible(text))
    return _EDGE.sub(lambda found: r"\_" * len(found[0]), plain)


def latex(table: Table) -> str:
    """The table in LaTeX, for booktabs and longtable: it may take several pages."""
    columns, head, body = _parts(table)
    lines = ["% \\usepackage{booktabs,longtable}", rf"\begin{{longtable}}{{{columns}}}", rf"{_caption(table)}\\"]
    lines += [r"\toprule", head, r"\midrule", r"\endhead", *body, r"\bottomrule", r"\end{longtable}"]
    return "\n".join(lines) + "\n"


def latex_float(table: Table) -> str:
    """The table in LaTeX, for booktabs, as a float that a paper puts at the top of a page."""
    columns, head, body = _parts(table)
    lines = ["% \\usepackage{booktabs}", r"\begin{table}", r"\centering", _caption(table)]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", r"\end{table}"]) + "\n"


def _caption(table: Table) -> str:
    return rf"\caption{{{_in_latex(f'{table.title}. {table.note}'.strip())}}}"


def _parts(table: Table) -> tuple[str, str, list[str]]:
    """How columns are aligned, the head and the lines of the body."""
    marks = {1: r"\textbf{{{}}}", 2: r"\underline{{{}}}", None: "{}"}

    def line(texts: Sequence[str], mark: Callable[[int, str], str] = lambda _, text: text) -> str:
        return " & ".join(mark(i, _in_latex(text)) for i, text in enumerate(texts)) + r" \\"

    body = [
        line(texts, lambda i, text, ranks=ranks: marks[ranks[i]].format(text))  # type: ignore[misc]
        for texts, ranks in table.rows
    ]
    texts = len(table.of_words)
    return "l" * texts + "r" * (len(table.head) - texts), line(table.head), body


_LATEX = {letter: f"\\{letter}" for letter in "{}$&#_%"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # other letters in TeX's first encoding
_LATEX |= {"[": "{[}", "*": "{*}"}  # at the beginning of a row they would belong to the line break before it
_LATEX |= {"±": r"$\pm$", "≈": r"$\approx$", "–": "--", "†": r"$\dagger$"}


def _in_latex(text: str) -> str:
    """``text`` so that LaTeX sets it as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in visible(text))
