"""Data sets of the hub: brought into its cache, read in place, or, without internet, as the cache holds them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import fsspec
import yaml

from toast_cli.data.absent import AbsentRows
from toast_cli.data.streamed import Rows, StreamedRows
from toast_cli.errors import ToastError, disk_error, reraise_disk
from toast_cli.hub.fetching import cached, fetch, folder_of, quiet, reach, require_room
from toast_cli.hub.listening import bytes_in, listener, watched
from toast_cli.hub.refusals import in_short, is_about_the_hub, is_offline, is_passing, refusal, shortened
from toast_cli.hub.repository import Repository, images_of
from toast_cli.registry import CONF, options
from toast_cli.room import in_words

_URL = re.compile(r"hf://datasets/(?P<name>[^@]+)@(?P<revision>[^/]+)/(?P<file>.+)")
_PARTS = re.compile(r"-\d+-of-(\d+)\.parquet")


def read_hub(source: str, config: str | None, names: Sequence[str], streaming: bool) -> Mapping[str, Rows]:
    """The splits called ``names`` of the data set ``source``, or those of them that it has.

    What the cache holds is not fetched again, and has to do if the hub is out of reach. Raises ToastError for a data set that the
    hub does not have, does not give out or cannot send.
    """
    asked = images_of(source, _known())
    with _told(asked):
        if Path(source).is_dir():
            return _read(asked, config, names, streaming)
        try:
            reach(asked, "README.md")
        except Exception as e:
            kept = _as_cached(asked, config, names, streaming) if is_offline(e) or is_passing(e) else None
            if kept is None:
                raise
            why = "HF_HUB_OFFLINE is set" if is_offline(e) else in_short(e)
            listener().say(f"{asked} is read as the cache holds it ({why})")
            return kept
        return _read(asked, config, names, streaming)


def _known() -> list[str]:
    """The data sets of the hub that toast's own configs name."""
    settings = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in options("data", [CONF]).values()]
    return [str(each["source"]) for each in settings if isinstance(each, dict) and "/" in str(each.get("source"))]


@contextmanager
def _told(asked: Repository) -> Iterator[None]:
    """Turn the refusals of the hub, and what ``datasets`` makes of them, into ToastErrors."""
    try:
        yield
    except ToastError:
        raise
    except Exception as e:
        if "Not enough disk space" in str(e):
            place = datasets.config.HF_DATASETS_CACHE
            raise ToastError(
                f"There is no room for {asked} in the cache {place} ({shortened(str(e))}): make room, name another place with HF_HOME, or read it "
                "in place with data.streaming=true."
            ) from e
        if is_about_the_hub(e) or disk_error(e) is not None:
            raise refusal(e, asked) from e
        raise ToastError(
            f"{asked} cannot be read as a data set ({type(e).__name__}: {shortened(str(e))}): see data.config, or give data.path=<dir> with a copy."
        ) from e


def _read(asked: Repository, config: str | None, names: Sequence[str], streaming: bool) -> Mapping[str, Rows]:
    """The splits, while the hub can be reached."""
    with quiet(), watched(lambda: f"asking the hub for the files of {asked}"):
        builder = datasets.load_dataset_builder(asked.name, config)
    files = {str(split): list(map(str, found)) for split, found in (builder.config.data_files or {}).items()}
    _require(asked, names, files or builder.info.splits or {})
    if streaming:
        return _in_place(asked, files, names, builder.info)
    copied = Path(builder.cache_dir)
    if not copied.is_dir():
        if not listener().asks_only:
            require_room(asked, builder.info.dataset_size or 0, copied)
        if not _fetch(asked, [file for found in files.values() for file in found]):
            return _absent(asked, names, builder.info)
    before = bytes_in(copied.parent)
    with watched(lambda: f"copying {asked}: {in_words(bytes_in(copied.parent) - before)} so far"):
        builder.download_and_prepare()
    return {name: builder.as_dataset(split=name) for name in names}


def _require(asked: Repository, names: Sequence[str], found: Iterable[str]) -> None:
    for name in names:
        if name not in found:
            raise ToastError(
                f"{asked} has no split '{name}' (it has {', '.join(map(str, found))}): set data.train_split or data.test_split."
            )


def _fetch(asked: Repository, files: Sequence[str]) -> bool:
    """Bring the hub's own among the ``files`` into the cache; False if whoever listens only asks, and one is missing."""
    found = [(file, match) for file in files if (match := _URL.fullmatch(file))]
    if not found:
        return True
    sizes = {match["file"]: _size(file) for file, match in found}
    return fetch(asked, sizes, found[0][1]["revision"])


def _size(file: str) -> int:
    """The size of a file in bytes, which the hub has told when it listed the files."""
    system, path = fsspec.core.url_to_fs(file)
    return int(system.size(path))


def _in_place(
    asked: Repository, files: dict[str, list[str]], names: Sequence[str], info: datasets.DatasetInfo
) -> Mapping[str, Rows]:
    """The splits as parquet files that are read where they are: in the cache, or else on the hub."""
    if not all(file.endswith(".parquet") for found in files.values() for file in found):
        raise ToastError(
            f"{asked} is not stored as parquet files, which data.streaming=true needs: use data.streaming=false."
        )
    places = {name: [_nearest(asked, file) for file in files[name]] for name in names}
    away = [file for found in places.values() for file in found if _URL.fullmatch(file)]
    if away and listener().asks_only:
        listener().wanted.append((f"{asked}, read in place", sum(map(_size, away))))
        return _absent(asked, names, info)
    return {name: StreamedRows(found, asked) for name, found in places.items()}


def _nearest(asked: Repository, file: str) -> str:
    """Where a file is read: in the cache if it is there."""
    found = _URL.fullmatch(file)
    here = cached(asked, found["file"], found["revision"]) if found else None
    return str(here or file)


def _absent(asked: Repository, names: Sequence[str], info: datasets.DatasetInfo) -> Mapping[str, Rows]:
    """Stand-ins for splits that are not here, as the data set's page describes them."""
    if not info.features or not all(name in (info.splits or {}) for name in names):
        raise ToastError(
            f"The hub does not say how many images {asked} has, so that dry=true cannot tell what a run takes: run it without dry=true, or fetch "
            f"the data set first ({asked.copied}) and {asked.instead}."
        )
    return {name: AbsentRows(info.features, info.splits[name].num_examples) for name in names}


def _as_cached(
    asked: Repository, config: str | None, names: Sequence[str], streaming: bool
) -> Mapping[str, Rows] | None:
    """The splits without asking the hub: from the copy that ``datasets`` made, or from parquet files in the cache; else None."""
    if not streaming:
        try:
            with quiet(), _offline():
                builder = datasets.load_dataset_builder(asked.name, config)
                _require(asked, names, builder.info.splits or {})
                return {name: builder.as_dataset(split=name) for name in names}
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as e:
            reraise_disk(e)
    files = {name: _parquet_in_cache(asked, config, name) for name in names}
    if not all(files.values()):
        return None
    if streaming:
        return {name: StreamedRows(found) for name, found in files.items()}
    return {name: datasets.load_dataset("parquet", data_files={name: files[name]}, split=name) for name in names}


@contextmanager
def _offline() -> Iterator[None]:
    """Let ``datasets`` look for its copies only, as with HF_HUB_OFFLINE: it would wait for the hub again."""
    before, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _parquet_in_cache(asked: Repository, config: str | None, split: str) -> list[str]:
    """The parquet files of a split in the cache; none if some are missing, or if it is not clear which they are."""
    reference = folder_of(asked) / "refs" / "main"
    if not reference.is_file():
        return []
    snapshot = folder_of(asked) / "snapshots" / reference.read_text().strip()
    folders = (
        [snapshot / config] if config else [snapshot, *sorted(each for each in snapshot.glob("*") if each.is_dir())]
    )
    found = [
        files
        for each in folders
        if (files := sorted([*each.glob(f"{split}.parquet"), *each.glob(f"{split}-*-of-*.parquet")]))
    ]
    if len(found) != 1:
        return []
    parts = _PARTS.search(found[0][0].name)
    whole = len(found[0]) == (int(parts[1]) if parts else 1)
    return list(map(str, found[0])) if whole else []
