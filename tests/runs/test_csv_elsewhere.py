"""Tables that other programs read: what they would make of labels and plans."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from toast_cli.runs.results import read_csv, write_csv
from toast_cli.runs.rows import Row

LABELS = ["NA", "null", "None", "nan", "1_0", "1e5", "007", 'a,"b"', " x", "true", "写真", "a;b", "1,5", "a\tb", "é"]
DOCUMENTED = {"keep_default_na": False, "na_values": [""], "dtype": {"model": str, "data": str, "plan": str}}


def row(label: str, plan: str, spans: str) -> Row:
    values = {field.name: False if field.type in (bool, "bool") else 1 for field in dataclasses.fields(Row)}
    return Row(**values | {"model": label, "data": label, "plan": plan, "spans_start_end": spans, "translator": label})


@pytest.mark.parametrize("label", LABELS)
def test_labels_and_plans_come_back(label: str, tmp_path):
    rows = [row(label, plan, spans) for plan, spans in (("9-11", "[[9, 11]]"), ("none", "[]"), ("2-3", "[[2, 3]]"))]
    write_csv(tmp_path / "it.csv", rows, Row)
    assert [each.data for each in read_csv(tmp_path / "it.csv", Row)] == [label] * 3
    frame = pd.read_csv(tmp_path / "it.csv", **DOCUMENTED)
    assert frame["data"].tolist() == frame["model"].tolist() == [label] * 3
    assert frame["plan"].tolist() == ["9-11", "none", "2-3"]


def test_the_page_has_what_pandas_needs():

    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    assert 'keep_default_na=False, na_values=[""], dtype={"model": str, "data": str, "plan": str}' in page


def test_spans_survive_what_spreadsheets_do_to_plans(toast, tmp_path):
    toast("run", "data.fit_images=20", "data.train_images=40", "data.test_images=20", "spans=[9-11,2-3+9-11]", "device=cpu",
          "hydra.run.dir=run")  # fmt: skip
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    assert [json.loads(text) for text in frame["spans_start_end"]] == [[], [[9, 11]], [[2, 3], [9, 11]]]
