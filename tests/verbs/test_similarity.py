"""toast similarity: its rows and its pictures."""

import csv
import math
import re
from pathlib import Path

import pytest

from tests.conftest import SMALL
from toast_cli.runs.measured import MEASURES, Similarity
from toast_cli.runs.results import read_csv


def test_the_verb_writes_all_pairs_all_plans_and_pictures(toast, tmp_path):
    status, out, err = toast("similarity", *SMALL, "hydra.run.dir=here")
    assert status == 0, err
    assert out.splitlines()[-1] == str(tmp_path / "here" / "similarity.csv")
    rows = read_csv(tmp_path / "here" / "similarity.csv", Similarity)
    blocks, plans = ([row for row in rows if row.kind == kind] for kind in ("blocks", "plans"))
    assert len(blocks) == 5 * 13 * 13
    assert {row.target for row in plans} == {"stem-2", "9-11", "2-3+9-11"}
    assert all(math.isfinite(row.value) for row in rows)
    assert {(row.model, row.data, row.fit_images) for row in rows} == {("digits_vit", "digits", 40)}
    pictures = {path.name for path in (tmp_path / "here").glob("*.png")}
    assert {f"similarity-{measure}-digits_vit.png" for measure in MEASURES} <= pictures
    values = {(row.source, row.target, row.measure): row.value for row in rows}
    assert re.search(rf"^11 .* {values['10', '11', 'r2']:.3f} ", out, re.MULTILINE)
    assert re.search(rf"^9-11 +-2 +{values['none', '9-11', 'cka']:.3f} ", out, re.MULTILINE)
    assert all(f"\n{Path(name).stem}\n" in out for name in pictures)
    runs = toast("run", *SMALL, "hydra.run.dir=run")
    assert runs[0] == 0
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        fitted = {row["plan"]: float(row["fit_r2"]) for row in csv.DictReader(file) if row["plan"] == "9-11"}
    value = next(row.value for row in blocks if (row.measure, row.source, row.target) == ("r2", "9", "11"))
    assert value == pytest.approx(fitted["9-11"], abs=1e-9), "the R² of the map that a run fits"


@pytest.mark.slow
def test_plans_say_what_their_maps_come_from(toast, tmp_path):
    words = [
        "data.fit_images=[20,40]",
        "data.train_images=40",
        "data.test_images=20",
        "spans=[9-11,4-6:identity]",
        "device=cpu",
    ]
    assert toast("similarity", *words, "hydra.run.dir=here")[0] == 0
    rows = [row for row in read_csv(tmp_path / "here" / "similarity.csv", Similarity) if row.kind == "plans"]
    told = [(row.measure, row.target, row.fit_images, row.translator) for row in rows]
    assert len(set(told)) == len(told) == 5 * 2 * 2


@pytest.mark.slow
def test_a_complete_similarity_is_not_measured_again(toast, monkeypatch):
    toast("similarity", *SMALL, "spans=none", "hydra.run.dir=here")
    monkeypatch.setattr("toast_cli.verbs.similarity.similarity", lambda *_: pytest.fail("there is nothing left to do"))
    assert toast("similarity", *SMALL, "spans=none", "hydra.run.dir=here")[0] == 0
