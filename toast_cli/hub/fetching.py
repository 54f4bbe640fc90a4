"""Files of the hub brought into its cache: asked for with patience, checked for room, and watched."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from huggingface_hub import (
    HfFileMetadata,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.file_download import repo_folder_name

from toast_cli.errors import ToastError
from toast_cli.hub.listening import bytes_in, listener, watched
from toast_cli.hub.refusals import has_no_file, in_short, is_offline, is_passing, response_in, seconds_asked, timed_out
from toast_cli.hub.repository import Repository
from toast_cli.room import in_words

_PAUSES = (1, 2, 4, 8)  # seconds before the same question is asked again
_PATIENCE = 20.0  # seconds in all with a hub that is in trouble or out of reach
_QUEUE = 300.0  # seconds in all with a hub that says how long to wait
_MANY, _SMALL, _AT_A_TIME = 16, 20_000_000, 8  # from so many files of so few bytes each, so many are fetched at a time
T = TypeVar("T")


def reach(asked: Repository, file: str, revision: str | None = None) -> HfFileMetadata | None:
    """What the hub says of a ``file``: its commit and its size. None if it has the repository and not the file.

    A question that fails in passing is asked again for up to 20 seconds, or for as long as the hub says, up to five
    minutes. Raises whatever comes of the last try.
    """
    url = hf_hub_url(asked.name, file, repo_type=asked.kind, revision=revision)
    try:
        return patiently(lambda: get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT), asked)
    except Exception as e:
        if has_no_file(e):
            return None
        raise


def patiently(ask: Callable[[], T], asked: Repository) -> T:
    """What ``ask`` returns, which is called again while the hub is in passing trouble. Raises whatever comes of the last try."""
    begun = time.monotonic()
    with quiet():
        for pause in _PAUSES:
            try:
                return ask()
            except Exception as e:
                wait = max(pause, seconds_asked(e))
                most = _QUEUE if seconds_asked(e) else _PATIENCE
                if not is_passing(e) or time.monotonic() - begun + wait > most:
                    raise
                _wait(wait, asked, e)
        return ask()


def _wait(seconds: float, asked: Repository, error: Exception) -> None:
    listener().say(f"asking for {asked} again in {seconds:.0f} s ({in_short(error)})")
    time.sleep(seconds)


def cached(asked: Repository, file: str, revision: str | None = None) -> Path | None:
    """Where a ``file`` lies in the cache; None if it does not."""
    found = try_to_load_from_cache(asked.name, file, revision=revision, repo_type=asked.kind)
    return Path(found) if isinstance(found, str) else None


def folder_of(asked: Repository) -> Path:
    """The folder of a repository in the cache, which may not exist."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=asked.name, repo_type=asked.kind)


def fetch(asked: Repository, files: Mapping[str, int], revision: str | None = None) -> bool:
    """Bring ``files``, with their sizes in bytes, into the cache. False if whoever listens only asks, and one is missing.

    Files that are there are not fetched again, so a fetch that failed goes on where it was. Raises ToastError if there is no
    room for them, and whatever comes of the last try.
    """
    missing = {file: size for file, size in files.items() if cached(asked, file, revision) is None}
    if not missing:
        return True
    total, folder = sum(missing.values()), folder_of(asked)
    if listener().asks_only:
        listener().wanted.append((str(asked), total))
        return False
    require_room(asked, total, Path(constants.HF_HUB_CACHE))
    listener().say(f"fetching {asked} from the hub: {in_words(total)} to {constants.HF_HUB_CACHE}")
    before = bytes_in(folder)

    def progress() -> str:
        return f"fetching {asked}: {in_words(max(bytes_in(folder) - before, 0))} of {in_words(total)}"

    with quiet(), watched(progress):
        if len(missing) < _MANY or max(missing.values()) > _SMALL:
            for file in missing:
                _fetch(asked, file, revision)
        else:
            with ThreadPoolExecutor(_AT_A_TIME) as pool:
                list(pool.map(lambda file: _fetch(asked, file, revision), missing))
    return True


def small(asked: Repository, file: str, revision: str | None, aside: str) -> Path | None:
    """Where a small ``file`` lies that says what else there is; None if the repository does not have it.

    That is in the cache, or in the folder ``aside`` if whoever listens only asks: the cache stays as it is then. Raises
    whatever comes of the last try.
    """
    if (here := cached(asked, file, revision)) is not None:
        return here
    if reach(asked, file, revision) is None:
        return None
    with quiet():
        return _fetch(asked, file, revision, aside if listener().asks_only else None)


def newest(asked: Repository, file: str, revision: str | None) -> Path | None:
    """Where a small ``file`` lies in the cache, as the hub has it now, or as the cache holds it if the hub is out of reach.

    None if the repository does not have it. Raises whatever comes of the last try if the cache does not hold it.
    """
    here = cached(asked, file, revision)
    if here is not None and revision == here.parent.name:  # a commit, which never changes
        return here
    try:
        return None if reach(asked, file, revision) is None else _fetch(asked, file, revision)
    except Exception as e:
        if here is None or not (is_offline(e) or is_passing(e)):
            raise
        why = "HF_HUB_OFFLINE is set" if is_offline(e) else in_short(e)
        listener().say(f"{asked} is read as the cache holds it ({why})")
        return here


def _fetch(asked: Repository, file: str, revision: str | None, place: str | None = None) -> Path:
    """Fetch one file into the cache, or into ``place``. Before each further try the hub is reached again, which has its own patience."""
    for pause in (*_PAUSES, None):
        try:
            return Path(hf_hub_download(asked.name, file, repo_type=asked.kind, revision=revision, cache_dir=place))
        except Exception as e:
            # huggingface_hub has already waited for an answer six times.
            if pause is None or not is_passing(e) or timed_out(e):
                raise
            _wait(max(pause, seconds_asked(e)), asked, e)
            if response_in(e) is None:
                reach(asked, file, revision)
    raise AssertionError("the last try returns or raises")


def require_room(asked: Repository, size: int, place: Path) -> None:
    """Check that ``size`` bytes fit into the cache in ``place``. Raises ToastError if they do not."""
    place = place.expanduser().absolute()
    free = shutil.disk_usage(next(parent for parent in (place, *place.parents) if parent.is_dir())).free
    if size > free:
        raise ToastError(
            f"{asked} takes {in_words(size)} in the cache {place}, which has {in_words(free)} free: make room, or name another place with HF_HOME; "
            f"or {asked.instead} with a copy."
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries that ask the hub from telling in their own words what toast tells in a sentence."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "datasets")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
