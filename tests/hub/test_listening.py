"""What is heard of a fetch where no progress bar can be drawn: in a pipe, a log file, a batch job."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.conftest import RUN, WEIGHTS, environment
from tests.hub.stand_in import Hub
from toast_cli.hub import listening


def test_a_line_says_how_far_it_is(hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listening, "_LINE_EVERY", 0.2)
    hub.fault("GET .*safetensors.sig", slowly=3)
    hub.fault("GET .*train.*sig", slowly=3)
    status, _, err = toast(*RUN)
    assert status == 0, err
    assert re.search(r"^fetching timm/vit_base_patch14_dinov2.lvd142m: \d+ (k?B) of 408 kB$", err, re.MULTILINE)
    assert re.search(r"^fetching uoft-cs/cifar100: \d+ (k?B) of 1.1 MB$", err, re.MULTILINE)


def test_files_count_once_and_links_do_not(tmp_path: Path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "x").write_bytes(bytes([7]) * 5000)
    (tmp_path / "link").symlink_to(tmp_path / "blobs" / "x")
    assert listening.bytes_in(tmp_path) == 5000
    assert listening.bytes_in(tmp_path / "nothing") == 0


def test_nothing_is_fetched_while_only_asking():
    said: list[str] = []
    with listening.asking_only() as wanted, listening.listening(said.append):
        assert listening.listener().asks_only
        listening.listener().wanted.append(("x", 1))
        listening.listener().say("hello")
    assert (wanted, said, listening.listener().asks_only) == ([("x", 1)], ["hello"], False)


@pytest.mark.slow
def test_the_command_as_a_person_types_it(hub: Hub, tmp_path: Path):
    """A process of its own, which knows the hub by HF_ENDPOINT and HF_HOME alone; ten seconds for the weights."""
    hub.fault("GET .*safetensors.sig", slowly=12)
    command = [sys.executable, "-m", "toast_cli", *RUN]
    done = subprocess.run(
        command, env=environment(hub, tmp_path / "home"), capture_output=True, text=True, timeout=170, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("fetching timm")]
    assert len(lines) >= 2, "one at the beginning, and one every ten seconds"
    assert (tmp_path / "run" / "results.csv").is_file()
    assert not hub.stored[WEIGHTS].gated
