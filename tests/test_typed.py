"""What is typed is what is meant: paths and names with any signs in them, and outputs that go anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.conftest import SMALL, save_image_folder
from toast_cli.launch import as_typed
from toast_cli.registry import CONF, settings
from toast_cli.runs.naming import folder_name, register_resolvers
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row

NAMES = [
    "2024_01", "1e3", "007", "1_0", "0x10", "true", "2024-01", "my photos", "a,b", "a=b", "x#1", "5% & more", "a(1)", "é", "写真",
    "[x]", "{y}", "a:b", "$HOME x", "a'b", 'a"b', "a'", "\\'", "back\\", "\\\\", "$x$$", "~nobody-of-that-name", "epoch=3-step=120.ckpt",
    " edge ", "choice(a)", "a\tb", "-x", "?", "*", "inf", "1.50", "@a", "a+b", "a;b", "`a`", "<b>",
]  # fmt: skip


def composed(words: list[str], config: str = "config") -> object:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(config, as_typed(words))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "key", ["data.path", "model.checkpoint", "data.label", "data.label_column", "fit_data.path", "features_from"]
)
def test_every_path_and_name_is_taken_as_typed(name: str, key: str):
    node = composed([f"{key}={name}"])
    for part in key.split("."):
        node = node[part]
    assert str(node) == name


def test_home_is_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/of me")
    assert composed(["data.path=~/photos (1)"]).data.path == "/home/of me/photos (1)"
    assert as_typed(["hydra.run.dir=~"]) == ["hydra.run.dir='/home/of me'"]
    assert composed(["data.label=~"]).data.label == "~"


@pytest.mark.parametrize(
    ("word", "value"),
    [("data.path='a b'", "a b"), ('data.path="it\'s"', "it's"), ("data.path=null", None), ("data.path=", ""),
     ("data.path=${model.label}/x", "digits_vit/x"), ("+data.path=a(1)", "a(1)"), ("++data.path=a(1)", "a(1)"),
     ("data.label=7", 7), ("data.label=0.5", 0.5), ("data.label=nan_", "nan_")],
)  # fmt: skip
def test_quotes_null_and_references_mean_what_they_did(word: str, value: object):
    key = word.partition("=")[0].strip("+").partition(".")[2]
    assert composed([word]).data[key] == value


def test_in_a_multirun_a_comma_is_between_two_values():
    assert as_typed(["-m", "data.path=a (1),b"]) == ["-m", "data.path='a (1)','b'"]
    assert as_typed(["-m", "data.path='a,b',c"]) == ["-m", "data.path='a,b',c"]
    assert as_typed(["data.path=glob(x)", "--multirun"]) == ["data.path=glob(x)", "--multirun"]
    assert as_typed(["data.path=a,b"]) == ["data.path='a,b'"]


def test_a_label_that_is_a_number_names_the_folder_that_it_did():
    before = {"data.label=7": 7, "data.label=0.5": 0.5}
    for word, value in before.items():
        quoted = composed([word])
        quoted.data.label = value
        assert folder_name(composed([word])) == folder_name(quoted)
    assert "-1_0-" in folder_name(composed(["data.label=1_0"]))


@pytest.mark.parametrize("name", ["写真 (1), #2 = 50%", "007", "{y}'s"])
def test_a_run_with_such_names(name: str, toast, tmp_path: Path):
    save_image_folder(tmp_path / name)
    words = ["run", "data=folder", f"data.path={name}", "data.fit_images=4", "spans=none", "device=cpu"]
    status, out, err = toast(*words, f"hydra.run.dir=to {name}")
    assert status == 0, err
    rows = read_csv(tmp_path / f"to {name}" / "results.csv", Row)
    assert {row.data for row in rows} == {name}
    assert out.splitlines()[-1] == f"{tmp_path}/to {name}/results.csv"
    status, out, err = toast("export", f"run=to {name}", f"out=ex {name}", "plan=none", "images=4")
    assert status == 0, err
    assert (tmp_path / f"ex {name}" / "recipe.json").is_file()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("modle=vit_s", "modle is not a setting (did you mean model?): "),
        ("model.chekpoint=x", "model.chekpoint is not a setting (did you mean model.checkpoint"),
        ("Spans=all", "Spans is not a setting (did you mean spans"),
        ("probe.epoch=3", "probe.epoch is not a setting (did you mean probe.epochs"),
        ("hydra.run.dirr=x", "hydra.run.dirr is not a setting (did you mean hydra.run.dir"),
        (
            "model.options={heads:3}",
            "model.options={heads:3} has a key that model.options does not have yet: write +model.options={heads:3}",
        ),
    ],
)
def test_a_setting_that_there_is_not_is_corrected(word: str, told: str, toast):
    status, out, err = toast("run", word)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert told in err


def test_the_settings_are_those_of_the_files():
    assert {"data.path", "fit.heal", "tune.epochs", "search.beam", "probe.strengths", "translator.tokens"} <= set(
        settings()
    )
    assert not [key for key in settings() if "experiment." in key or "_target_" in key]


def started(words: list[str], after: str = "", **environment: str) -> subprocess.CompletedProcess:
    command = f'"{sys.executable}" -m toast_cli "$@" {after}'
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, "x", *words],
        capture_output=True,
        env={**clean, **environment},
        check=False,
    )


@pytest.mark.parametrize("after", ["| head -1", "| true", "| head -c 1"])
def test_an_output_that_is_closed(after: str):
    done = started(["list"], after)
    assert done.returncode in (0, 141)
    assert done.stderr == b""


ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}


@pytest.mark.slow
@pytest.mark.parametrize("environment", [ASCII, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
def test_terminals_without_letters(environment: dict[str, str], tmp_path: Path):
    root = save_image_folder(tmp_path / "写真")
    for split in ("train", "test"):
        os.rename(root / split / "kind0", os.fsencode(root / split) + b"/caf\xe9")  # noqa: PTH104
    words = [
        "run",
        "data=folder",
        "data.path=写真",
        "data.fit_images=4",
        "spans=[9-11]",
        "device=cpu",
        "hydra.run.dir=é",
    ]
    done = started(words, **environment)
    assert done.returncode == 0, done.stderr
    assert {row.data for row in read_csv(tmp_path / "é" / "results.csv", Row)} == {"写真"}
    reported = started(["report", "é", "--out", "bericht"], **environment)
    if reported.returncode:  # a file is named after the set
        told = b"has no letter for '\\u5199': set PYTHONUTF8=1; what is finished is kept, and the same command goes on from there.\n"
        assert reported.stderr.endswith(told)
        reported = started(["report", "é", "--out", "bericht"], **environment | {"PYTHONUTF8": "1"})
    assert reported.returncode == 0, reported.stderr
    assert "写真" in (tmp_path / "bericht" / "report.html").read_text(encoding="utf-8")


def test_a_folder_whose_name_is_no_text(tmp_path: Path):
    root = save_image_folder(tmp_path / "set")
    root.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    done = subprocess.run(
        [sys.executable, "-m", "toast_cli", "run", "data=folder", b"data.path=caf\xe9", "data.fit_images=4", "spans=none", "device=cpu",
         b"hydra.run.dir=to\xe9"], capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {row.data for row in read_csv(tmp_path / os.fsdecode(b"to\xe9") / "results.csv", Row)} == {"caf\\xe9"}


def test_nothing_but_results_on_stdout(toast):
    status, out, err = toast("run", *SMALL)
    assert status == 0
    assert "fit" in err
    lines = out.splitlines()
    assert lines[-1].endswith("results.csv")
    assert not [line for line in lines if line.startswith(("note:", "fit:", "encode", "probe:"))]
