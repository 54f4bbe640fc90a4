"""The page in a browser, where there is one: its script runs under its own rules, sorts and filters."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report.conftest import finding
from toast_cli.report import page, tables
from toast_cli.report.captions import _WORDS, caption

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TABLE = tables.by_model([finding("0-1", 0.8), finding("1-2", 0.95), finding("0-10", 0.7)])[0]


def written() -> str:
    settings = {
        Path("a"): {"data.seed": 0, "spans": "<b>", "tune.rate": None},
        Path("b"): {"data.seed": 1, "spans": "<b>"},
    }
    return page.render([Path("a"), Path("b")], [TABLE], {}, settings=settings)


def test_settings_of_all_runs_are_told_apart_from_those_of_each():
    text = written()
    assert "<code>a</code> <code>data.seed=0</code> <code>tune.rate=null</code></li>" in text
    assert "Settings of all: <code>spans=&lt;b&gt;</code>" in text


def test_only_the_pages_own_code_is_allowed():
    rules = re.findall('content="(default-src.*?)"', written())[0]
    assert rules.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in rules
    assert rules.count("sha256-") == 2


@pytest.mark.parametrize(
    "name", ["spans-m", "trade-offs-m", "fit-images-m", "additivity-m", "transfer-m", "projection-m", "guide-cka-m"]
)
def test_figures_have_captions_in_words(name: str):
    assert caption(name).endswith(".")


def test_the_docs_describe_every_kind_of_figure():
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text().partition("## The figures")[2]
    described = re.findall(r"^\| `([a-z-]+?)-(?:cka-|<measure>-)?…`", text, re.MULTILINE)
    assert sorted(described) == sorted(_WORDS)


def test_captions_name_the_measure():
    assert caption("similarity-r2_identity-m").endswith("Measured by R² without a map.")
    assert caption("similarity-r2-m").endswith("Measured by R² of the linear map.")
    assert caption("other") == ""


def in_browser(text: str, folder: Path) -> str:
    """The page as the browser has it after its scripts have run."""
    (folder / "page.html").write_text(text)
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile", "--dump-dom"]
    return subprocess.run([*words, f"file://{folder}/page.html"], capture_output=True, text=True, timeout=60).stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.slow
def test_a_browser_runs_the_pages_script_and_no_other(tmp_path: Path):
    foreign = "<script>document.title = 'pwned'</script></body>"
    shown = in_browser(written().replace("</body>", foreign), tmp_path)
    assert 'placeholder="filter rows"' in shown
    assert "<title>toast report</title>" in shown


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.slow
def test_heads_sort_and_words_filter(tmp_path: Path):
    press = (
        "<script>const [plan, accuracy] = [1, 5].map(i => document.querySelectorAll('th button')[i]);"
        "const order = () => [...document.querySelectorAll('tbody tr')].filter(r => !r.hidden).map(r => r.cells[1].textContent).join();"
        "const told = []; plan.click(); told.push(order()); plan.click(); told.push(order()); accuracy.click(); told.push(order());"
        "const box = document.querySelector('input'); box.value = 'LINEAR 0-1'; box.dispatchEvent(new Event('input'));"
        "told.push(order()); document.title = told.join(' / ');</script></body>"
    )
    free = re.sub('<meta http-equiv="Content-Security-Policy".*?>', "", written()).replace("</body>", press)
    title = re.findall("<title>(.*?)</title>", in_browser(free, tmp_path))[0]
    assert title == "0-1,0-10,1-2 / 1-2,0-10,0-1 / 1-2,0-1,0-10 / 0-1,0-10"
