"""The workflows on GitHub run others' code: only what is pinned, with nothing that it could write or learn."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / ".github" / "workflows"
NAMES = ["audit.yml", "ci.yml"]

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="a built distribution has no workflows")


def test_these_are_all():
    assert sorted(path.name for path in FOLDER.iterdir()) == NAMES


@pytest.fixture(params=NAMES)
def text(request: pytest.FixtureRequest) -> str:
    return (FOLDER / request.param).read_text()


@pytest.fixture
def workflow(text: str) -> dict[Any, Any]:
    return yaml.safe_load(text)


def test_actions_are_pinned_by_commit_and_say_their_version(text: str):
    used = re.findall(r"^\s*(?:- )?uses: *(.*)$", text, re.MULTILINE)
    assert len(used) >= 2
    for each in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", each)


def test_one_version_of_each_action():
    used = re.findall(r"uses: *(\S+)@(.*)$", "".join((FOLDER / name).read_text() for name in NAMES), re.MULTILINE)
    assert len(dict(used)) == len(set(used))


def test_it_can_only_read(workflow: dict[Any, Any], text: str):
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in text
    assert "secrets" not in text
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert [step["with"]["persist-credentials"] for step in checkouts] == [False]


def test_no_command_contains_what_others_write(workflow: dict[Any, Any]):
    """A branch's name or a title inside ``${{ }}`` would be run by the shell."""
    for job in workflow["jobs"].values():
        assert not any("${{" in step.get("run", "") for step in job["steps"])


def test_it_ends(workflow: dict[Any, Any]):
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert all(0 < job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())


def test_it_runs_when_it_should():
    for name, events in {"ci.yml": {"push", "pull_request"}, "audit.yml": {"schedule", "push", "pull_request"}}.items():
        workflow = yaml.safe_load((FOLDER / name).read_text())
        assert set(workflow[True]) == events, "YAML 1.1 reads the key on as true"
    assert ".ci/run" in [
        step.get("run") for step in yaml.safe_load((FOLDER / "ci.yml").read_text())["jobs"]["checks"]["steps"]
    ]
