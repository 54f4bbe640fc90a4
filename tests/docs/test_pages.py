"""The README against the code, the help and the registry."""

import re

import pytest

from tests.docs.commands import PAGES, ROOT
from toast_cli.registry import CONF
from toast_cli.report.answer import Measured
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row, Summary
from toast_cli.verbs import VERBS

README = (ROOT / "README.md").read_text()


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_readme_is_read_in_one_sitting():
    assert len(README.splitlines()) <= 150


def test_first_screen_is_true(toast, tmp_path):
    interval = r"(?: +(\S+) … (\S+))?(?:  ≈)?"
    shown = re.findall(
        rf"^(none|\d+-\d+) +(\S+) +(\d\.\d+) +(\S+){interval} +(\d\.\d+) +(\d\.\d+)$", README, re.MULTILINE
    )
    plans = [row[0] for row in shown if row[0] != "none"]
    assert toast("run", f"spans=[{','.join(plans)}]", "device=cpu", "hydra.run.dir=here")[0] == 0
    measured = {line.plan: line for line in read_csv(tmp_path / "here" / "summary.csv", Summary)}
    assert len(shown) == len(measured) >= 5
    for plan, blocks, accuracy, delta, low, high, params, gflops in shown:
        line = measured[plan]
        assert int(blocks) == -line.blocks_removed
        assert (params, gflops) == (f"{line.params_ratio:.3f}", f"{line.gflops_ratio:.3f}")
        assert float(accuracy) == pytest.approx(line.accuracy_mean, abs=0.01), "another processor rounds otherwise"
        interval = Measured(tmp_path / "here").interval(line)
        assert [float(end) for end in (low, high) if end] == pytest.approx(
            [] if interval is None else [interval.low, interval.high], abs=0.01
        )
        assert float(delta) == pytest.approx(line.accuracy_delta_mean, abs=0.01)


def test_pages_that_are_linked_are_there():
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_index_names_every_page():
    listed = set(re.findall(r"\]\(([^)#:]+)\)", page("README.md")))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= listed


def test_every_option_has_its_word_in_the_docs():
    paper, defined = page("paper.md"), page("translators-and-probes.md")
    for group in ("translator", "probe"):
        for path in (CONF / group).glob("*.yaml"):
            assert f"| `{path.stem}` |" in defined
    for path in (CONF / "experiment" / "paper").glob("*.yaml"):
        assert f"`paper/{path.stem}`" in paper


def test_no_table_row_is_left_to_fill_in():
    for path in PAGES:
        assert not re.search(r"^\|(  \|){2,}$", path.read_text(), re.MULTILINE), path.name


def test_the_architecture_lists_every_module_once():
    tree = page("architecture.md").split("```")[1]
    listed = re.findall(r"\b(\w+)\.py\b", tree)
    modules = [path for path in (ROOT / "toast_cli").rglob("*.py") if not path.name.startswith("_")]
    assert sorted(listed) == sorted(path.stem for path in modules)
    wings = {path.parent.name for path in modules} - {"toast_cli"}
    assert wings <= set(re.findall(r"(\w+)/", tree))


def test_verbs_are_the_files_of_their_wing():
    files = {path.stem for path in (ROOT / "toast_cli" / "verbs").glob("[!_]*.py")}
    assert files == set(VERBS)
    assert all(verb.USAGE.split()[0] == name for name, verb in VERBS.items())


def test_at_most_a_dozen_files_at_the_root():
    assert len(list((ROOT / "toast_cli").glob("*.py"))) <= 12


def test_columns_are_the_columns():
    text = page("results.md")
    section = text[text.index("Columns of `results.csv`:") + len("Columns of `results.csv`:") :]
    columns = list(Row.__annotations__)
    assert re.findall(r"`(\w+)`", section)[: len(columns)] == columns


def test_changelog_names_the_version():
    from toast_cli import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
