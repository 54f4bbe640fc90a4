"""The tables that papers print: the best plan for each number of blocks beside the untouched model."""

import dataclasses

from tests.report.conftest import finding
from toast_cli.report.best import best_tables
from toast_cli.report.tables import latex_float, markdown

FINDINGS = [
    finding("none", 0.9, translator="", fit_data="", delta_low=None, delta_high=None),
    finding("0-1", 0.80, delta_low=-0.123, delta_high=-0.05),
    finding("1-2", 0.89, delta_low=-0.02, delta_high=0.004, noise=True),
    finding("0-2", 0.7, delta_low=-0.3, delta_high=-0.1),
]


def plans(held_out=()) -> list[str]:
    return [cells[0] for cells, _ in best_tables(FINDINGS, [], held_out)[0].rows]


def test_the_most_accurate_on_test_unless_another_was_chosen_on_held_out_images():
    assert plans() == ["none", "1-2 †", "0-2 †"]
    assert plans({("m", "d", "0-1", False, False)}) == ["none", "0-1", "0-2 †"]
    assert plans({("m", "d", "0-1", True, False)}) == ["none", "1-2 †", "0-2 †"], "fitted in another way"


def test_numbers_have_units_and_their_intervals_beside_them():
    table = best_tables(FINDINGS, [])[0]
    assert table.head == [
        "plan", "blocks removed", "accuracy (%)", "change (points)", "95% interval", "params (M)", "GFLOPs",
    ]  # fmt: skip
    assert [cells[2:5] for cells, _ in table.rows] == [
        ["90.00 ± 1.00", "", ""],
        ["89.00 ± 1.00", "-1.00 ≈", "[-2.0, +0.4]"],
        ["70.00 ± 1.00", "-20.00", "[-30.0, -10.0]"],
    ]


def test_the_caption_says_model_data_images_seeds_and_probe():
    told = markdown(best_tables(FINDINGS, [])[0])
    for words in (
        "m on d",
        "linear maps, linear probe",
        "500 fit and 100 test images",
        "3 seeds",
        "none on the same test images",
    ):
        assert words in told
    assert "†: the most accurate on test" in told
    others = [dataclasses.replace(f, translator="identity") for f in FINDINGS[1:2]]
    assert best_tables([*FINDINGS, *others], [])[0].head[0] == "translator"


def test_latex_is_a_float_for_booktabs():
    lines = latex_float(best_tables(FINDINGS, [])[0]).splitlines()
    assert lines[:3] == [r"% \usepackage{booktabs}", r"\begin{table}", r"\centering"]
    assert lines[4:6] == [r"\begin{tabular}{lrrrrrr}", r"\toprule"]
    assert lines[8] == r"none & 0 & 90.00 $\pm$ 1.00 &  &  & 0.00 & 1 \\"
    assert lines[9].startswith(r"1-2 $\dagger$ & 1 & 89.00 $\pm$ 1.00 & -1.00 $\approx$ & {[}-2.0, +0.4] &")
    assert lines[-3:] == [r"\bottomrule", r"\end{tabular}", r"\end{table}"]


def test_without_an_original_there_is_nothing_to_compare_with():
    assert best_tables(FINDINGS[1:], []) == []
