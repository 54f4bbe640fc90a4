"""The fit stage: one pass over the fit images, then the translator of every span at every number of fit images.

The fit images come in parts, each adding to those before it: the sums are taken once, and at the end of each part the
translators for that number of images are solved from the sums so far.
"""

import copy
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from toast_cli.errors import ToastError
from toast_cli.machine.console import progress, say
from toast_cli.machine.memory import halving
from toast_cli.machine.team import ALONE
from toast_cli.moments.streamed import ROWS_FOR_A_BASIS, Layer
from toast_cli.plans import Map
from toast_cli.runs import contents
from toast_cli.runs.features import FeatureFile
from toast_cli.runs.folder import Folder
from toast_cli.stages.job import Fitted, Job
from toast_cli.stages.walk import Encoder, latents
from toast_cli.translators import stored
from toast_cli.translators.base import FittedMap
from toast_cli.translators.by_token import groups_of, joined, restored
from toast_cli.translators.pieces import Latents
from toast_cli.translators.sums import Sums, Wanted
from toast_cli.translators.trained import Advance, LatentFile, TrainedTranslator

_Maps = dict[Map, FittedMap]


def fit(job: Job) -> Fitted:
    """Fit the translator of every map. Bad images that are left out are not counted.

    Maps whose sources are latents of the untouched model come from one pass; maps that follow n others in a sequential
    fit need those first, and come from a separate pass for each n and number of images.

    Raises ToastError if no fit image can be decoded, or if latents are not finite.
    """
    team = job.team
    maps, used = team.share((load_maps(job, job.folder), job.folder.images_used) if team.leads else ({}, {}))
    passes: dict[tuple[int, int], list[Map]] = {}
    for key in job.maps:
        place = len(key.after.spans)
        passes.setdefault((place, key.fit_images if place else 0), []).append(key)
    for (place, _), wanted in sorted(passes.items()):
        if not all(key in maps for key in wanted):
            found, seen = _from_one_pass(job, wanted, maps, sequential=place > 0)
            maps, used = {**maps, **found}, seen or used
            if team.leads:
                job.folder.write(contents.TRANSLATORS, stored.encoded(maps))
    if team.leads:
        contents.remove_latents(job.folder.path)  # no map still has to be trained on them
    return Fitted({key: maps[key] for key in job.maps}, used)


def load_maps(job: Job, folder: Folder, wanted: Container[Map] | None = None) -> _Maps:
    """The maps that a run has stored in ``folder``, all or only those ``wanted``; empty if it has stored none.

    Raises ToastError if the file was changed or does not hold what a fit has learned.
    """
    path, groups = folder.checked(contents.TRANSLATORS), _groups(job)
    if not path.is_file():
        return {}
    return stored.load(
        path, lambda key, learned: restored(job.translators[key.span.translator], groups, learned), wanted
    )


def _from_one_pass(job: Job, wanted: list[Map], maps: _Maps, sequential: bool) -> tuple[_Maps, dict[int, int]]:
    """The maps ``wanted``, and how many images could be used (empty for a sequential pass, which uses the same)."""

    def one_pass(size: int) -> tuple[_Maps, dict[int, int]]:
        if sequential:
            return _solve_after(job, wanted, maps, size), {}
        if isinstance(job.translator, TrainedTranslator):  # one map after another: there is nothing to share
            alone = replace(job, team=ALONE)
            return job.team.share(_train(alone, job.translator, wanted, maps, size) if job.team.leads else ({}, {}))
        return _solve(job, wanted, size)

    size = max(job.batch_size, -(-ROWS_FOR_A_BASIS * job.backbone.width // job.backbone.tokens))
    size = min(size, max(map(len, job.data.fit)))
    if job.team.size > 1:  # the other processes would have gone on
        return one_pass(size)
    # When memory runs out, the whole pass again: half a batch may already be in the sums.
    return halving(one_pass, size, [job.backbone.image_size] * 2, say)[0]


def _groups(job: Job) -> list[slice]:
    return groups_of(job.translator.tokens, job.backbone.prefix_tokens, job.backbone.tokens)


def _passes(
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
    return Sums(wanted, job.backbone.prefix_tokens, job.backbone.tokens)


def _new_sums(job: Job, sources: Mapping[Map, Layer], batch_size: int, encode: Callable[[Tensor], Latents]) -> Sums:
    """Empty sums. All processes use the bases of the run's first images, so a batch adds the same in any of them."""
    sums = empty_sums(job, sources)
    if not job.team.leads:
        first = job.data.fit[0].only(np.arange(min(batch_size, len(job.data.fit[0]))))
        for batch in replace(job, team=ALONE).batches(first, batch_size):
            if len(batch.positions):
                sums.choose_bases(batch.positions, encode(batch.pixels))
    return sums


def _add(job: Job, sums: Sums, images: np.ndarray, found: Latents) -> None:
    """Add the latents (N, T, D) of the images with these numbers (N,). Raises ToastError where they are not finite."""
    try:
        sums.update(images, found)
    except FloatingPointError as e:
        raise job.not_finite(str(e).capitalize()) from e


def _solved(job: Job, sums: Sums, sources: Mapping[Map, Layer]) -> _Maps:
    """The translator of every map, from the sums so far over its source and the latents after its span.

    The processes add up what each has seen, and divide the maps among them.
    """
    team, found = job.team, {}
    for number, (key, source) in enumerate(sources.items()):
        wanted = _wanted(job, key, source)
        parts = [(team.add_up(kept), team.add_up(apart)) for kept, apart in sums.of(wanted, job.backbone.width)]
        if number % team.size == team.rank:
            found[key] = sums.fitted(wanted.translator, parts)
    found = team.unite(found)
    return {key: found[key] for key in sources}


def _solve(job: Job, wanted: list[Map], batch_size: int) -> tuple[_Maps, dict[int, int]]:
    """Closed forms from latents of the untouched model. The sums, gigabytes for a large model, are freed at the end."""

    def encode(pixels: Tensor) -> Latents:
        """uint8 (N, 3, H, W) -> latents (N, T, D) of the untouched model."""
        return latents(job.backbone, pixels)

    sums = _new_sums(job, {key: key.span.start for key in wanted}, batch_size, encode)
    maps: _Maps = {}
    used: list[int] = []
    for step in _passes(job, batch_size, encode):
        if isinstance(step, int):
            size = job.data.fit_sizes[len(used)]
            maps |= _solved(job, sums, {key: key.span.start for key in wanted if key.fit_images == size})
            used.append(step)
        else:
            _add(job, sums, *step)
    return maps, _noted(job, used)


def _solve_after(job: Job, wanted: list[Map], maps: _Maps, batch_size: int) -> _Maps:
    """Closed forms from latents of models that already have the maps before them; targets are the untouched model's."""
    sources = {key: key.source(job.backbone.depth) for key in wanted}
    prefixes = list(dict.fromkeys(sources.values()))
    modules = {
        step: maps[step].to_module().to(job.compute.device)
        for prefix in prefixes
        for step in prefix.steps
        if isinstance(step, Map)
    }
    encoder = Encoder(job.backbone, prefixes, modules, whole=True)

    def encode(pixels: Tensor) -> Latents:
        """uint8 (N, 3, H, W) -> latents (N, T, D) of the untouched model, and those after each prefix."""
        return {**latents(job.backbone, pixels), **dict(zip(prefixes, encoder(pixels).unbind(1), strict=True))}

    sums = _new_sums(job, sources, batch_size, encode)
    sizes = iter(job.data.fit_sizes)
    for step in _passes(job, batch_size, encode):
        if not isinstance(step, int):
            _add(job, sums, *step)
        elif next(sizes) == wanted[0].fit_images:
            return _solved(job, sums, sources)
    raise ValueError(f"no part of the fit images ends at {wanted[0].fit_images}")


def _train(
    job: Job, translator: TrainedTranslator, wanted: list[Map], maps: _Maps, batch_size: int
) -> tuple[_Maps, dict[int, int]]:
    """Train the maps one after another, each on disk before the next begins; their latents stay on disk meanwhile."""
    layers = sorted({layer for span in job.spans for layer in (span.start, span.end)})
    shape = (sum(map(len, job.data.fit)), job.backbone.tokens, job.backbone.width)
    files = {layer: FeatureFile(job.folder / contents.latents(layer), *shape) for layer in layers}
    used = _write_latents(job, files, batch_size)
    images, groups = dict(zip(job.data.fit_sizes, used, strict=True)), _groups(job)
    result, todo = dict(maps), [key for key in wanted if key not in maps]
    total = sum(translator.steps * len(groups) * images[key.fit_images] for key in todo)
    with progress("train maps", total) as advance:
        for key in todo:
            source, target = (
                LatentFile(files[layer].path, (images[key.fit_images], *shape[1:]), job.compute.device)
                for layer in (key.span.start, key.span.end)
            )
            result[key] = _trained(translator, source, target, groups, advance)
            job.folder.write(contents.TRANSLATORS, stored.encoded(result))
    return result, images


def _write_latents(job: Job, files: Mapping[int, FeatureFile], batch_size: int) -> list[int]:
    """Write the latents (N, T, D) of the fit images, one file per layer.

    Returns how many images could be used after each part.
    """
    for file in files.values():
        file.remove()
    used: list[int] = []
    for step in _passes(job, batch_size, lambda pixels: latents(job.backbone, pixels)):
        if isinstance(step, int):
            used.append(step)
            continue
        _, found = step
        for layer, file in files.items():
            if not torch.isfinite(found[layer].sum()):
                raise job.not_finite(f"The latents after block {layer}")
            file.append(found[layer].float().cpu().numpy())
    _noted(job, used)
    return used


def _trained(
    translator: TrainedTranslator, source: LatentFile, target: LatentFile, groups: list[slice], advance: Advance
) -> FittedMap:
    """A copy of ``translator`` trained on each group of tokens, as one map."""
    parts = [copy.deepcopy(translator).fit(source.of(group), target.of(group), advance) for group in groups]
    return parts[0] if len(groups) == 1 else joined(parts, groups, target.variation())


def _noted(job: Job, used: list[int]) -> dict[int, int]:
    """How many fit images could be used, by how many were asked for; also recorded in the folder."""
    counts = dict(zip(job.data.fit_sizes, used, strict=True))
    if job.team.leads:
        job.folder.note_images_used(counts)
    return counts
