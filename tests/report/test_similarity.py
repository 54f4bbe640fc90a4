"""Which pictures show similarity, of today's rows and of those that an earlier version wrote."""

from dataclasses import replace

from tests.test_pinned import PINNED
from toast_cli.report.alike import meaning_of
from toast_cli.report.similarity import of_similarity
from toast_cli.runs.measured import MEASURES, Similarity
from toast_cli.runs.results import read_csv

PLANS = ("stem-0", "0-1", "1-2")


def entry(kind: str, measure: str, source: str, target: str, value: float = 0.5) -> Similarity:
    return Similarity("m", "d", 40, kind, measure, source, target, value, "", False, "", "", "clean", "fp32")


def of_measure(measure: str) -> list[Similarity]:
    layers = ("stem", "0", "1", "2")
    blocks = [entry("blocks", measure, source, target) for source in layers for target in layers]
    return blocks + [entry("plans", measure, "none", plan) for plan in PLANS]


def test_every_measure_has_its_pictures():
    rows = [row for measure in MEASURES for row in of_measure(measure)]
    assert meaning_of(rows) == rows
    pictures = of_similarity(rows)
    assert {f"similarity-{measure}-m" for measure in MEASURES} <= set(pictures)
    approximations = {name.split("-")[1] for name in pictures if name.startswith("approximation-")}
    assert approximations == {"cka", "r2"}, "the others would show the same"
    titles = {name: figure.get_suptitle() for name, figure in pictures.items()}
    assert titles["similarity-r2-m"] == "m: R² of the linear map between blocks"
    assert titles["similarity-r2_identity-m"] == "m: R² without a map between blocks"


def test_rows_of_an_earlier_version_are_taken_for_what_they_are():
    """It had R² without a map between plans, and called it ``r2``."""
    former = [row for measure in MEASURES[:-1] for row in of_measure(measure)]
    rows = meaning_of(former)
    assert {row.measure for row in rows if row.kind == "plans"} == {"cka", "cosine", "mse", "r2_identity"}
    assert {row.measure for row in rows if row.kind == "blocks"} == {"cka", "cosine", "mse", "r2"}
    assert [replace(row, measure="") for row in rows] == [replace(row, measure="") for row in former]
    names = set(of_similarity(rows))
    assert "similarity-r2-m" in names
    assert not any("r2_identity" in name or name.startswith("approximation-r2") for name in names), (
        "nothing to show it against"
    )


def test_earlier_and_new_rows_of_two_data_sets_stand_in_one_report():
    former = [replace(row, data="e") for measure in MEASURES[:-1] for row in of_measure(measure)]
    rows = [row for measure in MEASURES for row in of_measure(measure)]
    pictures = of_similarity([*meaning_of(former), *rows])
    assert len(pictures["similarity-r2-m"].axes) == 3  # two panels and the scale
    assert len(pictures["similarity-r2_identity-m"].axes) == 2


def test_a_run_of_an_earlier_version_is_shown():
    path = next((PINNED / "outputs" / "similarity").rglob("similarity.csv"))
    pictures = of_similarity(meaning_of(read_csv(path, Similarity)))
    assert set(pictures) == {f"similarity-{measure}-digits_vit" for measure in MEASURES[:-1]}
