"""What others report, beside what was measured."""

import re
import shutil
from pathlib import Path
from statistics import mean, stdev

import pytest

from tests.report.conftest import finding
from toast_cli.errors import ToastError
from toast_cli.report import side_tables, tables
from toast_cli.report.findings import Finding, findings_of
from toast_cli.runs import record
from toast_cli.runs.archive import CompleteRun, find
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row

MADE_UP = {"none": 0.5, "9-11": 0.25}


@pytest.fixture
def stated(runs: Path, tmp_path: Path) -> Path:
    """Two draws; the first run states what others report."""
    for name in ("linear0", "linear1"):
        shutil.copytree(runs / name, tmp_path / "runs" / name)
    record.note(tmp_path / "runs" / "linear0", expected=MADE_UP)
    return tmp_path / "runs"


def merged(place: Path) -> list[Finding]:
    return findings_of([CompleteRun.read(path) for path in find([place], "results.csv")[0]])


def test_the_difference_is_that_of_the_mean(stated: Path):
    findings = {found.plan: found for found in merged(stated)}
    assert {plan: found.expected for plan, found in findings.items()} == {
        "none": 0.5, "9-11": 0.25, "stem-2": None, "2-3+9-11": None,
    }  # fmt: skip
    rows = [row for path in stated.iterdir() for row in read_csv(path / "results.csv", Row)]
    for plan, found in findings.items():
        accuracies = [row.accuracy for row in rows if row.plan == plan]
        if plan in MADE_UP:
            assert found.expected_delta == pytest.approx(mean(accuracies) - MADE_UP[plan])
        else:
            assert found.expected_delta is None


def test_the_report_shows_them(stated: Path, toast, tmp_path: Path):
    status, _, err = toast("report", "runs", "--out", "here")
    assert status == 0, err
    texts = {name: (tmp_path / "here" / name).read_text() for name in ("tables.md", "tables.tex", "report.html")}
    table = re.search(r"### digits_vit: beside what others report\n\n(.*?)\n\n", texts["tables.md"], re.DOTALL)[1]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert cells[0] == ["data", "translator", "plan", "expected", "measured", "difference", "within ±"]
    rows = [row for path in stated.iterdir() for row in read_csv(path / "results.csv", Row)]
    for (plan, expected), line in zip(MADE_UP.items(), cells[2:], strict=True):
        measured = [row.accuracy for row in rows if row.plan == plan]
        difference = mean(measured) - expected
        assert line == [
            "digits", "–" if plan == "none" else "linear", plan, f"{expected:.4f}", f"{mean(measured):.4f} ± {stdev(measured):.4f}",
            f"{difference:+.4f}", "yes" if abs(difference) <= stdev(measured) else "no",
        ]  # fmt: skip
    assert r"beside what others report. Expected: what others report" in texts["tables.tex"]
    assert "beside what others report</h2>" in texts["report.html"]
    table = {found.plan: found for found in read_csv(tmp_path / "here" / "results.csv", Finding)}
    assert table["9-11"].expected == 0.25


@pytest.mark.parametrize(
    ("accuracy", "spread", "shown"),
    [
        (0.7374, 0.0, ["0.7374 ± 0.0000", "+0.0000", "yes"]),
        (0.7324, 0.006, ["0.7324 ± 0.0060", "-0.0050", "yes"]),
        (0.7424, 0.004, ["0.7424 ± 0.0040", "+0.0050", "no"]),
        (0.7424, None, ["0.7424", "+0.0050", ""]),
    ],
)
def test_within_the_spread_or_not(accuracy: float, spread: float | None, shown: list[str]):
    found = finding("0-1", accuracy, accuracy_std=spread, expected=0.7374, expected_delta=accuracy - 0.7374)
    table = side_tables.against_expected([found, finding("1-2", 0.5)])[0]
    assert [cells for cells, _ in table.rows] == [["d", "linear", "0-1", "0.7374", *shown]]
    assert tables.markdown(table)
    assert tables.latex(table).count("&") == 2 * 6


def test_nothing_expected_no_table():
    assert side_tables.against_expected([finding("0-1", 0.9)]) == []


def test_runs_that_expect_different_numbers_are_reported_apart(stated: Path):
    record.note(stated / "linear1", expected={"9-11": 0.3})
    with pytest.raises(
        ToastError, match=r"linear0 and .*linear1 expect 0.25 and 0.3 of plan 9-11: report them separately"
    ):
        merged(stated)


@pytest.mark.parametrize(
    "given", ["9-11", {"9-11": "<script>"}, {"<script>": 0.5}, {"9-11": 7}, [[]], {"9-11": float("nan")}]
)
def test_a_record_that_states_anything_else_is_refused(stated: Path, given: object):
    record.note(stated / "linear1", expected=given)
    with pytest.raises(ToastError, match=r"linear1.run.json does not say what others report: restore it"):
        merged(stated)
