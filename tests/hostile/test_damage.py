"""Damaged run folders: one sentence, or a note where a table was edited; never a wrong number that nobody mentions."""

from pathlib import Path

import pytest

from tests.hostile.conftest import WORDS
from tests.hostile.test_run_folders import one_sentence
from toast_cli.runs import record

AGAIN = ("run", *WORDS, "hydra.run.dir=stranger")


def edit(path: Path, former: str, new: str) -> None:
    text = path.read_text()
    assert former in text
    path.write_text(text.replace(former, new, 1))


def first_accuracy(folder: Path) -> str:
    head, line = (folder / "results.csv").read_text().splitlines()[:2]
    return dict(zip(head.split(","), line.split(","), strict=True))["accuracy"]


def test_an_edited_table_is_marked_in_a_report(toast, stranger):
    edit(stranger / "results.csv", first_accuracy(stranger), "0.5")
    status, _, err = toast("report", "stranger", "--out", "out")
    assert status == 0
    told = (
        f"{stranger / 'results.csv'} was changed after toast wrote it: its numbers are not those that the run measured"
    )
    assert told in err
    for name in ("report.html", "tables.md", "tables.tex"):
        assert "was changed after toast wrote it" in Path("out", name).read_text().replace("\\", ""), name


def test_an_honest_table_is_not_marked(toast, stranger):
    assert toast("report", "stranger", "--out", "out")[0] == 0
    assert "was changed" not in Path("out/report.html").read_text()


def test_an_edited_table_is_shown_and_that_is_said(toast, stranger):
    edit(stranger / "summary.csv", "\n", "\n")
    (stranger / "summary.csv").write_text((stranger / "summary.csv").read_text().replace("0.9", "0.8"))
    status, out, err = toast(*AGAIN)
    assert status == 0
    assert "none" in out
    assert "note: " in err
    assert "summary.csv was changed after toast wrote it" in err


def test_an_export_says_that_its_row_was_edited(toast, stranger):
    edit(stranger / "results.csv", first_accuracy(stranger), "0.5")
    status, _, err = toast("export", "stranger", "plan=9-11", "images=8")
    assert status == 0
    assert "results.csv was changed after toast wrote it" in err


def test_a_run_does_not_go_on_from_an_edited_table(toast, stranger):
    edit(stranger / "results.csv", first_accuracy(stranger), "0.5")
    record.note(stranger, complete=False)
    status, _, err = toast(*AGAIN)
    assert status == 1
    assert "results.csv was changed or damaged after toast wrote it: restore it" in one_sentence(err)


@pytest.mark.parametrize(
    ("column", "value"),
    [("accuracy", "nan"), ("accuracy", "7.5"), ("accuracy_original", "-1"), ("test_images", "0"), ("gflops", "inf"), ("gflops_ratio", "nan")],
)  # fmt: skip
def test_numbers_that_no_run_measures(toast, stranger, column, value):
    head, line, *others = (stranger / "results.csv").read_text().splitlines()
    cells = dict(zip(head.split(","), line.split(","), strict=True)) | {column: value}
    record.write(stranger / "results.csv", "\n".join([head, ",".join(cells.values()), *others, ""]))
    status, _, err = toast("report", "stranger")
    assert status == 1
    assert "results.csv has numbers that no run measures" in one_sentence(err)


@pytest.mark.parametrize("verb", [("report", "stranger"), ("export", "stranger", "plan=9-11", "images=8"), AGAIN])
@pytest.mark.parametrize("content", [b"\xff\xfe", b"model\x00", b""])
def test_tables_that_are_no_text(toast, stranger, verb, content):
    for name in ("results.csv", "summary.csv"):
        (stranger / name).write_bytes(content)
    status, _, err = toast(*verb)
    assert status == 1
    one_sentence(err)


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 100, b"8\x00\x00\x00\x00\x00\x00\x00{}"])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("name", "verb"),
    [
        ("predictions.safetensors", ("report", "stranger")),
        ("projection.safetensors", ("report", "stranger")),
        ("translators.safetensors", ("export", "stranger", "plan=9-11", "images=8")),
    ],
)
def test_arrays_that_are_damaged_or_missing(toast, stranger, name, verb, known, content):
    if content is None:
        (stranger / name).unlink()
    elif known:
        record.write(stranger / name, content)
    else:
        (stranger / name).write_bytes(content)
    status, _, err = toast(*verb)
    assert status == (0 if content is None and verb[0] == "report" else 1)
    assert "Traceback" not in err
    assert status == 0 or name in one_sentence(err)


def test_lost_predictions_are_made_again(toast, stranger):
    rows, expected = ((stranger / name).read_bytes() for name in ("results.csv", "predictions.safetensors"))
    (stranger / "predictions.safetensors").unlink()
    record.note(stranger, complete=False)
    assert toast(*AGAIN)[0] == 0
    assert (stranger / "predictions.safetensors").read_bytes() == expected
    assert (stranger / "results.csv").read_bytes() == rows


def test_features_with_a_damaged_exponent(toast, stranger):
    file = stranger / "features" / "train.f32"
    content = bytearray(file.read_bytes())
    content[4 * 1000 + 3] ^= 0x40
    file.write_bytes(content)
    (stranger / "results.csv").unlink()
    record.note(stranger, complete=False)
    status, _, err = toast(*AGAIN)
    assert status == 1
    assert "features/train.f32 was changed or damaged after toast wrote it: remove it" in one_sentence(err)
    file.unlink()
    assert toast(*AGAIN)[0] == 0


@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
def test_settings_and_record_with_one_digit_changed(toast, stranger, name):
    edit(
        stranger / name,
        "epochs: 5" if name == "config.yaml" else '"40": 40',
        "epochs: 7" if name == "config.yaml" else '"40": 41',
    )
    for verb in (("report", "stranger"), ("export", "stranger", "plan=9-11", "images=8"), AGAIN):
        status, _, err = toast(*verb)
        assert status == 1
        assert f"{name} was changed or damaged after toast wrote it" in one_sentence(err)
