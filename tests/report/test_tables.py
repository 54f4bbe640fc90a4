"""The tables of a report."""

from tests.report.conftest import finding
from toast_cli.report import tables


def test_best_and_second_of_as_many_blocks_are_marked_in_each_column():
    findings = [
        finding("none", 0.9, translator=""),
        finding("0-1", 0.80), finding("1-2", 0.85), finding("2-3", 0.70), finding("0-2", 0.6), finding("1-3", 0.5),
        finding("0-1", 0.1, "e"), finding("1-2", 0.3, "e"), finding("2-3", 0.2, "e"),
    ]  # fmt: skip
    table = tables.by_model(findings)[0]
    assert table.head == ["translator", "plan", "blocks removed", "params", "GFLOPs", "d", "e"]
    ranks = {cells[1]: ranks[-2:] for cells, ranks in table.rows}
    assert ranks == {
        "none": [None, None], "0-1": [2, None], "1-2": [1, 1], "2-3": [None, 2], "0-2": [1, None], "1-3": [None, None],
    }  # fmt: skip
    text = tables.markdown(table)
    assert "| linear | 1-2 | 1 | 0.900 | 0.900 | **0.8500 ± 0.0100** | **0.3000 ± 0.0100** |" in text
    assert "<u>0.8000 ± 0.0100</u>" in text
    latex = tables.latex(table)
    assert r"\textbf{0.8500 $\pm$ 0.0100}" in latex
    assert r"\underline{0.8000 $\pm$ 0.0100}" in latex
    assert latex.count("&") == 6 * 7


def test_changes_stand_beside_accuracies_if_asked_for():
    findings = [
        finding("none", 0.9, translator="", delta_low=None, delta_high=None),
        finding("none", 0.9, "e", translator="", delta_low=None, delta_high=None),
        finding("0-1", 0.81, delta_low=-0.12, delta_high=-0.05), finding("0-1", 0.95, "e"), finding("1-2", 0.0, delta_relative_mean=None),
    ]  # fmt: skip
    table = tables.by_model(findings, changes=True)[0]
    told = [f"{data}{of}" for data in "de" for of in ("", ": change", ": 95% interval", ": relative change")]
    assert table.head == ["translator", "plan", *told, "blocks removed", "params", "GFLOPs"]
    cells = {cells[1]: cells[2:10] for cells, _ in table.rows}
    assert cells["none"] == ["0.9000 ± 0.0100", "", "", ""] * 2
    assert cells["0-1"] == [
        "0.8100 ± 0.0100", "-0.0900", "-0.1200 … -0.0500", "-10.00%", "0.9500 ± 0.0100", "+0.0500", "+0.0000 … +0.0000", "+5.56%",
    ]  # fmt: skip
    assert cells["1-2"] == ["0.0000 ± 0.0100", "-0.9000", "+0.0000 … +0.0000", "", "", "", "", ""]
    accuracy = [(row[0][2], row[1][2]) for row in table.rows]
    assert accuracy == [(row[0][5], row[1][5]) for row in tables.by_model(findings)[0].rows]


def test_within_noise_is_marked():
    assert "0.8900 ± 0.0100 ≈" in tables.markdown(tables.by_model([finding("0-1", 0.89, noise=True)])[0])


def test_there_are_columns_for_what_differs():
    two = [finding("0-1", 0.8, probe="linear"), finding("0-1", 0.8, probe="knn", precision="bf16")]
    assert tables.by_model(two)[0].head[-2:] == ["d linear fp32", "d knn bf16"]
    sizes = tables.by_model([finding("0-1", 0.8, fit_images=10), finding("0-1", 0.8, fit_images=500)])[0]
    assert sizes.head[:3] == ["translator", "fit images", "plan"]
