"""From fit images to maps in closed form: passes over the images, sums of their latents, maps solved from the sums."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from torch import Tensor

from toast_cli.errors import ToastError
from toast_cli.machine.console import progress
from toast_cli.machine.team import ALONE
from toast_cli.moments.streamed import Layer
from toast_cli.plans import Map
from toast_cli.stages.job import Job
from toast_cli.translators.base import FittedMap
from toast_cli.translators.pieces import Latents
from toast_cli.translators.sums import Sums, Wanted

Maps = dict[Map, FittedMap]


def passes(
    job: Job, batch_size: int, encode: Callable[[Tensor], Latents]
) -> Iterator[tuple[np.ndarray, Latents] | int]:
    """This process's batches as (image numbers (N,), latents by layer), and after each part how many images could be
    used so far by all processes."""
    before = seen = used = 0
    own = sum(len(which) for part in job.data.fit for which in job.team.ranges(0, len(part), batch_size))
    with progress("fit", own) as advance:
        for part in job.data.fit:
            for batch in job.batches(part, batch_size, keep=True):
                seen += len(batch.positions)
                if len(batch.positions):
                    yield before + batch.positions, encode(batch.pixels)
                advance(batch.size)
            before, used = before + len(part), used + job.team.sum(seen)
            seen = 0
            if used == 0:
                raise ToastError("None of the fit images can be decoded: repair them, or draw others with data.seed.")
            yield used


def _wanted(job: Job, key: Map, source: Layer) -> Wanted:
    return Wanted(source, key.span.end, job.closed_forms[key.span.translator])


def empty_sums(job: Job, sources: Mapping[Map, Layer]) -> Sums:
    """Sums for these maps, each from its source to the latent after its span, to which nothing was added yet."""
    wanted = [_wanted(job, key, source) for key, source in sources.items()]
    return Sums(wanted, job.backbone.prefix_tokens, job.backbone.tokens, job.held_out_r2)


def new_sums(job: Job, sources: Mapping[Map, Layer], batch_size: int, encode: Callable[[Tensor], Latents]) -> Sums:
    """Empty sums. All processes use the bases of the run's first images, so a batch adds the same in any of them."""
    sums = empty_sums(job, sources)
    if not job.team.leads:
        first = job.data.fit[0].only(np.arange(min(batch_size, len(job.data.fit[0]))))
        for batch in replace(job, team=ALONE).batches(first, batch_size):
            if len(batch.positions):
                sums.choose_bases(batch.positions, encode(batch.pixels))
    return sums


def add(job: Job, sums: Sums, images: np.ndarray, found: Latents) -> None:
    """Add the latents (N, T, D) of the images with these numbers (N,). Raises ToastError where they are seen not to be finite."""
    with _all_finite(job):
        sums.update(images, found)


@contextmanager
def _all_finite(job: Job) -> Iterator[None]:
    try:
        yield
    except FloatingPointError as e:
        raise job.not_finite(str(e).capitalize()) from e


def solved(job: Job, sums: Sums, sources: Mapping[Map, Layer]) -> Maps:
    """The translator of every map, from the sums so far over its source and the latents after its span.

    The processes add up what each has seen, and divide the maps among them. Raises ToastError where latents were not finite.
    """
    team, found = job.team, {}
    for number, (key, source) in enumerate(sources.items()):
        wanted = _wanted(job, key, source)
        with _all_finite(job):
            own = sums.of(wanted, job.backbone.width)
        parts = [replace(part, seen=team.add_up(part.seen), held_out=team.add_up(part.held_out)) for part in own]
        if number % team.size == team.rank:
            found[key] = sums.fitted(wanted.translator, parts)
    found = team.unite(found)
    return {key: found[key] for key in sources}
