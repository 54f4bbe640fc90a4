"""What a person is told when the hub refuses, is in trouble or out of reach: what was asked, what it answered, what to do."""

import time
import warnings
from pathlib import Path

import pytest

from tests.hub.conftest import CIFAR, MODEL, RUN, SMALL, WEIGHTS
from tests.hub.stand_in import GOOD_TOKEN, Hub
from tests.test_disk import small_disk
from toast_cli.data import from_hub
from toast_cli.errors import causes
from toast_cli.hub import fetching

__all__ = ["small_disk"]

WORDS = {WEIGHTS: ["run", *MODEL, *SMALL], CIFAR: ["run", "data=cifar100", *SMALL]}


def _said(toast, words: list[str]) -> str:
    """The sentence of a command that fails, and no other line but those about the fetching."""
    status, out, err = toast(*words)
    lines = [line for line in err.splitlines() if not line.startswith(("fetching ", "asking for "))]
    assert (status, out, len(lines)) == (1, "", 1), err
    return lines[0]


@pytest.mark.parametrize(
    ("name", "begins", "ends"),
    [
        (
            WEIGHTS,
            "toast: The hub has no weights called timm/vit_base_patch14_dinov2.lvd142m",
            "use a name that exists; if it is private, set HF_TOKEN to a token that may read it; or give model.checkpoint=<dir>/model.safetensors with a copy.",
        ),
        (
            CIFAR,
            "toast: The hub has no data set called uoft-cs/cifar100",
            "use a name that exists; if it is private, set HF_TOKEN to a token that may read it; or give data.path=<dir> with a copy.",
        ),
    ],
)
def test_what_does_not_exist(name: str, begins: str, ends: str, hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    del hub.stored[name]
    said = _said(toast, WORDS[name])
    assert said.startswith(begins)
    assert said.endswith(ends)
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    said = _said(toast, WORDS[name])
    assert said.startswith(begins)
    assert "private" not in said, "the hub answers a token that it knows with 404"


def test_a_name_that_is_nearly_right(hub: Hub, toast):
    said = _said(toast, ["run", "data=cifar100", "data.source=uoft-cs/cifar1000", *SMALL])
    assert said.startswith(
        "toast: The hub has no data set called uoft-cs/cifar1000 (did you mean uoft-cs/cifar100, uoft-cs/cifar10"
    )


@pytest.mark.parametrize("name", [WEIGHTS, CIFAR])
@pytest.mark.parametrize("token", ["hf_expired", "nonsense"])
def test_a_token_that_is_not_valid(name: str, token: str, hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", token)
    said = _said(toast, WORDS[name])
    asked = name.removeprefix("datasets/")
    assert said == (
        f"toast: The hub does not accept the token that came with the question for {asked} (401 Unauthorized, Invalid credentials in "
        "Authorization header): set HF_TOKEN to a valid one (https://huggingface.co/settings/tokens), or unset it and run hf auth logout to "
        "ask without one."
    )


@pytest.mark.parametrize("name", [WEIGHTS, CIFAR])
@pytest.mark.parametrize("token", [None, GOOD_TOKEN])
def test_what_has_terms(name: str, token: str | None, hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    hub.stored[name].gated = True
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    said = _said(toast, WORDS[name])
    asked = name.removeprefix("datasets/")
    assert said.startswith(
        f"toast: The hub gives {asked} only to users who have accepted its terms: accept them on {hub.endpoint}/{name}, then set HF_TOKEN"
    )
    assert said.endswith("with a copy.")


@pytest.mark.parametrize("name", [WEIGHTS, CIFAR])
@pytest.mark.parametrize("match", ["HEAD ", "signature=x"])
def test_trouble_that_stays(name: str, match: str, hub: Hub, toast):
    hub.fault(f"{match}.*" if match.startswith("H") else match, status=503)
    said = _said(toast, WORDS[name])
    asked = name.removeprefix("datasets/")
    assert said.startswith(
        f"toast: The hub is in trouble, it answered 503 Service Unavailable to the question for {asked}: run the same command again later, "
        "which keeps the files it has; or give "
    )
    first = "model.safetensors" if name == WEIGHTS else "README.md" if match == "HEAD " else "train-"
    assert len(hub.requests(match)) >= 5 or first == "train-"
    assert len(hub.requests(match)) < 12


def test_a_refusal_without_a_code(hub: Hub, toast):
    hub.fault("HEAD .*README", status=403, headers={"X-Error-Message": "Your token lacks the right to read."})
    said = _said(toast, WORDS[CIFAR])
    assert said.startswith(
        "toast: The hub refuses uoft-cs/cifar100 (403 Forbidden, Your token lacks the right to read): see that HF_TOKEN may"
    )


def test_too_many_questions(hub: Hub, toast):
    hub.fault("HEAD .*README", status=429, headers={"Retry-After": "3000"})
    said = _said(toast, WORDS[CIFAR])
    assert said.startswith(
        "toast: The hub answered 429 Too Many Requests to the question for uoft-cs/cifar100: wait 3000 s and run the same"
    )


def test_a_hub_that_says_how_long_to_wait(hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", slept.append)
    hub.fault("HEAD .*README", status=429, times=1, headers={"Retry-After": "7"})
    hub.fault("HEAD .*model", status=429, times=1, headers={"RateLimit": '"api";r=0;t=55'})
    status, _, err = toast(*RUN)
    assert status == 0, err
    assert [each for each in slept if each > 1] == [55, 7]
    assert "asking for uoft-cs/cifar100 again in 7 s (429 Too Many Requests)" in err


@pytest.mark.parametrize("name", [WEIGHTS, CIFAR])
def test_nobody_there(name: str, hub: Hub, toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A port where nobody listens refuses at once: all waiting is ours."""
    slept: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", slept.append)
    monkeypatch.setattr(fetching, "_PAUSES", (1, 2, 4, 8))
    hub.stop()
    begun = time.monotonic()
    said = _said(toast, WORDS[name])
    asked = name.removeprefix("datasets/")
    assert said.startswith(
        f"toast: {asked} is not in the cache {tmp_path}/cache/hub, and {hub.endpoint} cannot be reached (ConnectError: Connection refused): try "
        f"again once there is a connection; or run hf download {asked} "
    )
    assert sum(each for each in slept if each >= 1) == 15
    assert time.monotonic() - begun < 15


def test_a_hub_that_dies_under_way(hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    """Its CDN breaks off, and then nobody is there: one sentence after at most half a minute of waiting, not once for each split."""
    slept: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", slept.append)
    monkeypatch.setattr(fetching, "_PAUSES", (1, 2, 4, 8))
    hub.fault("signature=x.*", reset=5000, times=1)
    hub.fault(".*", reset=0, times=10**6).match = "never"
    begun = time.monotonic()
    original = fetching._wait

    def dying(*words: object) -> None:
        if not hub.ended.is_set():
            hub.stop()
        original(*words)

    monkeypatch.setattr(fetching, "_wait", dying)
    said = _said(toast, WORDS[CIFAR])
    assert "cannot be reached (ConnectError: Connection refused)" in said
    assert sum(slept) < 30, slept
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("name", [WEIGHTS, CIFAR])
def test_a_hub_that_says_nothing(name: str, hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    """It takes the question and never answers: with ten seconds for each question, twenty pass before toast gives up."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.3)
    monkeypatch.setattr(fetching, "_PATIENCE", 0.6)
    hub.fault("HEAD ", stall=60)
    begun = time.monotonic()
    said = _said(toast, WORDS[name])
    assert (
        "cannot be reached (ReadTimeout: timed out): try again once there is a connection; or run hf download" in said
    )
    assert time.monotonic() - begun < 20
    assert len(hub.requests("HEAD ")) <= 3


def test_a_cache_on_a_full_disk(small_disk: Path, hub: Hub, toast, monkeypatch: pytest.MonkeyPatch):
    """What statvfs says is not always what there is: quotas, other programs. The disk has 100 kB, the weights take 408."""
    warnings.simplefilter("ignore", UserWarning)  # huggingface_hub says it too
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(small_disk / "hub"))
    said = _said(toast, WORDS[WEIGHTS])
    assert "takes 408 kB in the cache" in said
    assert "kB free: make room, or name another place with HF_HOME; or give model.checkpoint=" in said
    monkeypatch.setattr(fetching, "require_room", lambda *_: None)
    said = _said(toast, WORDS[WEIGHTS])
    assert said.startswith("toast: timm/vit_base_patch14_dinov2.lvd142m cannot be written to the cache ")
    assert "(No space left on device): make room, or name another place with HF_HOME; the files that are" in said
    assert len(hub.requests("signature=x")) == 1, "a full disk is not asked twice"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", small_disk / "datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "roomy")
    said = _said(toast, WORDS[CIFAR])
    assert said.startswith(
        f"toast: uoft-cs/cifar100 takes 1.1 MB in the cache {small_disk}/datasets/uoft-cs___cifar100/"
    )
    monkeypatch.setattr(from_hub, "require_room", lambda *_: None)
    said = _said(toast, WORDS[CIFAR])
    assert said.startswith("toast: uoft-cs/cifar100 cannot be written to the cache ")
    assert "(No space left on device): make room" in said


def test_a_configuration_that_is_not_there(hub: Hub, toast):
    said = _said(toast, ["run", "data=cifar100", "data.config=cifar7", *SMALL])
    assert said.startswith(
        "toast: uoft-cs/cifar100 cannot be read as a data set (ValueError: BuilderConfig 'cifar7' not found."
    )
    assert said.endswith("see data.config, or give data.path=<dir> with a copy.")


def test_a_split_that_is_not_there(hub: Hub, toast):
    for streaming in ("true", "false"):
        said = _said(toast, ["run", "data=cifar100", "data.test_split=val", f"data.streaming={streaming}", *SMALL])
        assert (
            said
            == "toast: uoft-cs/cifar100 has no split 'val' (it has train, test): set data.train_split or data.test_split."
        )
    assert hub.requests("signature=x") == []


def test_weights_without_a_file_that_is_read(hub: Hub, toast):
    del hub.stored[WEIGHTS].files["model.safetensors"]
    said = _said(toast, WORDS[WEIGHTS])
    assert said == (
        "toast: The hub has timm/vit_base_patch14_dinov2.lvd142m, but no weights in it (model.safetensors or pytorch_model.bin): give "
        "model.checkpoint=<dir>/model.safetensors with a copy from elsewhere."
    )


def test_no_room_in_the_cache(hub: Hub, toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage)
    said = _said(toast, WORDS[WEIGHTS])
    assert said == (
        f"toast: timm/vit_base_patch14_dinov2.lvd142m takes 408 kB in the cache {tmp_path}/cache/hub, which has 1.0 kB free: make room, or name "
        "another place with HF_HOME; or give model.checkpoint=<dir>/model.safetensors with a copy."
    )
    assert hub.requests("signature=x") == []


def test_an_error_among_its_own_causes():
    """Raised again in the handler of what it led to, an error can close a ring, which must not be followed for ever."""
    first, second = ValueError("first"), OSError("second")
    first.__context__, second.__context__ = second, first
    assert list(causes(first)) == [first, second]
