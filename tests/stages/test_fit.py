"""Fit images in nested parts, from another data set, by groups of tokens: against plain runs of each alone."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SMALL
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row, Summary
from toast_cli.stages import fit as fitting

BASE = [word for word in SMALL if "fit_images" not in word]


@pytest.mark.slow
def test_several_numbers_of_fit_images_equal_a_run_of_each(toast, tmp_path):
    assert toast("run", *BASE, "data.fit_images=[40,10,100]", "hydra.run.dir=all")[0] == 0
    together = read_csv(tmp_path / "all" / "results.csv", Row)
    assert [row.fit_images for row in together] == [0, *[10] * 3, *[40] * 3, *[100] * 3]
    maps = load_file(tmp_path / "all" / "translators.safetensors")
    for count in (10, 40, 100):
        assert toast("run", *BASE, f"data.fit_images={count}", f"hydra.run.dir=n{count}")[0] == 0
        alone = read_csv(tmp_path / f"n{count}" / "results.csv", Row)[1:]
        same = [row for row in together if row.fit_images == count]
        assert [row.plan for row in alone] == [row.plan for row in same]
        for one, other in zip(alone, same, strict=True):
            assert one.fit_r2 == pytest.approx(other.fit_r2, abs=1e-5)
            assert abs(one.accuracy - other.accuracy) <= 1 / 48 + 1e-9
        weights = load_file(tmp_path / f"n{count}" / "translators.safetensors")
        name = f"9-11@{count}/weight_"
        assert (maps[name] - weights[name]).norm() / weights[name].norm() < (1e-3 if count > 10 else 0.05)


def test_one_pass_serves_all_numbers(toast, monkeypatch):
    seen = []
    found = fitting.latents
    monkeypatch.setattr(
        fitting, "latents", lambda backbone, pixels, *a: seen.append(len(pixels)) or found(backbone, pixels, *a)
    )
    assert toast("run", *BASE, "data.fit_images=[10,40,100]", "hydra.run.dir=here")[0] == 0
    assert sum(seen) == 100


def test_held_out_r2_tells_what_fit_r2_hides(toast, tmp_path):
    """Fewer images look better where the map was fitted, and are worse elsewhere; the maps do not depend on the score."""
    words = [*BASE, "data.fit_images=[4,10,100]"]
    for asked in ("true", "false"):
        assert toast("run", *words, f"fit.held_out_r2={asked}", f"hydra.run.dir=run-{asked}")[0] == 0
    scored, plain = (read_csv(tmp_path / name / "results.csv", Row) for name in ("run-true", "run-false"))
    assert [dataclasses.replace(row, held_out_r2=None) for row in scored] == plain
    maps, same = (load_file(tmp_path / name / "translators.safetensors") for name in ("run-true", "run-false"))
    assert all(torch.equal(maps[key], same[key]) for key in maps | same)
    by_plan = {(row.plan, row.fit_images): row for row in scored}
    assert by_plan["none", 0].held_out_r2 is None
    for plan in ("stem-2", "9-11", "2-3+9-11"):
        few, more = by_plan[plan, 10], by_plan[plan, 100]
        assert by_plan[plan, 4].held_out_r2 is None, "no fifth of four images"
        assert few.fit_r2 > more.fit_r2
        assert few.held_out_r2 < more.held_out_r2 < more.fit_r2
    assert by_plan["2-3+9-11", 10].held_out_r2 <= by_plan["9-11", 10].held_out_r2, "the lowest of the spans"
    lines = {(line.plan, line.fit_images): line for line in read_csv(tmp_path / "run-true" / "summary.csv", Summary)}
    assert {key: line.held_out_r2 for key, line in lines.items()} == {
        key: row.held_out_r2 for key, row in by_plan.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("words", [["fit.sequential=true"], ["translator=ridge", "translator.tokens=split"]])
def test_held_out_r2_of_other_fits(toast, tmp_path, words: list[str]):
    assert toast("run", *SMALL, *words, "hydra.run.dir=here")[0] == 0
    rows = read_csv(tmp_path / "here" / "results.csv", Row)[1:]
    assert all(0.3 < row.held_out_r2 < row.fit_r2 for row in rows)


def test_trained_maps_have_no_held_out_r2(toast, tmp_path):
    assert (
        toast("run", *SMALL[:3], "spans=[9-11]", "translator=mlp", "translator.steps=1", "hydra.run.dir=here")[0] == 0
    )
    assert {row.held_out_r2 for row in read_csv(tmp_path / "here" / "results.csv", Row)} == {None}


def test_summary_and_table_tell_the_numbers_apart(toast, tmp_path):
    status, out, _ = toast("run", *BASE, "data.fit_images=[10,40]", "hydra.run.dir=here")
    assert status == 0
    lines = read_csv(tmp_path / "here" / "summary.csv", Summary)
    assert [(line.plan, line.fit_images) for line in lines[:2]] == [("none", 0), ("stem-2", 10)]
    assert " fit " in out


@pytest.mark.slow
def test_maps_are_fitted_on_another_data_set(toast, tmp_path):
    for words in (["hydra.run.dir=own"], ["fit_data=digits_inverted", "hydra.run.dir=other"]):
        assert toast("run", *SMALL, *words)[0] == 0
    own, other = (read_csv(tmp_path / name / "results.csv", Row) for name in ("own", "other"))
    assert own[0].accuracy == other[0].accuracy, "the untouched model needs no fit images"
    assert {row.fit_data for row in other} == {"digits_inverted"}
    assert {row.data for row in other} == {"digits"}
    assert own[1].fit_r2 != other[1].fit_r2
    assert toast("run", *SMALL, "data=digits_inverted", "hydra.run.dir=third")[0] == 0
    third = read_csv(tmp_path / "third" / "results.csv", Row)
    assert third[1].fit_r2 == other[1].fit_r2, "the same maps as where they come from"


@pytest.mark.slow
def test_a_sweep_over_fit_data_has_a_run_for_each(toast, tmp_path):
    words = [*SMALL, "data=digits,digits_inverted", "fit_data=digits,digits_inverted", "hydra.sweep.dir=here"]
    assert toast("run", "-m", *words)[0] == 0
    assert len(list((tmp_path / "here").glob("*/results.csv"))) == 4


@pytest.mark.parametrize("kind", ["split", pytest.param("per_position", marks=pytest.mark.slow)])
def test_maps_for_tokens_apart_leave_less_and_cost_more(toast, tmp_path, kind: str):
    for words in (["hydra.run.dir=shared"], [f"translator.tokens={kind}", "hydra.run.dir=apart"]):
        assert toast("run", *SMALL, *words)[0] == 0
    shared, apart = (read_csv(tmp_path / name / "results.csv", Row) for name in ("shared", "apart"))
    assert {row.tokens for row in apart} == {kind}
    for one, other in zip(shared[1:], apart[1:], strict=True):
        assert other.fit_r2 > one.fit_r2, "more maps leave less"
        assert other.params > one.params
        if one.plan.startswith("stem"):
            assert other.gflops > one.gflops, "one map for all tokens folds into the stem"
        else:
            assert other.gflops == pytest.approx(one.gflops)


@pytest.mark.slow
def test_a_trained_map_goes_on_from_the_last_span(toast, tmp_path, monkeypatch):
    words = [*SMALL, "translator=mlp", "translator.steps=15"]
    assert toast("run", *words, "hydra.run.dir=whole")[0] == 0
    train, calls = fitting._trained, []

    def killed(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return train(*arguments)

    monkeypatch.setattr(fitting, "_trained", killed)
    assert toast("run", *words, "hydra.run.dir=here")[0] == 130
    (tmp_path / "here" / "features" / "latent7.f32").touch()  # of a run that was killed while it removed them
    calls.clear()
    assert toast("run", *words, "hydra.run.dir=here")[0] == 0
    assert len(calls) == 1, "two of the three spans were on disk"
    assert (tmp_path / "here" / "results.csv").read_text() == (tmp_path / "whole" / "results.csv").read_text()
    assert not list((tmp_path / "here" / "features").iterdir()), "latents are gone"
    assert json.loads((tmp_path / "here" / "run.json").read_text())["fit_images"] == {"40": 40}


def test_ridge_holds_out_a_fifth(toast, tmp_path):
    assert toast("run", *SMALL, "translator=ridge", "hydra.run.dir=here")[0] == 0
    assert {row.translator for row in read_csv(tmp_path / "here" / "results.csv", Row)} == {"ridge"}


def test_maps_that_group_tokens_in_their_own_ways_are_read_back(toast, tmp_path):
    """``context`` keeps prefix tokens and patches apart, the affine map beside it does not."""
    words = [*SMALL[:3], "translator=context", "spans=[2-4:affine+9-11]", "hydra.run.dir=here"]
    assert toast("run", *words)[0] == 0
    before = (tmp_path / "here/results.csv").read_bytes()
    for name in ("results.csv", "summary.csv"):
        (tmp_path / "here" / name).unlink()
    status, _, err = toast("run", *words)
    assert (status, (tmp_path / "here/results.csv").read_bytes()) == (0, before), err
