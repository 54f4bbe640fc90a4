"""toast report: what it writes, and what it leaves out."""

import re
import shutil

import pytest

from tests.conftest import SMALL
from toast_cli.report.findings import Finding
from toast_cli.runs.record import note
from toast_cli.runs.results import read_csv


@pytest.mark.slow
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
    note(tmp_path / "runs" / "part", complete=False)
    status, _, err = toast("report", "runs")
    assert status == 0
    assert f"{tmp_path}/runs/part is not complete and is left out" in err


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("nowhere", "nowhere is not a folder: give folders of runs"),
        (".", "There is no complete run in .: give folders that toast run, similarity or finetune wrote."),
    ],
)
def test_nothing_to_report_is_a_sentence(toast, argument: str, text: str):
    status, _, err = toast("report", argument)
    assert status == 1
    assert err.startswith(f"toast: {text}")


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_runs_that_cannot_be_in_one_table_get_a_report_each(runs, toast, tmp_path):
    for name in ("linear0", "identity0", "linear1"):
        shutil.copytree(runs / name, tmp_path / "runs" / name)
    note(tmp_path / "runs" / "identity0", weights="other")
    status, out, err = toast("report", "runs", "--out", "here")
    assert status == 0, err
    pages = [tmp_path / page for page in out.splitlines()]
    assert [page.parent.name[:-9] for page in pages] == ["identity0", "linear0-and-1-more"]
    told = f"identity0 and {tmp_path}/runs/linear0 cannot be in one table: the weights of model digits_vit differ (other and"
    assert err.count(f"note: the runs get 2 reports, since not all can be in one table. {tmp_path}/runs/{told}") == 1
    translators = [{f.translator for f in read_csv(page.parent / "results.csv", Finding)} for page in pages]
    assert translators == [{"", "identity"}, {"", "linear"}]
    assert all("Other runs are in a report of their own." in page.read_text() for page in pages)
    before = {file: file.read_bytes() for page in pages for file in page.parent.glob("*.csv")}
    shutil.copytree(runs / "identity1", tmp_path / "runs" / "identity1")
    others = toast("report", "runs", "--out", "here")[1].splitlines()
    assert [file for file in before if file.read_bytes() != before[file]] == []
    assert len({*out.splitlines(), *others}) == 3, "the report of other runs is in another folder"


def test_damage_is_no_reason_for_a_report_of_ones_own(runs, toast, tmp_path):
    for name in ("linear0", "identity0"):
        shutil.copytree(runs / name, tmp_path / "runs" / name)
    (tmp_path / "runs" / "linear0" / "predictions.safetensors").write_bytes(b"no predictions")
    status, out, err = toast("report", "runs", "--out", "here")
    assert (status, out, (tmp_path / "here").exists()) == (1, "", False)
    assert "predictions.safetensors" in err
