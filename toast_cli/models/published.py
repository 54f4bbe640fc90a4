"""The published weights of a model, brought from the hub into its cache, where timm finds them."""

from pathlib import PurePosixPath

import timm
from timm.models import get_pretrained_cfg

from toast_cli.errors import ToastError
from toast_cli.hub.fetching import cached, fetch, reach
from toast_cli.hub.refusals import refusal
from toast_cli.hub.repository import weights_of

_USUAL = "pytorch_model.bin"  # what timm asks for where nothing else is named; it prefers safetensors of the same weights
_SAFE = {_USUAL: "model.safetensors"}


def fetch_published(name: str) -> bool:
    """Fetch the weights that timm would load for ``name``, unless they are in the cache. False if whoever listens only asks.

    Raises ToastError for weights that the hub does not have, does not give out or cannot send.
    """
    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id or config.file or config.state_dict:
        return True
    repository, _, revision = config.hf_hub_id.partition("@")
    architecture = name.partition(".")[0]
    others = (f"timm/{each}" for each in timm.list_pretrained(architecture) if each != name)
    asked = weights_of(repository, others)
    usual = config.hf_hub_filename or _USUAL
    files = list(dict.fromkeys((_SAFE.get(usual, str(PurePosixPath(usual).with_suffix(".safetensors"))), usual)))
    if any(cached(asked, file, revision or None) for file in files):
        return True
    try:
        for file in files:
            found = reach(asked, file, revision or None)
            if found is not None:
                return fetch(asked, {file: found.size or 0}, revision or None)
    except ToastError:
        raise
    except Exception as e:
        raise refusal(e, asked) from e
    raise ToastError(f"The hub has {asked}, but no weights in it ({' or '.join(files)}): {asked.instead} with a copy from elsewhere.")
