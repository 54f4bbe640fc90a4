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
    every = [finding(plan, 0.8, fit_images=n) for n in (10, 100, 500) for plan in ("0-1", "1-2", "0-2", "2-3")]
    spans = [name for name in gallery.of_findings([original, *every], {"m": 4}) if name.startswith("spans")]
    assert spans == ["spans-m_on_d_linear_500_fit_images"], "those of other sizes would look like it"
    moved = [finding("0-1", 0.8, data=d, fit_data=f) for d in "de" for f in "de"]
    assert "transfer" in names([original, *moved])


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
