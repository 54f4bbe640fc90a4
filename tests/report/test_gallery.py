"""The pictures of a report."""

import re

from tests.report.conftest import finding
from toast_cli.report import gallery
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


def test_additivity_needs_blocks_apart_and_together():
    findings = [finding("none", 0.9, translator="", fit_data="", fit_images=0)]
    findings += [finding(plan, 0.85) for plan in ("0-1", "1-2", "2-3", "0-2")]
    assert "additivity" not in names(findings)
    apart = {**vars(finding("0-1", 0.8)), "plan": "0-1+2-3", "blocks_removed": 2}
    assert "additivity" in names([*findings, Finding(**apart)])
