"""The published weights of a model, brought from the hub into its cache: timm's own, and those of a repository in timm's format."""

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import timm
from timm.models import get_pretrained_cfg

from toast_cli.errors import ToastError
from toast_cli.hub.fetching import cached, fetch, reach, small
from toast_cli.hub.refusals import refusal
from toast_cli.hub.repository import Repository, weights_of
from toast_cli.models.checkpoints import CONFIG, config_beside, places
from toast_cli.models.weight_files import IN_A_FOLDER, INDEX

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


def repository(place: str, weights: bool) -> tuple[dict[str, Any], Path | None]:
    """The config of the model in the repository ``place`` (``owner/name`` or ``owner/name@revision``), and the folder of its weights.

    These are fetched unless the cache holds them; the folder is None without ``weights``, or if they would have to be
    fetched and whoever listens only asks. Raises ToastError for what the hub does not have, does not give out or cannot send.
    """
    name, _, tag = place.partition("@")
    asked, revision = weights_of(name), tag or None
    try:
        with TemporaryDirectory() as aside:
            file = small(asked, CONFIG, revision, aside)
            if file is None:
                raise ToastError(
                    f"The hub has {asked}, but no {CONFIG} in it: give a repository as timm saves it, or timm's own name for the architecture with "
                    "model.checkpoint=<file>."
                )
            return config_beside(file), _weights(asked, revision, aside) if weights else None
    except ToastError:
        raise
    except Exception as e:
        raise refusal(e, asked) from e


def _weights(asked: Repository, revision: str | None, aside: str) -> Path | None:
    """The folder of the cache with the first kind of weights that a repository has, in one file or in several with an index."""
    here = (file for file in IN_A_FOLDER if cached(asked, file, revision))
    there = (file for file in IN_A_FOLDER if reach(asked, file, revision))
    file = next(here, None) or next(there, None)
    if file is None:
        raise ToastError(
            f"The hub has {asked}, but no weights in it ({' or '.join(each for each in IN_A_FOLDER if not each.endswith(INDEX))}): {asked.instead} "
            "with a copy from elsewhere."
        )
    files = [file]
    if file.endswith(INDEX) and (index := small(asked, file, revision, aside)) is not None:
        files = sorted(set(places(index, f"{file} of {asked}").values()))
    complete = fetch(asked, {each: _size(asked, each, revision) for each in files}, revision)
    found = cached(asked, file, revision)
    return found.parent if complete and found is not None else None


def _size(asked: Repository, file: str, revision: str | None) -> int:
    """The bytes of a file; 0 if the cache holds it already."""
    if cached(asked, file, revision):
        return 0
    told = reach(asked, file, revision)
    if told is None:
        raise ToastError(
            f"The hub has {asked}, but not {file}, which its index names: {asked.instead} with a copy from elsewhere."
        )
    return told.size or 0
