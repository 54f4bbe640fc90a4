"""The published weights of a model, brought from the hub into its cache, where timm finds them."""

from pathlib import Path, PurePosixPath
from typing import Any

import timm
from timm.models import get_pretrained_cfg

from toast_cli.errors import ToastError
from toast_cli.hub.fetching import cached, fetch, reach
from toast_cli.hub.refusals import refusal
from toast_cli.hub.repository import weights_of

# What timm asks for where nothing else is named, and what it prefers to it.
_USUAL, _SAFE = "pytorch_model.bin", "model.safetensors"


def published(name: str) -> dict[str, Any] | None:
    """The entries of timm's config with which it loads the published weights of ``name``, fetched unless the cache holds them.

    None if they would have to be fetched and whoever listens only asks. With a file named, timm asks nobody. Raises
    ToastError for weights that the hub does not have, does not give out or cannot send.
    """
    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id or config.file or config.state_dict:
        return {}
    repository, _, tag = config.hf_hub_id.partition("@")
    others = (f"timm/{each}" for each in timm.list_pretrained(name.partition(".")[0]) if each != name)
    asked, revision = weights_of(repository, others), tag or None
    usual = config.hf_hub_filename or _USUAL
    files = dict.fromkeys((_SAFE if usual == _USUAL else str(PurePosixPath(usual).with_suffix(".safetensors")), usual))
    for file in files:
        if here := cached(asked, file, revision):
            return _named(here)
    try:
        for file in files:
            if found := reach(asked, file, revision):
                fetched = fetch(asked, {file: found.size or 0}, revision)
                return _named(cached(asked, file, revision)) if fetched else None
    except ToastError:
        raise
    except Exception as e:
        raise refusal(e, asked) from e
    raise ToastError(
        f"The hub has {asked}, but no weights in it ({' or '.join(files)}): {asked.instead} with a copy from elsewhere."
    )


def _named(file: Path | None) -> dict[str, Any]:
    """The entries that name a safetensors file. Others timm finds in the cache itself, and executes nothing in them."""
    if file is None or file.suffix != ".safetensors":
        return {}
    return {"file": str(file), "custom_load": False}
