"""A device, a hub or a number of processes that this machine does not have."""

import pytest
from huggingface_hub import constants

from tests.bad_input.conftest import Check, Toast

SENTENCES = {
    "run device=tpu": "device=tpu is not available: this machine has …",
    "run data=mnist": (
        "HF_HUB_OFFLINE is set, so nothing is fetched, and the cache {cache} does not hold ylecun/mnist: unset it; or run hf download "
        "ylecun/mnist --repo-type dataset --local-dir <dir> where there is internet, bring that folder here and give data.path=<dir>."
    ),
    "run model=vit_s": (
        "HF_HUB_OFFLINE is set, so nothing is fetched, and the cache {cache} does not hold "
        "timm/vit_small_patch16_224.augreg_in21k_ft_in1k: unset it; or run hf download timm/vit_small_patch16_224.augreg_in21k_ft_in1k "
        "--local-dir <dir> where there is internet, bring that folder here and give model.checkpoint=<dir>/model.safetensors."
    ),
}


@pytest.mark.parametrize("command", SENTENCES)
def test_one_line_says_what_is_wrong(command: str, check_one_line: Check):
    check_one_line(command, SENTENCES[command].replace("{cache}", constants.HF_HUB_CACHE))


def test_a_hub_cache_that_cannot_be_is_named(toast: Toast, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/dev/null/cache")
    status, out, err = toast("run", "model=vit_s")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(
        "toast: HF_HUB_OFFLINE is set, so nothing is fetched, and the cache /dev/null/cache does not hold timm/vit_s"
    )


def test_a_number_of_processes_that_is_none_is_named(toast: Toast, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "many")
    sentence = "toast: WORLD_SIZE=many is not a number of processes: unset it, or start the processes with torchrun.\n"
    assert toast("run") == (1, "", sentence)
