"""Sequential fits: each map on what the maps before it produce."""

import pytest
import torch

from tests.conftest import SMALL
from toast_cli.plans import INDEPENDENT, SEQUENTIAL, Map, Plan, Span, Variant, variants
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.stages import probe
from toast_cli.stages.job import Job


def test_variants_and_their_maps():
    plan, single = Plan.parse("0-1+3-5:identity+7-8"), Plan.parse("0-1")
    first, second, third = Variant(plan, 50, sequential=True).maps
    assert (first.after, second.after, third.after) == (Plan(), single, Plan.parse("0-1+3-5:identity"))
    for key in (first, second, third):
        assert Map.parse(str(key)) == key
    assert str(second) == "3-5:identity@50~0-1"
    assert second.source(9).steps == (0, first, 2, 3)
    assert [str(v) + "*" * v.sequential for v in variants([Plan(), single, plan], [50], 9, [INDEPENDENT, SEQUENTIAL])] == [
        "none", "0-1", "0-1+3-5:identity+7-8", "0-1+3-5:identity+7-8*",
    ]  # fmt: skip


def test_the_second_map_is_least_squares_on_what_the_first_produces(toast, monkeypatch):
    kept = {}
    score = probe.score
    monkeypatch.setattr(
        probe,
        "score",
        lambda job, fitted, maps, *how: (kept.update(job=job, maps=maps), score(job, fitted, maps, *how)),
    )
    words = [word for word in SMALL if not word.startswith("spans")]
    assert toast("run", *words, "spans=[0-1+3-5]", "fit.sequential=true", "precision=fp32")[0] == 0
    job: Job = kept["job"]
    first, second = Map(Span(0, 1), 40), Map(Span(3, 5), 40, Plan.parse("0-1"))
    with torch.inference_mode():
        pixels = torch.cat([batch.pixels for batch in job.batches(job.data.fit[0], 64)])
        whole, extras = job.backbone.stem(pixels)
        short = job.backbone.block(0, whole, extras)
        whole = short
        short = kept["maps"][first](short)
        for i in range(1, 6):
            whole = job.backbone.block(i, whole, extras)
            short = job.backbone.block(i, short, extras) if i in (2, 3) else short
    x, y = short.flatten(0, 1).double(), whole.flatten(0, 1).double()
    best = x @ torch.linalg.lstsq(x, y, driver="gelsd").solution
    mapped = kept["maps"][second](short).flatten(0, 1).double()
    assert ((mapped - best).norm() / best.norm()).item() < 1e-3


@pytest.mark.slow
def test_rows_say_which(toast, tmp_path):
    words = [*SMALL[:3], "device=cpu", "spans=[0-1,0-1+3-5,0-1+3-5+8-9]"]
    for kind in ("false", "true"):
        assert toast("run", *words, f"fit.sequential={kind}", f"hydra.run.dir=run-{kind}")[0] == 0
    apart, after = (read_csv(tmp_path / f"run-{kind}" / "results.csv", Row) for kind in ("false", "true"))
    assert [row.sequential for row in apart] == [False] * 4
    assert [row.sequential for row in after] == [False, False, True, True]
    assert apart[1].accuracy == after[1].accuracy, "a single span has nothing before it"
    assert apart[1].fit_r2 == pytest.approx(after[1].fit_r2)
    assert apart[2].params == after[2].params
    assert toast("report", "run-false", "run-true", "--out", "report")[0] == 0
    assert "| sequential |" in (tmp_path / "report" / "tables.md").read_text()


def test_several_numbers_of_fit_images_have_maps_of_their_own(toast, tmp_path):
    words = [*SMALL[1:3], "device=cpu", "spans=[0-1+3-5]", "fit.sequential=true"]
    assert toast("run", *words, "data.fit_images=[20,40]", "hydra.run.dir=both")[0] == 0
    assert toast("run", *words, "data.fit_images=20", "hydra.run.dir=one")[0] == 0
    both, one = (read_csv(tmp_path / name / "results.csv", Row) for name in ("both", "one"))
    assert both[1].fit_r2 == pytest.approx(one[1].fit_r2, abs=1e-4)
    assert both[2].fit_images == 40


@pytest.mark.slow
def test_translators_by_span(toast, tmp_path):
    words = [*SMALL[:3], "device=cpu", "spans=[0-1:identity,0-1:linear,0-1,0-1:ridge]"]
    assert toast("run", *words, "hydra.run.dir=mixed")[0] == 0
    assert toast("run", *words[:-1], "spans=[0-1]", "translator=identity", "hydra.run.dir=identity")[0] == 0
    assert toast("run", *words[:-1], "spans=[0-1]", "translator=ridge", "hydra.run.dir=ridge")[0] == 0
    mixed = read_csv(tmp_path / "mixed" / "results.csv", Row)
    assert mixed[1].fit_r2 == pytest.approx(read_csv(tmp_path / "identity" / "results.csv", Row)[1].fit_r2, abs=1e-5)
    assert mixed[2].fit_r2 == mixed[3].fit_r2
    assert mixed[4].fit_r2 == pytest.approx(read_csv(tmp_path / "ridge" / "results.csv", Row)[1].fit_r2, abs=1e-5)
    assert "translator=identty is not known (did you mean" in toast("run", *words[:-1], "spans=[0-1:identty]")[2]
