"""The fit stage: one pass over the fit images, then the translator of every span at every number of fit images.

The fit images come in parts, each adding to those before it: the sums are taken once, and at the end of each part the
translators for that number of images are solved from the sums so far.
"""

import copy
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from toast_cli.machine.console import progress, say
from toast_cli.machine.memory import halving
from toast_cli.machine.team import ALONE
from toast_cli.moments.streamed import ROWS_FOR_A_BASIS
from toast_cli.plans import Map, Point, middles, place_of
from toast_cli.runs import contents
from toast_cli.runs.features import FeatureFile
from toast_cli.runs.folder import Folder
from toast_cli.stages.heal import heal, load_healed, originals_of
from toast_cli.stages.job import Fitted, Job
from toast_cli.stages.originals import Originals
from toast_cli.stages.solve import Maps, add, new_sums, passes, solved
from toast_cli.stages.walk import Encoder, latents
from toast_cli.translators import stored
from toast_cli.translators.base import BaseTranslator, FittedMap
from toast_cli.translators.by_token import groups_of, joined, restored
from toast_cli.translators.pieces import Latents
from toast_cli.translators.trained import Advance, LatentFile, TrainedTranslator


def fit(job: Job) -> Fitted:
    """Fit the translator of every map, and heal the blocks behind them where that is asked for.

    Maps whose sources are latents of the untouched model come from one pass; maps that follow n others in a sequential
    fit need those first, and come from a separate pass for each n and number of images. What is healed comes last (see
    chain.py), from latents that the first pass leaves on disk. Bad images that are left out are not counted.

    Raises ToastError if no fit image can be decoded, if latents are not finite, or if the model's blocks cannot be healed.
    """
    team = job.team
    stored_so_far = (load_maps(job, job.folder), load_healed(job, job.folder), job.folder.images_used)
    maps, healed, used = team.share(stored_so_far if team.leads else ({}, {}, {}))
    unhealed = any(key not in healed for key in job.healed) or any(key.healed and key not in maps for key in job.maps)
    originals = originals_of(job) if unhealed else None
    for place, wanted in _in_passes(job.maps):
        if not all(key in maps for key in wanted) or (place == 0 and originals is not None):
            found, seen = _from_one_pass(job, wanted, maps, place > 0, originals)
            maps, used = {**maps, **found}, seen or used
            if team.leads:
                job.folder.write(contents.TRANSLATORS, stored.encoded(maps))
    if originals is not None:
        maps, healed = heal(job, maps, healed, originals)
        if team.leads:
            job.folder.write(contents.TRANSLATORS, stored.encoded(maps))
    if team.leads:
        contents.remove_latents(job.folder.path)  # nothing still has to be fitted on them
    return Fitted({key: maps[key] for key in job.maps}, used, {key: healed[key] for key in job.healed})


def _in_passes(maps: Iterable[Map]) -> list[tuple[int, list[Map]]]:
    """The ``maps`` by pass, each with the number of maps that they follow; those of healed models are not among them."""
    found: dict[tuple[int, int], list[Map]] = {}
    for key in maps:
        if not key.healed:
            place = len(key.after.spans)
            found.setdefault((place, key.fit_images if place else 0), []).append(key)
    return [(place, wanted) for (place, _), wanted in sorted(found.items())]


def load_maps(job: Job, folder: Folder, wanted: Container[Map] | None = None) -> Maps:
    """The maps that a run has stored in ``folder``, all or only those ``wanted``; empty if it has stored none.

    Raises ToastError if the file was changed or does not hold what a fit has learned.
    """
    path = folder.checked(contents.TRANSLATORS)
    if not path.is_file():
        return {}

    def restore(key: Map, learned: dict[str, Any]) -> FittedMap:
        translator = job.translators[key.span.translator]
        return restored(translator, _groups(job, translator), learned)

    return stored.load(path, restore, wanted)


def _from_one_pass(
    job: Job, wanted: list[Map], maps: Maps, sequential: bool, originals: Originals | None
) -> tuple[Maps, dict[int, int]]:
    """The maps ``wanted``, and how many images could be used (empty for a sequential pass, which uses the same).

    The first pass also fills ``originals``.
    """

    def one_pass(size: int) -> tuple[Maps, dict[int, int]]:
        if sequential:
            return _solve_after(job, wanted, maps, size), {}
        if isinstance(job.translator, TrainedTranslator):  # one map after another: there is nothing to share
            alone = replace(job, team=ALONE)
            return job.team.share(_train(alone, job.translator, wanted, maps, size) if job.team.leads else ({}, {}))
        return _solve(job, [key for key in wanted if key not in maps], size, originals)

    size = max(job.batch_size, -(-ROWS_FOR_A_BASIS * job.backbone.width // job.backbone.tokens))
    size = min(size, max(map(len, job.data.fit)))
    if job.team.size > 1:  # the other processes would have gone on
        return one_pass(size)
    # When memory runs out, the whole pass again: half a batch may already be in the sums.
    return halving(one_pass, size, [job.backbone.image_size] * 2, say)[0]


def _groups(job: Job, translator: BaseTranslator) -> list[slice]:
    return groups_of(translator.tokens, job.backbone.prefix_tokens, job.backbone.tokens)


def _inside(maps: Iterable[Map]) -> set[int]:
    """The blocks inside of which the spans of some of the ``maps`` end."""
    return middles(point for key in maps for point in (key.span.start, key.span.end))


def _solve(job: Job, wanted: list[Map], batch_size: int, originals: Originals | None) -> tuple[Maps, dict[int, int]]:
    """Closed forms from latents of the untouched model, which also go to the ``originals``.

    The sums, gigabytes for a large model, are freed at the end.
    """
    if originals is not None:
        originals.restart()

    def encode(pixels: Tensor) -> Latents:
        """uint8 (N, 3, H, W) -> latents (N, T, D) of the untouched model."""
        return latents(job.backbone, pixels, inside) if originals is None else originals.encode(pixels, inside)

    inside = _inside(wanted)
    sums = new_sums(job, {key: key.span.start for key in wanted}, batch_size, encode)
    maps: Maps = {}
    used: list[int] = []
    for step in passes(job, batch_size, encode):
        if isinstance(step, int):
            size = job.data.fit_sizes[len(used)]
            maps |= solved(job, sums, {key: key.span.start for key in wanted if key.fit_images == size})
            used.append(step)
        else:
            add(job, sums, *step)
            if originals is not None:
                originals.add(*step)
    return maps, _noted(job, used)


def _solve_after(job: Job, wanted: list[Map], maps: Maps, batch_size: int) -> Maps:
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
        found = latents(job.backbone, pixels, inside)
        return {**found, **dict(zip(prefixes, encoder(pixels).unbind(1), strict=True))}

    inside = _inside(wanted)
    sums = new_sums(job, sources, batch_size, encode)
    sizes = iter(job.data.fit_sizes)
    for step in passes(job, batch_size, encode):
        if not isinstance(step, int):
            add(job, sums, *step)
        elif next(sizes) == wanted[0].fit_images:
            return solved(job, sums, sources)
    raise ValueError(f"no part of the fit images ends at {wanted[0].fit_images}")


def _train(
    job: Job, translator: TrainedTranslator, wanted: list[Map], maps: Maps, batch_size: int
) -> tuple[Maps, dict[int, int]]:
    """Train the maps one after another, each on disk before the next begins; their latents stay on disk meanwhile."""
    layers = sorted({layer for span in job.spans for layer in (span.start, span.end)})
    shape = (sum(map(len, job.data.fit)), job.backbone.tokens, job.backbone.width)
    files = {layer: FeatureFile(job.folder / contents.latents(layer), *shape) for layer in layers}
    used = _write_latents(job, files, batch_size)
    images, groups = dict(zip(job.data.fit_sizes, used, strict=True)), _groups(job, translator)
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


def _write_latents(job: Job, files: Mapping[Point, FeatureFile], batch_size: int) -> list[int]:
    """Write the latents (N, T, D) of the fit images, one file per layer.

    Returns how many images could be used after each part.
    """
    for file in files.values():
        file.remove()
    used: list[int] = []
    for step in passes(job, batch_size, lambda pixels: latents(job.backbone, pixels, middles(files))):
        if isinstance(step, int):
            used.append(step)
            continue
        _, found = step
        for layer, file in files.items():
            if not torch.isfinite(found[layer].sum()):
                raise job.not_finite(f"The latents {place_of(layer)}")
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
