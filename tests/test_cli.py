"""The command line: help, completion, own groups and translators, and our own bugs."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import hydra
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.conftest import OPTIONS, SMALL
from toast_cli import __version__, cli
from toast_cli.models import factory as models
from toast_cli.registry import CONF
from toast_cli.report.settings import explained
from toast_cli.runs.naming import register_resolvers

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"], ["status", "outputs"]], ids=" ".join)
def test_nothing_heavy_is_imported(words: list[str], tmp_path: Path):
    (tmp_path / "outputs" / "run").mkdir(parents=True)
    (tmp_path / "outputs" / "run" / "run.json").write_text('{"complete": true}')
    code = (
        f"import sys, toast_cli.cli as c\ntry: c.main({words})\nexcept SystemExit as e: assert not e.code\n"
        "assert not {'torch', 'timm', 'pandas'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_version_is_that_of_the_package(toast):
    assert toast("--version") == (0, f"toast {__version__}\n", "")


def test_no_arguments_is_help(toast):
    assert toast()[1] == toast("--help")[1]


def test_run_help_shows_examples_then_groups_then_settings(toast):
    status, out, _ = toast("run", "--help")
    assert status == 0
    assert out.index("Examples") < out.index("toast run model=dinov2_s") < out.index("Groups and their options")
    assert out.index("translator: affine, context, deep_mlp, identity, linear") < out.index("fit_images=500")


def test_every_example_of_the_help_composes(toast):
    examples = re.findall(r"^ +toast run(.*?)(?:  .*)?$", toast("run", "--help")[1], re.MULTILINE)
    assert len(examples) >= 8
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for example in examples:
            words = [word for word in example.split() if not word.startswith("-")]
            if "my_conf" not in words:
                compose(
                    "config",
                    [
                        re.sub(r"=(\w+),.*", r"=\1", word) if "[" not in word else word
                        for word in words
                        if word != "job"
                    ],
                )


def test_cfg_job_shows_the_settings_and_runs_nothing(toast, tmp_path):
    status, out, _ = toast("run", "--cfg", "job", "model=vit_s")
    assert status == 0
    assert "name: vit_small_patch16_224.augreg_in21k_ft_in1k" in out
    assert not list(tmp_path.iterdir())


def test_ones_own_groups_stand_beside_the_others(toast, tmp_path):
    (tmp_path / "mine" / "translator").mkdir(parents=True)
    (tmp_path / "mine" / "translator" / "same.yaml").write_text("_target_: toast_cli.translators.Identity\n")
    status, out, err = toast(
        "run", *SMALL, "--config-dir", str(tmp_path / "mine"), "translator=same", "hydra.run.dir=here"
    )
    assert status == 0, err
    assert "identity translator" in out


def test_ones_own_translator_is_found_and_used(toast, tmp_path, monkeypatch):
    (tmp_path / "own_identity.py").write_text(
        "from toast_cli.translators import Identity\n\nclass Halved(Identity):\n    name = 'halved'\n\n"
        "    def __init__(self, by):\n        self.by = by\n"
    )
    (tmp_path / "conf" / "translator").mkdir(parents=True)
    (tmp_path / "conf" / "translator" / "halved.yaml").write_text("_target_: own_identity.Halved\nby: 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    status, out, err = toast("run", "--config-dir", str(tmp_path / "conf"), *SMALL, "translator=halved")
    assert status == 0, err
    assert "halved translator" in out


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("toast ", {"run", "search", "export", "list"}),
        ("toast se", {"search"}),
        ("toast run mod", {"model="}),
        ("toast run data=mn", {"data=mnist"}),
        ("toast run translator=li", {"translator=linear"}),
        ("toast run translator=lowrank translator.ra", {"translator.rank="}),
        ("toast search budget.g", {"budget.gflops="}),
        ("toast finetune tune.le", {"tune.learning_rate="}),
        ("toast export outputs/run/x dt", {"dtype="}),
        ("toast bench sec", {"seconds="}),
        ("toast report --o", {"--out"}),
        ("toast list mo", {"models"}),
    ],
)
def test_completion_knows_the_verbs_and_their_settings(line: str, offered: set[str], toast, monkeypatch):
    monkeypatch.setenv("COMP_LINE", line)
    assert offered <= set(toast("-sc", "query=bash")[1].split())


@pytest.mark.parametrize("line", ["toast run budget.", "toast export outputs/r", "toast status out", "toast fly x"])
def test_completion_offers_no_settings_of_other_verbs(line: str, toast, monkeypatch):
    monkeypatch.setenv("COMP_LINE", line)
    assert toast("-sc", "query=bash")[:2] in ((0, ""), (0, "\n"))


def test_completion_is_installed_for_toast(toast):
    assert toast("-sc", "install=bash")[1].rstrip().endswith("hydra_bash_completion toast")


CONFIGS = {"run": "config"} | {verb: verb for verb in ("search", "similarity", "finetune", "export", "bench")}
CHOICES = [("run", f"{option.replace('/', '=')}") for option in OPTIONS if "experiment" not in option]


@pytest.mark.parametrize(("verb", "choice"), [*((verb, "") for verb in CONFIGS), *CHOICES])
def test_the_help_says_what_every_setting_means(verb: str, choice: str):
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        text = explained(CONFIGS[verb], OmegaConf.to_yaml(compose(CONFIGS[verb], [choice] if choice else [])))
    lines = text.splitlines()
    settings = [(line, below) for line, below in pairwise([*lines, ""]) if re.match(r"  \S", line)]
    assert len(settings) >= (8 if verb in ("export", "bench") else 30)
    assert [line for line, below in settings if not below.startswith("      ")] == []


def test_the_help_shows_defaults_as_they_are_typed(toast):
    out = toast("run", "--help", "translator=lowrank")[1]
    for text in (
        "  seeds=[0]\n      a list of whole numbers",
        "  data.train_images=null\n      a stratified draw",
        "  translator.rank=0.95\n      a number of directions",
        "  keep_features=false\n      true: leave",
        "model.options={patch_size:2,embed_dim:64,depth:12,num_heads:4}",
    ):
        assert text in out
    assert "toast search" not in out
    assert toast("search", "--help")[1].count("Settings and their defaults") == 1


def test_our_own_bugs_are_not_put_on_the_person(monkeypatch):
    monkeypatch.setattr(models, "_check_finite", lambda *_: None.shape)
    with pytest.raises(hydra.errors.InstantiationException, match="'NoneType' object has no attribute 'shape'"):
        cli.main(["run"])


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("TOAST_DEBUG", "1")
    with pytest.raises(cli.ToastError):
        cli.main(["fly"])


@pytest.mark.slow
def test_from_another_directory_as_a_program(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "toast_cli", "run", *SMALL, "hydra.run.dir=here"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "here" / "results.csv")
    assert (tmp_path / "here" / "results.csv").is_file()
