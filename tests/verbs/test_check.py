"""toast check: what passes, what does not, and what cannot be said."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toast_cli.report.regression import IncomparableError, against_runs
from toast_cli.report.statistics import bootstrap_interval
from toast_cli.runs.archive import CompleteRun

PLANS = ["none", "stem-2", "9-11", "2-3+9-11"]


def worsened(run: CompleteRun, plan: str, images: int) -> CompleteRun:
    """The run with ``images`` right answers less for a plan, with each seed."""
    stored, number = run.stored, PLANS.index(plan)
    assert stored is not None
    by_seed = {seed: predicted.copy() for seed, predicted in stored.by_seed.items()}
    for predicted in by_seed.values():
        right = np.flatnonzero(predicted[number] == stored.truth)[:images]
        predicted[number, right] += 1
    rows = [
        replace(row, accuracy=float((by_seed[row.seed][PLANS.index(row.plan)] == stored.truth).mean()))
        for row in run.rows
    ]
    found = CompleteRun(run.path, run.config, run.record, rows)
    found.__dict__["stored"] = replace(stored, by_seed=by_seed)
    return found


@pytest.fixture
def run(runs: Path) -> CompleteRun:
    return CompleteRun.read(runs / "linear0")


def test_the_same_run_passes(toast: Callable, runs: Path):
    status, out, err = toast("check", str(runs / "linear0"), "--baseline", str(runs / "linear0"))
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "none of 4 plans is worse than in the baseline"
    assert toast("check", str(runs), "--baseline", str(runs))[0] == 0, "folders of runs: two translators, two draws"


def test_only_the_plan_that_lost_is_worse(run: CompleteRun):
    now = worsened(run, "9-11", 12)
    changes = against_runs([now], [run], None)
    assert {change.line.plan: change.worse for change in changes} == {plan: plan == "9-11" for plan in PLANS}
    lost = next(change for change in changes if change.worse)
    assert lost.after - lost.before == pytest.approx(-12 / 48)
    assert run.stored is not None
    assert now.stored is not None
    change = sum(
        (now.stored.by_seed[seed][2] == run.stored.truth).astype(int) - (predicted[2] == run.stored.truth)
        for seed, predicted in run.stored.by_seed.items()
    )
    expected = bootstrap_interval(change, np.full(48, 2), 1 - 0.05 / 4, draws=16_000)
    assert (lost.low, lost.high) == pytest.approx(expected)
    assert not any(change.worse for change in against_runs([run], [now], None)), "better is not worse"


def test_one_image_is_noise_unless_a_tolerance_says_otherwise(run: CompleteRun):
    now = worsened(run, "9-11", 1)
    assert not any(change.worse for change in against_runs([now], [run], None))
    assert [change.line.plan for change in against_runs([now], [run], 0.02) if change.worse] == ["9-11"]
    assert not any(change.worse for change in against_runs([now], [run], 1 / 48))


def test_a_loss_ends_with_status_1(toast: Callable, runs: Path, run: CompleteRun, monkeypatch: pytest.MonkeyPatch):
    read = CompleteRun.read
    monkeypatch.setattr(
        CompleteRun, "read", lambda path: worsened(run, "stem-2", 20) if path.name == "linear0" else read(path)
    )
    status, out, _ = toast("check", str(runs / "linear0"), "--baseline", str(runs / "linear0" / "summary.csv"), "--tolerance", "0.01")  # fmt: skip
    assert status == 1
    assert out.splitlines()[-1] == "1 of 4 plans is worse than in the baseline"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["identity0", "--baseline", "linear0"], "The run has no stem-2 linear of digits_vit on digits and 2 more of 4 plans"),
        (["linear0", "--baseline", "linear1"], "none has the seeds (data, probe) [(1, 0), (1, 1)] in the baseline and [(0, 0), (0, 1)] in the run"),
        (["linear0", "--baseline", "linear0/summary.csv"], "A summary.csv has no predictions to compare image by image: give --tolerance"),
        (["linear0", "--baseline", "linear0/results.csv", "--tolerance", "0"], "linear0/results.csv is not the summary.csv of a run: give one"),
        (["linear0", "--baseline", "linear0", "--tolerance", "nan"], "--tolerance nan is not a share of the images"),
        (["linear0", "--baseline", "nowhere"], "nowhere is not a folder"),
        (["linear0"], "the following arguments are required: --baseline"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_never_passes(
    toast: Callable, runs: Path, words: list[str], told: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(runs)
    status, out, err = toast("check", *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"toast: {told}")
    assert err.count("\n") == 1


def test_other_images_and_lost_predictions_cannot_be_compared(run: CompleteRun):
    other = worsened(run, "9-11", 0)
    assert other.stored is not None
    other.__dict__["stored"] = replace(other.stored, images=other.stored.images + 1)
    for tolerance in (None, 0.5):
        with pytest.raises(IncomparableError, match="tested on other images"):
            against_runs([run], [other], tolerance)
    other.__dict__["stored"] = None
    with pytest.raises(IncomparableError, match="no predictions to compare"):
        against_runs([run], [other], None)
    assert not any(change.worse for change in against_runs([run], [other], 0.0))


def test_what_other_verbs_left_beside_it_is_no_run(toast: Callable, runs: Path, tmp_path: Path):
    shutil.copytree(runs / "linear0", tmp_path / "all" / "run")
    (tmp_path / "all" / "similarity").mkdir()
    (tmp_path / "all" / "similarity" / "run.json").write_text('{"complete": true}')
    assert toast("check", "all", "--baseline", str(runs / "linear0"))[0] == 0


def test_a_run_that_is_not_complete_never_passes(toast: Callable, runs: Path, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    status, _, err = toast("check", "run", "--baseline", str(runs / "linear0"))
    assert status == 2
    assert err == "toast: run is not complete: run its command again to finish it.\n"
