"""A device, a hub or a number of processes that this machine does not have."""

import pytest

from tests.bad_input.conftest import Check, Toast

SENTENCES = {
    "run device=tpu": "device=tpu is not available: this machine has …",
    "run data=mnist": (
        "ylecun/mnist could not be fetched from the hub (ConnectionError: Couldn't reach 'ylecun/mnist' on the "
        "Hub (OfflineModeIsEnabled)): give data.path=<dir> with a copy, or set HF_HOME to a cache that holds it."
    ),
    "run model=vit_s": (
        "The weights of vit_small_patch16_224.augreg_in21k_ft_in1k could not be fetched from the hub "
        "(LocalEntryNotFoundError): give model.checkpoint=<file>, set HF_HOME to a cache that holds them, or try "
        "the pipeline with model.pretrained=false."
    ),
}


@pytest.mark.parametrize("command", SENTENCES)
def test_one_line_says_what_is_wrong(command: str, check_one_line: Check):
    check_one_line(command, SENTENCES[command])


def test_a_hub_cache_that_cannot_be_is_named(toast: Toast, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/dev/null/cache")
    status, out, err = toast("run", "model=vit_s")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(
        "toast: The weights of vit_small_patch16_224.augreg_in21k_ft_in1k could not be fetched from the hub ("
    )
    assert "set HF_HOME to a cache that holds them" in err


def test_a_number_of_processes_that_is_none_is_named(toast: Toast, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "many")
    sentence = "toast: WORLD_SIZE=many is not a number of processes: unset it, or start the processes with torchrun.\n"
    assert toast("run") == (1, "", sentence)
