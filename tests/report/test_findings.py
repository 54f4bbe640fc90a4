"""Merging runs: what is checked, and what the numbers mean."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SMALL
from toast_cli.errors import ToastError
from toast_cli.report.findings import Finding, findings_of
from toast_cli.report.statistics import bootstrap_interval
from toast_cli.runs import record
from toast_cli.runs.archive import CompleteRun, find
from toast_cli.runs.predictions import read
from toast_cli.runs.results import read_csv, write_csv
from toast_cli.runs.rows import Row


def merged(root: Path) -> list[Finding]:
    return findings_of([CompleteRun.read(path) for path in find([root], "results.csv")[0]])


def test_one_finding_a_plan_over_all_seeds_and_draws(runs):
    findings = merged(runs)
    plans = ["stem-2", "9-11", "2-3+9-11"]
    assert [(f.translator, f.plan) for f in findings] == [
        ("", "none"), *((name, plan) for name in ("identity", "linear") for plan in plans)
    ]  # fmt: skip
    rows = [row for path in runs.iterdir() for row in read_csv(path / "results.csv", Row)]
    for finding in findings:
        same = [
            row
            for row in rows
            if row.plan == finding.plan and (finding.plan == "none" or row.translator == finding.translator)
        ]
        accuracies = {(row.data_seed, row.seed): row.accuracy for row in same}
        assert finding.runs == len(accuracies) == 4
        assert finding.accuracy_mean == pytest.approx(np.mean(list(accuracies.values())))
        relative = [(row.accuracy - row.accuracy_original) / row.accuracy_original for row in same]
        distinct = dict(zip(((row.data_seed, row.seed) for row in same), relative, strict=True))
        assert finding.delta_relative_mean == pytest.approx(np.mean(list(distinct.values())))
        assert finding.accuracy_std == pytest.approx(np.std(list(accuracies.values()), ddof=1))


def test_intervals_and_flips_are_those_of_the_kept_predictions(runs):
    finding = next(f for f in merged(runs) if (f.translator, f.plan) == ("linear", "stem-2"))
    changes: dict[int, list[int]] = {}
    flips = []
    for draw in (0, 1):
        stored = read(runs / f"linear{draw}" / "predictions.safetensors")
        for predicted in stored.by_seed.values():
            right, original = predicted[1] == stored.truth, predicted[0] == stored.truth
            for image, change in zip(stored.images, right.astype(int) - original, strict=True):
                changes.setdefault(int(image), []).append(change)
            flips.append((predicted[1] != predicted[0]).mean())
    sums, counts = (np.array([reduce(values) for values in changes.values()]) for reduce in (sum, len))
    assert (finding.delta_low, finding.delta_high) == bootstrap_interval(sums, counts)
    assert finding.delta_mean == pytest.approx(sums.sum() / counts.sum())
    assert finding.delta_low < finding.delta_mean < finding.delta_high
    assert finding.flip_rate == pytest.approx(np.mean(flips))
    assert finding.within_noise == (finding.delta_low <= 0 <= finding.delta_high)
    assert 0 <= finding.mcnemar_p <= 1


def test_other_weights_under_the_same_name_are_refused(runs, tmp_path):
    shutil.copytree(runs / "linear0", tmp_path / "one")
    shutil.copytree(runs / "identity0", tmp_path / "two")
    record.note(tmp_path / "two", weights="other")
    with pytest.raises(ToastError, match="cannot be in one table: the weights of model digits_vit differ"):
        merged(tmp_path)


def test_other_test_images_under_the_same_name_are_refused(runs, tmp_path):
    shutil.copytree(runs / "linear0", tmp_path / "one")
    shutil.copytree(runs / "identity0", tmp_path / "two")
    path = tmp_path / "two" / "predictions.safetensors"
    stored = read(path)
    record.write(path, dataclasses.replace(stored, images=stored.images + 1).encoded())
    with pytest.raises(ToastError, match="the test images of digits clean with data.seed=0 differ"):
        merged(tmp_path)


@pytest.mark.slow
def test_other_numbers_of_images_are_refused_across_data_seeds(toast, tmp_path):
    words = ["data.fit_images=40", "data.test_images=48", "spans=[9-11]", "device=cpu"]
    for seed, train in ((0, 96), (1, 200)):
        assert (
            toast("run", *words, f"data.seed={seed}", f"data.train_images={train}", f"hydra.run.dir=run{seed}")[0] == 0
        )
    with pytest.raises(ToastError, match="number of train images of linear digits clean differ"):
        merged(tmp_path)


@pytest.mark.slow
def test_choices_of_a_protocol_are_told_apart(toast, tmp_path):
    for order in ("random", "first"):
        assert toast("run", *SMALL[:3], "spans=[9-11]", f"data.fit_order={order}", f"hydra.run.dir={order}")[0] == 0
    assert {f.protocol for f in merged(tmp_path)} == {"clean", "clean+fit_order=first"}


def test_the_same_plan_with_another_accuracy_is_refused(runs, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(runs / "linear0", tmp_path / name)
    assert len(merged(tmp_path)) == 4, "a copy is the same run"
    results = tmp_path / "two" / "results.csv"
    rows = read_csv(results, Row)
    rows[1] = dataclasses.replace(rows[1], accuracy=0.5)
    write_csv(results, rows, Row)
    with pytest.raises(ToastError, match="hold plan stem-2 with seed 0 at accuracy"):
        merged(tmp_path)


@pytest.mark.slow
def test_translators_that_differ_in_a_setting_are_told_apart(toast, tmp_path):
    for rank in (2, 8):
        assert toast("run", *SMALL, "translator=lowrank", f"translator.rank={rank}", f"hydra.run.dir=r{rank}")[0] == 0
    assert {f.translator for f in merged(tmp_path)} == {"", "lowrank rank=2", "lowrank rank=8"}
