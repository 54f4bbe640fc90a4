"""Findings as tables for papers, in Markdown and LaTeX: plans down, data sets across.

Labels come from strangers: whatever is in them is set as text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toast_cli.machine.console import visible
from toast_cli.report.findings import Finding
from toast_cli.runs.rows import Tuned

NOTE = (
    "≈: the 95% paired bootstrap interval of the change over test images contains 0 (± is the spread over probe and data seeds). Bold and "
    "underlined: best and second best among plans that remove the same number of blocks."
)


@dataclass(frozen=True)
class Table:
    """Cells of text: ``rows`` of (cells, rank of each cell or None). Rank 1 is best in its group, 2 second best."""

    title: str
    head: list[str]
    rows: list[tuple[list[str], list[int | None]]]
    note: str = NOTE

    def noting(self, sentences: Sequence[str]) -> "Table":
        """The same table with further ``sentences`` in its note."""
        return replace(self, note=" ".join([self.note, *sentences]).strip())


def by_model(findings: Sequence[Finding], changes: bool = False) -> list[Table]:
    """A table for each model: accuracy of every plan on every data set, ranked among plans of equally many blocks.

    With ``changes``, there is a column beside each data set's for the changes' shares of the original's accuracy.
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
        texts += [row[-1], str(first.blocks_removed), f"{first.params_ratio:.3f}", f"{first.gflops_ratio:.3f}"]
        cells_of_data = [cell for column in columns for cell in _cells(found, group, column, changes)]
        ranks = [*[None] * len(texts), *(rank for _, rank in cells_of_data)]
        rows.append(([*texts, *(text for text, _ in cells_of_data)], ranks))
    head = [
        "translator",
        *(name.replace("_", " ") for name in extras),
        "plan",
        "blocks removed",
        "params",
        "GFLOPs",
        *(name for column in columns for name in [column, *[f"{column}: relative change"] * changes]),
    ]
    return Table(f"{model}: accuracy, {_over(findings)}", head, rows)


# Settings of fine-tuning that have columns of their own, are averaged over, or only say where things are.
_SHOWN = ("seeds", "spans", "data.seed", "data.label", "translator._target_", "data.path", "fit_data.path")
_OF_MAPS = ("translator.", "fit.", "fit_data.", "data.fit_", "tune.train_maps")  # irrelevant without a map


def of_tuned(entries: Sequence[tuple[Tuned, dict[str, Any]]]) -> list[Table]:
    """A table for each model: accuracy before and after fine-tuning, means over seeds.

    There is a line for each choice of the settings that differ. Every row comes with the settings of its run by dotted
    key.
    """
    models = dict.fromkeys(row.model for row, _ in entries)
    return [_of_tuned(model, [entry for entry in entries if entry[0].model == model]) for model in models]


def _of_tuned(model: str, entries: list[tuple[Tuned, dict[str, Any]]]) -> Table:
    keys = [key for key in dict.fromkeys(key for _, found in entries for key in found) if key not in _SHOWN]
    keys = [key for key in keys if not key.startswith(("model.", "data.source", "data.config"))]
    extras = [key for key in keys if len({str(found.get(key)) for row, found in entries if row.blocks_removed}) > 1]
    groups: dict[tuple[str, ...], dict[tuple[int, int], Tuned]] = {}
    for row, found in sorted(entries, key=lambda entry: entry[0].blocks_removed):
        told = ["–" if not row.blocks_removed and key.startswith(_OF_MAPS) else str(found.get(key)) for key in extras]
        seen = groups.setdefault((row.data, row.translator or "–", *told, row.plan), {})
        seen.setdefault((row.data_seed, row.seed), row)  # the untouched model is tuned alike, whatever the maps are
    head = ["data", "translator", *(key.removeprefix("tune.").replace("_", " ") for key in extras), "plan"]
    head += ["params", "GFLOPs", "original", "before", "after", "seeds"]
    lines = [_tuned(key, list(found.values())) for key, found in groups.items()]
    no_ranks: list[int | None] = [None] * len(head)
    return Table(f"{model}: accuracy before and after fine-tuning", head, [(line, no_ranks) for line in lines], note="")


def _tuned(key: tuple[str, ...], group: list[Tuned]) -> list[str]:
    def spread(values: list[float]) -> str:
        deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        return f"{np.mean(values):.4f}{deviation}"

    accuracies = [
        spread([getattr(row, name) for row in group])
        for name in ("accuracy_original", "accuracy_before", "accuracy_after")
    ]
    return [*key, f"{group[0].params_ratio:.3f}", f"{group[0].gflops_ratio:.3f}", *accuracies, str(len(group))]


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


def _cells(
    found: dict[str, Finding], group: list[dict[str, Finding]], column: str, changes: bool
) -> list[tuple[str, int | None]]:
    """The texts and ranks of a line for one data set."""
    finding = found.get(column)
    texts = ["" if finding is None else write(finding) for write in (_cell, _change)[: 1 + changes]]
    return list(zip(texts, (_rank(found, group, column), None), strict=False))


def _cell(finding: Finding) -> str:
    spread = "" if finding.accuracy_std is None else f" ± {finding.accuracy_std:.4f}"
    return f"{finding.accuracy_mean:.4f}{spread}{' ≈' if finding.within_noise else ''}"


def _change(finding: Finding) -> str:
    relative = finding.delta_relative_mean
    return "" if relative is None or finding.plan == "none" else f"{100 * relative:+.2f}%"


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
    lines = [[_in_markdown(text) for text in table.head], ["---"] * len(table.head)]
    lines += [
        [marks[rank].format(_in_markdown(text)) for text, rank in zip(texts, ranks, strict=True)]
        for texts, ranks in table.rows
    ]
    return (
        f"### {_in_markdown(table.title)}\n\n"
        + "\n".join(f"| {' | '.join(line)} |" for line in lines)
        + f"\n\n{table.note}".rstrip()
        + "\n"
    )


_MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*[]|~"}
_MARKDOWN |= {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "<span>$</span>"}  # GitHub takes $…$ for mathematics
_EDGE = re.compile(r"(?<!\w)_+|_+(?!\w)")  # underscores inside a word, as in dinov2_s, are no marks


def _in_markdown(text: str) -> str:
    """``text`` so that GitHub's Markdown shows it as it is, in a cell or in a heading."""
    plain = "".join(_MARKDOWN.get(letter, letter) for letter in visible(text))
    return _EDGE.sub(lambda found: r"\_" * len(found[0]), plain)


def latex(table: Table) -> str:
    """The table in LaTeX, for booktabs and longtable."""
    marks = {1: r"\textbf{{{}}}", 2: r"\underline{{{}}}", None: "{}"}

    def line(texts: Sequence[str], mark: Callable[[int, str], str] = lambda _, text: text) -> str:
        return " & ".join(mark(i, _in_latex(text)) for i, text in enumerate(texts)) + r" \\"

    body = [
        line(texts, lambda i, text, ranks=ranks: marks[ranks[i]].format(text))  # type: ignore[misc]
        for texts, ranks in table.rows
    ]
    texts = table.head.index("plan") + 1
    columns = "l" * texts + "r" * (len(table.head) - texts)
    caption = f"{table.title}. {table.note}".strip()
    head = [
        "% \\usepackage{booktabs,longtable}",
        rf"\begin{{longtable}}{{{columns}}}",
        rf"\caption{{{_in_latex(caption)}}}\\",
    ]
    return (
        "\n".join(
            [*head, r"\toprule", line(table.head), r"\midrule", r"\endhead", *body, r"\bottomrule", r"\end{longtable}"]
        )
        + "\n"
    )


_LATEX = {letter: f"\\{letter}" for letter in "{}$&#_%"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # other letters in TeX's first encoding
_LATEX |= {"[": "{[}", "*": "{*}"}  # at the beginning of a row they would belong to the line break before it
_LATEX |= {"±": r"$\pm$", "≈": r"$\approx$", "–": "--"}


def _in_latex(text: str) -> str:
    """``text`` so that LaTeX sets it as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in visible(text))
