"""Accuracies that others report: what they may look like, and that they decide nothing."""

import json
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.runs.conftest import config
from toast_cli.errors import ToastError
from toast_cli.runs.expected import check
from toast_cli.runs.naming import folder_name

WORDS = [*SMALL[:3], "spans=[9-11]", "device=cpu"]


def test_plans_are_spelled_as_in_rows():
    assert check({"9-11+2-3": 0.5, "none": 1, " stem-2": 0.0}) == {"2-3+9-11": 0.5, "none": 1.0, "stem-2": 0.0}
    assert check(None) == check({}) == {}


@pytest.mark.parametrize("given", ["none", 0.9, [0.9], {"none": "0.9"}, {"none": True}, {"none": 1.01}, {"none": -0.1},
                                   {"none": float("nan")}, {"none": None}, {"none": {"none": 0.9}}])  # fmt: skip
def test_anything_else_is_refused(given: object):
    with pytest.raises(ToastError, match="does not give accuracies: write a fraction for each plan"):
        check(given)


@pytest.mark.parametrize("plan", ["", "all", "11-9", 3, "\x1b[2J"])
def test_other_plans_are_refused(plan: object):
    with pytest.raises(ToastError, match="span"):
        check({plan: 0.9})


def test_they_are_recorded_and_name_no_other_folder(toast, tmp_path: Path):
    assert folder_name(config("expected={none:0.9}")) == folder_name(config())
    assert toast("run", *WORDS, "hydra.run.dir=here")[0] == 0
    rows, record = ((tmp_path / "here" / name).read_text() for name in ("results.csv", "run.json"))
    assert "expected" not in json.loads(record)
    assert toast("run", *WORDS, "expected={none:0.9}", "hydra.run.dir=here")[0] == 0, "of a complete run too"
    assert json.loads((tmp_path / "here" / "run.json").read_text())["expected"] == {"none": 0.9}
    assert toast("run", *WORDS, "hydra.run.dir=here")[0] == 0
    assert json.loads((tmp_path / "here" / "run.json").read_text())["expected"] == {"none": 0.9}, "still known"
    assert (tmp_path / "here" / "results.csv").read_text() == rows
    assert "expected" not in (tmp_path / "here" / "config.yaml").read_text()


def test_an_experiment_of_ones_own_states_them(toast, tmp_path: Path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    text = "# @package _global_\n# mine\nspans: [9-11]\nexpected:\n  none: 0.95\n  9-11: 0.5\n"
    (tmp_path / "mine" / "experiment" / "check.yaml").write_text(text)
    words = ["--config-dir", "mine", *SMALL[:3], "device=cpu", "experiment=check", "seeds=[0,1]", "hydra.run.dir=here"]
    assert toast("run", *words)[0] == 0
    assert json.loads((tmp_path / "here" / "run.json").read_text())["expected"] == {"none": 0.95, "9-11": 0.5}
