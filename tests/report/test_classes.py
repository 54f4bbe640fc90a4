"""What a plan costs each class: against loops over the predictions."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

from tests.report.conftest import finding
from tests.report.test_strange_labels import LABELS
from tests.runs.test_results import row
from toast_cli.errors import ToastError
from toast_cli.machine.console import visible
from toast_cli.report import page
from toast_cli.report.classes import ClassChange, Tally, changes_of, name_of, tally, worst_of
from toast_cli.report.findings import findings_of
from toast_cli.report.samples import Sample
from toast_cli.report.side_tables import worst_classes
from toast_cli.runs import record
from toast_cli.runs.archive import CompleteRun, find
from toast_cli.runs.predictions import Predictions, read
from toast_cli.runs.results import csv_of, read_csv


def sample(truth: list[int], plan: list[int], original: list[int], names: list[str] | None = None) -> Sample:
    stored = Predictions(np.array(truth), np.arange(len(truth)), {0: np.array([original, plan])})
    config = {"data": {"seed": 0}}
    run = CompleteRun(Path("here"), config, {} if names is None else {"classes": names}, [])
    return Sample(dataclasses.replace(row("9-11"), test_images=len(truth)), run, stored, 1)


def test_every_class_over_all_seeds_and_draws(runs):
    complete = [CompleteRun.read(path) for path in find([runs], "results.csv")[0]]
    changes = changes_of(complete)
    assert len(changes) == 2 * 3 * 10
    for change in changes:
        assert change.class_name == str(change.class_number)
        judged, right, original, images = 0, 0, 0, set()
        for draw in (0, 1):
            stored = read(runs / f"{change.translator}{draw}" / "predictions.safetensors")
            number = ["stem-2", "9-11", "2-3+9-11"].index(change.plan) + 1
            for predicted in stored.by_seed.values():
                for image, label, ours, theirs in zip(
                    stored.images, stored.truth, predicted[number], predicted[0], strict=True
                ):
                    if label == change.class_number:
                        judged, right, original = judged + 1, right + (ours == label), original + (theirs == label)
                        images.add(int(image))
        assert (change.test_images, change.accuracy, change.accuracy_original) == (
            len(images), right / judged, original / judged
        )  # fmt: skip
        assert change.accuracy_delta == pytest.approx(change.accuracy - change.accuracy_original, abs=1e-12)
    for found in findings_of(complete):
        own = [c for c in changes if (c.translator, c.plan) == (found.translator, found.plan)]
        if found.plan == "none":
            assert (found.worst_class, found.class_correlation, own) == (None, None, [])
            continue
        worst = min(own, key=lambda c: (c.accuracy_delta, -c.test_images, c.class_number))
        assert (found.worst_class, found.worst_class_delta, found.worst_class_images) == (
            worst.class_name, worst.accuracy_delta, worst.test_images
        )  # fmt: skip
        ranks = [rankdata([getattr(c, name) for c in own]) for name in ("accuracy_original", "accuracy_delta")]
        constant = any(np.ptp(each) == 0 for each in ranks)
        expected = None if constant else pytest.approx(np.corrcoef(ranks)[0, 1])
        assert found.class_correlation == expected


def test_hard_classes_that_lose_most_give_a_positive_correlation():
    truth = [0] * 4 + [1] * 4 + [2] * 4
    original = [0] * 4 + [1, 1, 1, 9] + [2, 2, 9, 9]  # 4, 3 and 2 of 4
    plan = [0] * 4 + [1, 1, 9, 9] + [9] * 4  # 0, 1 and 2 fewer
    found = worst_of([sample(truth, plan, original, ["a", "b", "c"])])
    assert found == {
        "worst_class": "c", "worst_class_delta": -0.5, "worst_class_images": 4, "class_correlation": pytest.approx(1),
    }  # fmt: skip


def test_of_equal_drops_that_of_more_images_is_named():
    counts = {"images": np.array([2, 4, 4]), "judged": np.array([2, 4, 4])}
    equal = Tally(np.array([5, 7, 6]), **counts, right=np.array([0, 0, 0]), right_original=np.array([1, 2, 2]))
    assert equal.changes.tolist() == [-0.5] * 3
    assert equal.numbers[equal.worst] == 6
    assert equal.correlation is None, "all changes are the same"


@pytest.mark.parametrize("truth", [[0, 0, 1, 1], [3] * 4])
def test_few_classes_have_no_correlation(truth: list[int]):
    counted = tally([sample(truth, [0] * 4, truth)])
    assert counted.correlation is None
    assert counted.numbers.tolist() == sorted(set(truth))


def test_no_predictions_no_classes():
    known = sample([0, 1], [0, 0], [0, 1])
    assert tally([known, dataclasses.replace(known, stored=None)]) is None
    assert set(worst_of([dataclasses.replace(known, stored=None)]).values()) == {None}
    assert tally([dataclasses.replace(known, row=row("none"))]) is None


def test_the_first_run_that_knows_a_name_gives_it():
    unnamed, named = sample([0], [0], [0]), sample([0], [0], [0], ["zero", "o\nne"])
    assert [name_of([unnamed, named], number) for number in (-1, 0, 1, 2)] == ["-1", "zero", "o\\nne", "2"]
    assert name_of([unnamed], 0) == "0"


@pytest.mark.parametrize("names", ["zero", [0, 1], {"0": "zero"}, None])
def test_a_record_without_names_is_refused(runs, tmp_path, names: object):
    shutil.copytree(runs / "linear0", tmp_path / "run")
    record.note(tmp_path / "run", classes=names)
    with pytest.raises(ToastError, match=r"run.json does not name the run's classes: restore it"):
        findings_of([CompleteRun.read(tmp_path / "run")])


def test_predictions_for_other_images_are_refused(runs, tmp_path):
    shutil.copytree(runs / "linear0", tmp_path / "run")
    path = tmp_path / "run" / "predictions.safetensors"
    stored = read(path)
    shorter = Predictions(stored.truth[:0], stored.images[:0], {k: v[:, :0] for k, v in stored.by_seed.items()})
    record.write(path, shorter.encoded())
    with pytest.raises(ToastError, match="are not those of the run's predictions.safetensors"):
        CompleteRun.read(tmp_path / "run")


@pytest.mark.parametrize("label", LABELS)
def test_strange_names_are_shown_as_they_are(label: str):
    names = [label, "b", "c"]
    found = worst_of([sample([0, 0, 1, 2], [1, 1, 1, 2], [0, 0, 1, 1], names)])
    assert found["worst_class"] == visible(label)
    tables = worst_classes([finding("0-1", 0.8, **found)])
    written = page.render([], [], {}, folded=tables)
    assert written.count("<script>") == 1, "the page's own"
    assert page._text(label) in written
    assert written.count("<details>") == 2, "the classes, and the runs"
    change = ClassChange("m", "d", "d", "linear", "shared", "exact", False, False, "linear", "model", "clean", "fp32", "9-11", 2, 500, 0,
                         visible(label), 2, 0.0, 1.0, -1.0)  # fmt: skip
    text = csv_of([change], ClassChange)
    assert len(text.splitlines()) == 2
    assert next(csv.DictReader(text.splitlines()))["class_name"].removeprefix("'") == visible(label).removeprefix("'")


def test_lone_surrogates_of_folder_names_can_be_written(tmp_path):
    name = name_of([sample([0], [0], [0], ["caf\udce9"])], 0)
    assert name.encode() == b"caf\\udce9"


def test_the_report_writes_them(runs, toast, tmp_path):
    shutil.copytree(runs / "linear0", tmp_path / "runs" / "linear0")
    names = [f"digit {i}" for i in range(10)]
    assert json.loads((runs / "linear0" / "run.json").read_text())["classes"] == list(map(str, range(10)))
    record.note(tmp_path / "runs" / "linear0", classes=names)
    status, _, err = toast("report", "runs", "--out", "here")
    assert status == 0, err
    changes = read_csv(tmp_path / "here" / "classes.csv", ClassChange)
    assert [change.class_name for change in changes[:10]] == names
    shown = (tmp_path / "here" / "report.html").read_text()
    assert "<summary>digits_vit: the class that each plan costs most</summary>" in shown
    assert "digit " not in (tmp_path / "here" / "tables.md").read_text()
