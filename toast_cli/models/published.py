"""The published weights of a model, brought from the hub into its cache, where timm finds them."""

from pathlib import Path, PurePosixPath
from typing import Any

import timm
from timm.models import get_pretrained_cfg

from toast_cli.errors import ToastError
from toast_cli.hub.fetching import cached, fetch, reach
from toast_cli.hub.refusals import refusal
from toast_cli.hub.repository import weights_of

_USUAL = "pytorch_model.bin"  # what timm asks for where nothing else is named; it prefers safetensors of the same weights
_SAFE = {_USUAL: "model.safetensors"}


def published(name: str) -> dict[str, Any] | None:
    """The arguments with which timm loads the published weights of ``name``, which are fetched unless the cache holds them.

    None if they would have to be fetched and whoever listens only asks. With a file named, timm asks nobody. Raises ToastError for weights that the hub does not have, does not give out or cannot send.
    """
    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id or config.file or config.state_dict:
        return {}
    repository, _, revision = config.hf_hub_id.partition("@")
    architecture = name.partition(".")[0]
    others = (f"timm/{each}" for each in timm.list_pretrained(architecture) if each != name)
    asked = weights_of(repository, others)
    usual = config.hf_hub_filename or _USUAL
    files = list(dict.fromkeys((_SAFE.get(usual, str(PurePosixPath(usual).with_suffix(".safetensors"))), usual)))
    if here := next((here for file in files if (here := cached(asked, file, revision or None))), None):
        return _named(here)
    try:
        for file in files:
            found = reach(asked, file, revision or None)
            if found is not None:
                fetched = fetch(asked, {file: found.size or 0}, revision or None)
                return _named(cached(asked, file, revision or None)) if fetched else None
    except ToastError:
        raise
    except Exception as e:
        raise refusal(e, asked) from e
    raise ToastError(f"The hub has {asked}, but no weights in it ({' or '.join(files)}): {asked.instead} with a copy from elsewhere.")


def _named(file: Path | None) -> dict[str, Any]:
    """The argument that names a safetensors file; timm finds others in the cache itself, and reads them without executing anything."""
    return {"pretrained_cfg_overlay": {"file": str(file)}} if file and file.suffix == ".safetensors" else {}
