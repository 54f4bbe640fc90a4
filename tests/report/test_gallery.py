"""The pictures of a report."""

import re

import numpy as np

from tests.report.conftest import finding
from toast_cli.report import figures, gallery
from toast_cli.report.findings import Finding


def names(findings: list[Finding]) -> set[str]:
    return {re.sub(r"-m_on.*|-m_.*", "", name) for name in gallery.of_findings(findings, {"m": 4})}


def test_the_findings_decide_which_pictures_there_are():
    original = finding("none", 0.9, translator="", fit_data="", fit_images=0)
    spans = [finding(plan, 0.8) for plan in ("0-1", "1-2", "0-2", "2-3")]
    assert names([original, *spans]) == {"spans", "trade-offs"}
    sizes = [finding("0-1", 0.8, fit_images=n) for n in (10, 100, 500)]
    assert names([original, *sizes]) == {"fit-images"}
    moved = [finding("0-1", 0.8, data=d, fit_data=f) for d in "de" for f in "de"]
    assert "transfer" in names([original, *moved])


def test_spans_that_end_inside_blocks_have_rows_and_columns_of_their_own():
    whole = {"stem-0": -0.1, "0-2": -0.2, "2-3": -0.3, "0-1+2-3": -0.9}
    for deltas, side, starts, ends in (
        (whole, 4, ["stem", "0", "1", "2"], ["0", "1", "2", "3"]),
        (
            whole | {"1a-1": -0.4, "stem-0a": -0.5}, 8,
            ["stem", "0a", "0", "1a", "1", "2a", "2", "3a"], ["0a", "0", "1a", "1", "2a", "2", "3a", "3"],
        ),
    ):  # fmt: skip
        axes = figures.spans(deltas, 4, "title").axes[0]
        cells = axes.images[0].get_array()
        assert cells.shape == (side, side)
        assert [label.get_text() for label in axes.get_yticklabels()] == starts
        assert [label.get_text() for label in axes.get_xticklabels()] == ends
        shown = {
            f"{starts[row]}-{ends[column]}": cells[row, column]
            for row, column in zip(*(~np.isnan(cells.filled(np.nan))).nonzero(), strict=True)
        }
        assert shown == {plan: delta for plan, delta in deltas.items() if "+" not in plan}


def test_plans_of_halves_are_no_sums_of_blocks():
    findings = [finding("none", 0.9, translator="", fit_data="", fit_images=0)]
    findings += [finding(plan, 0.85) for plan in ("0-1", "1-2", "2-3", "0-2")]
    findings += [Finding(**{**vars(finding("0-1", 0.8)), "plan": "0-1a+2-3", "blocks_removed": 1.5})]
    assert "additivity" not in names(findings)


def test_additivity_needs_blocks_apart_and_together():
    findings = [finding("none", 0.9, translator="", fit_data="", fit_images=0)]
    findings += [finding(plan, 0.85) for plan in ("0-1", "1-2", "2-3", "0-2")]
    assert "additivity" not in names(findings)
    apart = {**vars(finding("0-1", 0.8)), "plan": "0-1+2-3", "blocks_removed": 2}
    assert "additivity" in names([*findings, Finding(**apart)])
