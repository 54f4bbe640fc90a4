"""toast list: every option with a word on it."""

import re

from tests.conftest import OPTIONS
from toast_cli.verbs.list import GROUPS


def test_everything_is_listed_with_a_word_on_each(toast):
    status, out, _ = toast("list")
    assert status == 0
    for title, group in GROUPS.items():
        assert f"{title} ({group}=...)" in out
    for option in OPTIONS:
        group, _, name = option.partition("/")
        if group in GROUPS.values():
            assert re.search(rf"^  {re.escape(name)} +\S", out, re.MULTILINE), option


def test_one_group_is_listed_with_ones_own(toast, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# My own model\n_target_: toast_cli.models.load\n")
    out = toast("list", "models", "--config-dir", str(tmp_path))[1]
    assert re.search("^  mine +My own model$", out, re.MULTILINE)
    assert "cifar10" not in out


def test_a_group_that_is_not_there_is_named(toast):
    assert toast("list", "model") == (
        1,
        "",
        "toast: 'model' cannot be listed (did you mean models?): use one of models, data, translators, probes, protocols, sweeps, trackers, experiments.\n",
    )
