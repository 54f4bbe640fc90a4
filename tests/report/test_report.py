"""Merging runs: what is checked, what the numbers mean, what is written."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SMALL
from toast_cli.errors import ToastError
from toast_cli.report import gallery, tables
from toast_cli.report.findings import Finding, findings_of
from toast_cli.report.statistics import bootstrap_interval
from toast_cli.runs.archive import CompleteRun, find
from toast_cli.runs.predictions import add, read
from toast_cli.runs.results import read_csv, write_csv
from toast_cli.runs.rows import Row


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two translators, two seeds, two draws of the data."""
    from toast_cli import cli

    root = tmp_path_factory.mktemp("runs")
    for translator in ("linear", "identity"):
        for draw in (0, 1):
            folder = f"hydra.run.dir={root}/{translator}{draw}"
            cli.main(["run", *SMALL, f"translator={translator}", f"data.seed={draw}", "seeds=[0,1]", folder])
    return root


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


def test_kept_predictions_are_those_of_the_rows(runs):
    stored = read(runs / "linear0" / "predictions.safetensors")
    rows = read_csv(runs / "linear0" / "results.csv", Row)
    for seed, predicted in stored.by_seed.items():
        accuracies = [row.accuracy for row in rows if row.seed == seed]
        assert (predicted == stored.truth).mean(axis=1).tolist() == accuracies
    assert len(stored.images) == 48


def test_other_weights_under_the_same_name_are_refused(runs, tmp_path):
    shutil.copytree(runs / "linear0", tmp_path / "one")
    shutil.copytree(runs / "identity0", tmp_path / "two")
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    (tmp_path / "two" / "run.json").write_text(json.dumps(record | {"weights": "other"}))
    with pytest.raises(ToastError, match="cannot stand in one table: the weights of model digits_vit differ"):
        merged(tmp_path)


def test_other_test_images_under_the_same_name_are_refused(runs, tmp_path):
    shutil.copytree(runs / "linear0", tmp_path / "one")
    shutil.copytree(runs / "identity0", tmp_path / "two")
    path = tmp_path / "two" / "predictions.safetensors"
    stored = read(path)
    path.unlink()
    for seed, predicted in stored.by_seed.items():
        add(path, seed, predicted, stored.truth, stored.images + 1)
    with pytest.raises(ToastError, match="the test images of digits clean with data.seed=0 differ"):
        merged(tmp_path)


def test_other_numbers_of_images_are_refused_across_data_seeds(toast, tmp_path):
    words = ["data.fit_images=40", "data.test_images=48", "spans=[9-11]", "device=cpu"]
    for seed, train in ((0, 96), (1, 200)):
        assert (
            toast("run", *words, f"data.seed={seed}", f"data.train_images={train}", f"hydra.run.dir=run{seed}")[0] == 0
        )
    with pytest.raises(ToastError, match="number of train images of linear digits clean differ"):
        merged(tmp_path)


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


def test_translators_that_differ_in_a_setting_are_told_apart(toast, tmp_path):
    for rank in (2, 8):
        assert toast("run", *SMALL, "translator=lowrank", f"translator.rank={rank}", f"hydra.run.dir=r{rank}")[0] == 0
    assert {f.translator for f in merged(tmp_path)} == {"", "lowrank rank=2", "lowrank rank=8"}


def test_everything_is_written_and_the_page_needs_nothing_else(runs, toast, tmp_path):
    toast("similarity", *SMALL, f"hydra.run.dir={tmp_path}/alike")
    status, out, err = toast("report", str(runs), "alike", "--out", "here")
    assert status == 0, err
    page = (tmp_path / "here" / "report.html").read_text()
    assert out.strip() == "here/report.html"
    assert not re.search(r"(src|href)=['\"](?!data:)", page)
    pictures = list((tmp_path / "here" / "figures").glob("*.png"))
    assert page.count("data:image/png;base64,") == len(pictures) >= 6
    assert len(read_csv(tmp_path / "here" / "results.csv", Finding)) == 7
    markdown, latex = ((tmp_path / "here" / f"tables.{kind}").read_text() for kind in ("md", "tex"))
    assert "| identity | 9-11 | 2 |" in markdown
    assert r"\toprule" in latex
    assert r"digits\_vit" in latex


def test_unfinished_runs_are_named_and_left_out(runs, toast, tmp_path):
    shutil.copytree(runs / "linear0", tmp_path / "runs" / "whole")
    shutil.copytree(runs / "linear1", tmp_path / "runs" / "part")
    record = json.loads((tmp_path / "runs" / "part" / "run.json").read_text())
    (tmp_path / "runs" / "part" / "run.json").write_text(json.dumps(record | {"complete": False}))
    status, _, err = toast("report", "runs")
    assert status == 0
    assert f"{tmp_path}/runs/part is not complete and left out" in err


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("nowhere", "nowhere is not a folder: give folders of runs"),
        (".", "No complete run lies in .: give folders that toast run, similarity or finetune wrote."),
    ],
)
def test_nothing_to_report_is_a_sentence(toast, argument: str, text: str):
    status, _, err = toast("report", argument)
    assert status == 1
    assert err.startswith(f"toast: {text}")


def finding(
    plan: str, accuracy: float, data: str = "d", translator: str = "linear", noise: bool = False, **other
) -> Finding:
    removed = 0 if plan == "none" else int(plan.split("-")[1]) - int(plan.split("-")[0])
    values = {
        "model": "m", "data": data, "fit_data": data, "translator": translator, "tokens": "shared", "solver": "exact", "sequential": False,
        "probe": "linear", "readout": "model", "protocol": "clean", "precision": "fp32", "plan": plan,
        "blocks_removed": removed, "fit_images": 500, "runs": 3, "test_images": 100, "accuracy_mean": accuracy,
        "accuracy_std": 0.01, "delta_mean": accuracy - 0.9, "delta_std": 0.01, "delta_low": 0.0, "delta_high": 0.0,
        "mcnemar_p": 1.0, "flip_rate": 0.0, "within_noise": noise, "params": 1, "params_ratio": 0.9, "gflops": 1.0,
        "gflops_ratio": 0.9, "fit_r2": 0.9,
    }  # fmt: skip
    return Finding(**values | other)


class TestTables:
    def test_best_and_second_of_as_many_blocks_in_each_column(self):
        findings = [
            finding("none", 0.9, translator=""),
            finding("0-1", 0.80), finding("1-2", 0.85), finding("2-3", 0.70), finding("0-2", 0.6), finding("1-3", 0.5),
            finding("0-1", 0.1, "e"), finding("1-2", 0.3, "e"), finding("2-3", 0.2, "e"),
        ]  # fmt: skip
        table = tables.by_model(findings)[0]
        assert table.head == ["translator", "plan", "blocks out", "params", "GFLOPs", "d", "e"]
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

    def test_within_noise_is_marked(self):
        assert "0.8900 ± 0.0100 ≈" in tables.markdown(tables.by_model([finding("0-1", 0.89, noise=True)])[0])

    def test_columns_for_what_differs(self):
        two = [finding("0-1", 0.8, probe="linear"), finding("0-1", 0.8, probe="knn", precision="bf16")]
        assert tables.by_model(two)[0].head[-2:] == ["d linear fp32", "d knn bf16"]
        sizes = tables.by_model([finding("0-1", 0.8, fit_images=10), finding("0-1", 0.8, fit_images=500)])[0]
        assert sizes.head[:3] == ["translator", "fit images", "plan"]


class TestGallery:
    def names(self, findings: list[Finding]) -> set[str]:
        return {re.sub(r"-m_on.*|-m_.*", "", name) for name in gallery.of_findings(findings, {"m": 4})}

    def test_which_pictures(self):
        original = finding("none", 0.9, translator="", fit_data="", fit_images=0)
        spans = [finding(plan, 0.8) for plan in ("0-1", "1-2", "0-2", "2-3")]
        assert self.names([original, *spans]) == {"spans", "trade-offs"}
        sizes = [finding("0-1", 0.8, fit_images=n) for n in (10, 100, 500)]
        assert self.names([original, *sizes]) == {"fit-images"}
        moved = [finding("0-1", 0.8, data=d, fit_data=f) for d in "de" for f in "de"]
        assert "transfer" in self.names([original, *moved])

    def test_blocks_apart_and_together(self):
        findings = [finding("none", 0.9, translator="", fit_data="", fit_images=0)]
        findings += [finding(plan, 0.85) for plan in ("0-1", "1-2", "2-3", "0-2")]
        assert "additivity" not in self.names(findings)
        apart = {**vars(finding("0-1", 0.8)), "plan": "0-1+2-3", "blocks_removed": 2}
        assert "additivity" in self.names([*findings, Finding(**apart)])


def test_fine_tuning_with_other_settings_is_another_line(toast, tmp_path):
    words = [*SMALL[:3], "device=cpu", "spans=[6-11]", "tune.epochs=1", "seeds=[0,1]"]
    for rate in ("1e-4", "1e-5"):
        assert toast("finetune", *words, f"tune.learning_rate={rate}", f"hydra.run.dir=tuned/{rate}")[0] == 0
    assert toast("report", "tuned", "--out", "here")[0] == 0
    lines = (tmp_path / "here" / "tables.md").read_text().splitlines()
    head = "| data | translator | learning rate | plan |"
    assert any(line.startswith(head) for line in lines)
    assert sum(line.startswith("| digits | linear | 1e-05 | 6-11 |") for line in lines) == 1
    assert sum(line.endswith("| 2 |") for line in lines) == 2
    assert "≈" not in "".join(lines), "no interval, no mark"


def test_the_untouched_model_is_tuned_alike_whatever_the_maps_would_be(toast, tmp_path):
    words = [*SMALL[:3], "device=cpu", "spans=none", "tune.epochs=1"]
    for kind in ("true", "false"):
        assert toast("finetune", *words, f"tune.train_maps={kind}", f"hydra.run.dir=tuned/run-{kind}")[0] == 0
    toast(
        "finetune", *words[:-2], "spans=[6-11]", "tune.epochs=1", "tune.train_maps=false", "hydra.run.dir=tuned/short"
    )
    toast("finetune", *words[:-2], "spans=[6-11]", "tune.epochs=1", "hydra.run.dir=tuned/both")
    assert toast("report", "tuned", "--out", "here")[0] == 0
    lines = (tmp_path / "here" / "tables.md").read_text().splitlines()
    assert sum("| none |" in line for line in lines) == 1
    assert next(line for line in lines if "| none |" in line).endswith("| 1 |"), "the same model is one seed"
    assert sum("| 6-11 |" in line for line in lines) == 2
