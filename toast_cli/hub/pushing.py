"""Files brought to a repository of the hub, in one commit: what is there already stays in its history."""

import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelInfo, constants, get_token
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from toast_cli.errors import ToastError
from toast_cli.hub.fetching import patiently, quiet
from toast_cli.hub.listening import listener, watched
from toast_cli.hub.refusals import in_short, is_offline, is_out_of_reach, response_in, seconds_asked, shortened, told
from toast_cli.hub.repository import export_of
from toast_cli.room import in_words

_TOKENS = "https://huggingface.co/settings/tokens"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
_OWN = ".gitattributes"  # what the hub itself puts into every repository


@dataclass(frozen=True)
class Target:
    """The repository ``name``, made ``private`` or for everyone if it is not there.

    ``kept`` is the end of a sentence: where the files are if they do not get there, and how to go on.
    """

    name: str
    private: bool
    kept: str

    @property
    def page(self) -> str:
        """Its address."""
        return f"{constants.ENDPOINT}/{self.name}"


def require_ready(name: str) -> None:
    """Raises ToastError if nothing can be pushed to ``name``, whatever the hub would say: offline, or without a token."""
    if constants.HF_HUB_OFFLINE:
        raise ToastError(
            f"HF_HUB_OFFLINE is set, so push={name} cannot reach the hub: unset it, or add dry=true, which uploads nothing."
        )
    if get_token() is None:
        raise ToastError(
            f"push={name} needs a token of the hub that may write: run hf auth login, or set HF_TOKEN to one from {_TOKENS}; dry=true needs none."
        )


def push(to: Target, files: Mapping[str, Path]) -> str:
    """Bring ``files``, by their names there, to the repository in one commit; returns the commit's address.

    Files of these names are replaced, and all others stay. Raises ToastError if the repository is public and a private one
    was asked for, and for whatever the hub refuses.
    """
    api, asked = HfApi(token=get_token(), library_name="toast"), export_of(to.name)
    total = in_words(sum(file.stat().st_size for file in files.values()))
    try:
        with _telling(f"pushing {to.name}: {total} are on their way"):
            there = patiently(lambda: _find(api, to.name), asked)
            if there is None:
                patiently(lambda: api.create_repo(to.name, private=to.private, exist_ok=True), asked)
            else:
                _say_what_changes(to, there, files)
            operations = [CommitOperationAdd(name, str(file)) for name, file in files.items()]
            message = "Upload an export of toast"
            commit = patiently(lambda: api.create_commit(to.name, operations, commit_message=message), asked)
    except ToastError:
        raise
    except Exception as e:
        raise _refused(e, to) from e
    return str(commit.commit_url)


def licence_of(name: str) -> str | None:
    """The licence that the card of the repository ``name`` states; None if it states none, or if the hub does not answer."""
    try:
        with quiet():
            card = HfApi().model_info(name, timeout=constants.HF_HUB_ETAG_TIMEOUT).card_data
    except Exception:  # the card of an export is whole without it, and says so
        return None
    found = None if card is None else card.get("license_name") or card.get("license")
    return found if isinstance(found, str) and _LICENCE.fullmatch(found) and found != "other" else None


@contextmanager
def _telling(line: str) -> Iterator[None]:
    """Say the ``line`` every ten seconds, and keep the libraries from saying anything of their own but a bar on a terminal."""
    bars = not are_progress_bars_disabled()
    with quiet(), watched(lambda: line), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if bars and not sys.stderr.isatty():
            disable_progress_bars()
        try:
            yield
        finally:
            if bars:
                enable_progress_bars()


def _find(api: HfApi, name: str) -> ModelInfo | None:
    """What the hub has under ``name``; None if it has nothing, or nothing that the token may see."""
    try:
        return api.model_info(name, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None


def _say_what_changes(to: Target, there: ModelInfo, files: Mapping[str, Path]) -> None:
    """Say what becomes of the files that are there. Raises ToastError if everybody would see what should be private."""
    if to.private and not there.private:
        raise ToastError(
            f"{to.page} is there already and public, and private=true was asked for: add private=false to push to it all the same, or give "
            f"another name; {to.kept}."
        )
    if there.private and not to.private:
        listener().say(f"note: {to.page} is private already and stays so: make it public on its page")
    names = sorted(each.rfilename for each in there.siblings or [] if each.rfilename != _OWN)
    replaced, others = [name for name in names if name in files], [name for name in names if name not in files]
    if replaced:
        listener().say(
            f"{to.name} has {_listed(replaced)}: what differs is replaced in a new commit, and the history keeps it"
        )
    if others:
        listener().say(f"{to.name} has {_listed(others)} too, not of this export: they stay as they are")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + f" and {len(names) - 6} more" * (len(names) > 6)


def _refused(error: BaseException, to: Target) -> ToastError:
    """The sentence about ``error``, which came of bringing files to the hub."""
    if is_offline(error):
        return ToastError(f"HF_HUB_OFFLINE is set, so {to.name} was not pushed: unset it; {to.kept}.")
    response = response_in(error)
    if response is None:
        if is_out_of_reach(error):
            return ToastError(
                f"{to.name} was not pushed, since {constants.ENDPOINT} cannot be reached ({in_short(error)}): {to.kept}."
            )
        return ToastError(
            f"{to.name} could not be pushed ({type(error).__name__}: {shortened(str(error))}): {to.kept}."
        )
    status, answer = response.status_code, told(response, error)
    if status == 401:
        return ToastError(
            f"The hub does not accept the token for {to.name} ({answer}): set HF_TOKEN to a valid one that may write ({_TOKENS}), or run hf auth "
            f"login; {to.kept}."
        )
    if status in (403, 404):
        return ToastError(
            f"The token may not write to {to.name} ({answer}): give push=<your account>/<name>, or a token that may write there ({_TOKENS}); "
            f"{to.kept}."
        )
    if status == 429:
        wait = f"wait {seconds_asked(error):.0f} s" if seconds_asked(error) else "wait some minutes"
        return ToastError(f"The hub answered {answer} to the push to {to.name}: {wait}; {to.kept}.")
    if status >= 500:
        return ToastError(
            f"The hub is in trouble, it answered {answer} to the push to {to.name}: try again later; {to.kept}."
        )
    return ToastError(f"The hub refuses the push to {to.name} ({answer}): {to.kept}.")
