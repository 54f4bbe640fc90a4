"""The README against the code, the help and the registry."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from toast_cli.registry import CONF
from toast_cli.runs.naming import register_resolvers
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row, Summary

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for page in PAGES
        for line in re.findall(
            r"^\$ (toast (?:run|bench|similarity|finetune|search) .*)$", page.read_text(), re.MULTILINE
        )
    }
)


def test_first_screen_is_true(toast, tmp_path):
    shown = re.findall(r"^│ (\S+) +│ +(\S+) │ +(\S+) │ +(\S+) │ +(\S+) │ +(\S+) │ +(\S*) │", README, re.MULTILINE)
    plans = [row[0] for row in shown if row[0] != "none"]
    assert toast("run", f"spans=[{','.join(plans)}]", "device=cpu", "hydra.run.dir=here")[0] == 0
    measured = {line.plan: line for line in read_csv(tmp_path / "here" / "summary.csv", Summary)}
    assert len(shown) == len(measured) >= 5
    for plan, blocks, accuracy, delta, params, gflops, r2 in shown:
        line = measured[plan]
        assert int(blocks) == -line.blocks_removed
        assert (params, gflops) == (f"{line.params_ratio:.3f}", f"{line.gflops_ratio:.3f}")
        assert float(accuracy) == pytest.approx(line.accuracy_mean, abs=0.01), "another processor rounds otherwise"
        assert r2 == "" if line.fit_r2 is None else float(r2) == pytest.approx(line.fit_r2, abs=0.001)
        assert float(delta) == pytest.approx(line.accuracy_delta_mean, abs=0.01)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command: str):
    register_resolvers()
    words = [re.sub(r"^fit_data=", "data@fit_data=", word) for word in command.split()[1:]]
    overrides = [re.sub(r"^([\w@.]+)=(\w+),.*", r"\1=\2", word) for word in words[1:] if not word.startswith("-")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose(words[0] if words[0] != "run" else "config", overrides)


def test_pages_that_are_linked_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_option_has_its_word_in_the_docs():
    paper = (ROOT / "docs" / "paper.md").read_text()
    for group in ("translator", "probe"):
        for path in (CONF / group).glob("*.yaml"):
            assert f"| `{path.stem}` |" in paper
    for path in (CONF / "experiment" / "paper").glob("*.yaml"):
        assert f"`paper/{path.stem}`" in paper


def test_nothing_is_left_to_fill_in():
    assert "@@" not in README


def test_layout_is_the_layout():
    listed = set(re.findall(r"^  (\w+\.py)", README, re.MULTILINE))
    assert listed == {path.name for path in (ROOT / "toast_cli").glob("[!_]*.py")}
    scripts = re.findall(r"\w+\.py", next(line for line in README.splitlines() if line.startswith("scripts/")))
    assert sorted(scripts) == sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


def test_columns_are_the_columns():
    section = README[README.index("Columns of `results.csv`") : README.index("- `fit_r2` =")]
    assert re.findall(r"`(\w+)`", section) == list(Row.__annotations__)


def test_changelog_names_the_version():
    from toast_cli import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
