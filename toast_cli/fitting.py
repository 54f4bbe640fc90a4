"""The fit stage: one pass over the fit images, then the translator of every span at every number of fit images.

The fit images come in parts, each of which adds to those before it: sums are taken once, and at the end of each part the
translators of that number of images are solved from what has been added up so far.
"""

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toast_cli import maps
from toast_cli.compute import halve, out_of_memory
from toast_cli.console import progress, say
from toast_cli.draws import held_apart
from toast_cli.encode import Encoder, latents
from toast_cli.errors import ToastError
from toast_cli.features import FeatureFile
from toast_cli.job import Fitted, Job
from toast_cli.moments import ROWS_FOR_A_BASIS, Layer, Moments, PairMoments
from toast_cli.plans import Map, Span
from toast_cli.team import ALONE
from toast_cli.tokens import ByToken, groups_of
from toast_cli.trained import Advance, Latents
from toast_cli.translators import Translator

_Latents = Mapping[Any, Tensor]  # by layer, as in Moments


def fit(job: Job) -> Fitted:
    """The translator of every map. Bad images that are left out are not counted.

    Maps whose sources are latents of the untouched model come from one pass; those that follow n others in a sequential
    fit need these first, and come from a pass of their own for each n and number of images.
    """
    path, team = job.folder / maps.NAME, job.team
    stored: Fitted = maps.load(path, lambda key: blank(job, key.span)) if team.leads and path.is_file() else {}
    fitted = team.share(stored)
    passes: dict[tuple[int, int], list[Map]] = {}
    for key in job.maps:
        place = len(key.after.spans)
        passes.setdefault((place, key.fit_images if place else 0), []).append(key)
    for (place, _), wanted in sorted(passes.items()):
        if not all(key in fitted for key in wanted):
            fitted = {**fitted, **_from_one_pass(job, wanted, fitted, sequential=place > 0)}
            if team.leads:
                maps.save(path, fitted)
    if team.leads:
        for file in (job.folder / "features").glob("latent*.f32"):  # no map is left to train from them
            file.unlink()
    return {key: fitted[key] for key in job.maps}


def _from_one_pass(job: Job, wanted: list[Map], fitted: Fitted, sequential: bool) -> Fitted:
    size = max(job.batch_size, -(-ROWS_FOR_A_BASIS * job.backbone.width // job.backbone.tokens))
    while True:  # the whole pass again when memory runs out: half a batch may have been added to the sums already
        try:
            if sequential:
                return _solve_after(job, wanted, fitted, size)
            if job.translator.trained:  # one map after the other: there is nothing to share out
                return job.team.share(_train(replace(job, team=ALONE), wanted, fitted, size) if job.team.leads else {})
            return _solve(job, wanted, size)
        except Exception as e:
            if not out_of_memory(e) or job.team.size > 1:  # the others have gone on
                raise
            size = halve(size, say, e)


def _groups(job: Job) -> list[slice]:
    return groups_of(job.translator.tokens, job.backbone.prefix_tokens, job.backbone.tokens)


def blank(job: Job, span: Span) -> Translator:
    """What is fitted for a map: a copy of the span's translator, or one that holds one for each group of tokens."""
    groups, translator = _groups(job), copy.deepcopy(job.translators[span.translator])
    return translator if len(groups) == 1 else ByToken(translator, groups)


def _passes(
    job: Job, batch_size: int, encode: Callable[[Tensor], _Latents]
) -> Iterator[tuple[np.ndarray, _Latents] | int]:
    """Each of this process's batches as (its images' numbers, its latents), and at the end of each part how many images of
    all processes could be used so far."""
    again = set(job.data.train.indices.tolist())  # these will be encoded too, and need no second decoding
    before = seen = used = 0
    own = sum(len(which) for part in job.data.fit for which in job.team.ranges(0, len(part), batch_size))
    with progress("fit", own) as advance:
        for part in job.data.fit:
            for batch in job.batches(part, batch_size, keep=again if part.split is job.data.train.split else ()):
                seen += len(batch.positions)
                if len(batch.positions):
                    yield before + batch.positions, encode(batch.pixels)
                advance(batch.size)
            before, used = before + len(part), used + job.team.sum(seen)
            seen = 0
            if used == 0:
                raise ToastError("None of the fit images can be decoded: mend them, or draw others with data.seed.")
            yield used


class _Sums:
    """Moments of each group of tokens; those of the images that the translator wants held out are kept apart.

    All processes of a run use the bases of its first images, so that each batch adds the same whoever adds it.
    """

    def __init__(
        self, job: Job, pairs: list[tuple[Layer, Layer]], batch_size: int, encode: Callable[[Tensor], _Latents]
    ) -> None:
        self.job, self.groups = job, _groups(job)
        self.held_out = max(translator.held_out for translator in job.translators.values())
        self.moments = [(Moments(pairs), Moments(pairs)) for _ in self.groups]  # kept, held out
        if not job.team.leads:
            first = job.data.fit[0].only(np.arange(min(batch_size, len(job.data.fit[0]))))
            for batch in replace(job, team=ALONE).batches(first, batch_size):
                if len(batch.positions):
                    self._update(batch.positions, encode(batch.pixels), Moments.choose_bases)

    def update(self, images: np.ndarray, found: _Latents) -> None:
        """Add the latents (N, T, D) of the images with these numbers (N,). Raises ToastError where they are not finite."""
        try:
            self._update(images, found, Moments.update)
        except FloatingPointError as e:
            raise self.job.not_finite(str(e).capitalize()) from e

    def _update(self, images: np.ndarray, found: _Latents, use: Callable[[Moments, _Latents], None]) -> None:
        apart = held_apart(images, self.held_out)
        for which, kind in ((~apart, 0), (apart, 1)):
            if not which.any():
                continue
            chosen = slice(None) if which.all() else torch.from_numpy(which)
            for group, sums in zip(self.groups, self.moments, strict=True):
                use(sums[kind], {layer: found[layer][chosen][:, group] for layer in sums[kind].layers})

    def solve(self, sources: Mapping[Map, Layer]) -> Fitted:
        """The translator of every map from all that has been added so far of its source and the latents after its span.

        The processes add up what each has seen, and share out the maps.
        """
        team, found = self.job.team, {}
        for number, (key, source) in enumerate(sources.items()):
            parts = [[team.add_up(self._pair(sums, source, key.span)) for sums in kinds] for kinds in self.moments]
            if number % team.size == team.rank:
                found[key] = self._fit(key.span, [tuple(sums for sums in part if sums.count) for part in parts])
        found = team.unite(found)
        return {key: found[key] for key in sources}

    def _pair(self, sums: Moments, source: Layer, span: Span) -> PairMoments:
        return sums.pair(source, span.end) if sums.count else PairMoments.nothing(self.job.backbone.width)

    def _fit(self, span: Span, parts: list[tuple[PairMoments, ...]]) -> Translator:
        translator = blank(self.job, span)
        if isinstance(translator, ByToken):
            everything = reduce(operator.add, (pair for part in parts for pair in part))
            return translator.fit_parts([self._for(translator, part) for part in parts], everything.variation)
        return translator.fit(*self._for(translator, parts[0]))

    @staticmethod
    def _for(translator: Translator, part: tuple[PairMoments, ...]) -> tuple[PairMoments, ...]:
        """Kept and held-out moments, or the sums of both for a translator that wants none held out."""
        return part if translator.held_out else (reduce(operator.add, part),)


def _solve(job: Job, wanted: list[Map], batch_size: int) -> Fitted:
    """Closed forms from latents of the untouched model. The sums, gigabytes for a large model, end with this function."""

    def encode(pixels: Tensor) -> _Latents:
        return latents(job.backbone, pixels)

    sums = _Sums(job, [(key.span.start, key.span.end) for key in wanted], batch_size, encode)
    fitted: dict[Map, Translator] = {}
    used: list[int] = []
    for step in _passes(job, batch_size, encode):
        if isinstance(step, int):
            size = job.data.fit_sizes[len(used)]
            fitted |= sums.solve({key: key.span.start for key in wanted if key.fit_images == size})
            used.append(step)
        else:
            sums.update(*step)
    _note(job, used)
    return fitted


def _solve_after(job: Job, wanted: list[Map], fitted: Fitted, batch_size: int) -> Fitted:
    """Closed forms from latents of models that have the maps before them already; targets are the untouched model's."""
    sources = {key: key.source(job.backbone.depth) for key in wanted}
    prefixes = list(dict.fromkeys(sources.values()))
    modules = {
        step: fitted[step].to_module().to(job.compute.device)
        for prefix in prefixes
        for step in prefix.steps
        if isinstance(step, Map)
    }
    encoder = Encoder(job.backbone, prefixes, modules, whole=True)

    def encode(pixels: Tensor) -> _Latents:
        return {**latents(job.backbone, pixels), **dict(zip(prefixes, encoder(pixels).unbind(1), strict=True))}

    sums = _Sums(job, [(sources[key], key.span.end) for key in wanted], batch_size, encode)
    sizes = iter(job.data.fit_sizes)
    for step in _passes(job, batch_size, encode):
        if not isinstance(step, int):
            sums.update(*step)
        elif next(sizes) == wanted[0].fit_images:
            return sums.solve(sources)
    raise ValueError(f"no part of the fit images ends at {wanted[0].fit_images}")


def _train(job: Job, wanted: list[Map], fitted: Fitted, batch_size: int) -> Fitted:
    """Trained maps, one after the other, each on disk before the next begins; their latents wait on disk meanwhile."""
    layers = sorted({layer for span in job.spans for layer in (span.start, span.end)})
    shape = (sum(map(len, job.data.fit)), job.backbone.tokens, job.backbone.width)
    files = {layer: FeatureFile(job.folder / "features" / f"latent{layer}.f32", *shape) for layer in layers}
    for file in files.values():
        file.path.unlink(missing_ok=True)
    used: list[int] = []
    for step in _passes(job, batch_size, lambda pixels: latents(job.backbone, pixels)):
        if isinstance(step, int):
            used.append(step)
            continue
        found = step[1]
        for layer, file in files.items():
            if not torch.isfinite(found[layer].sum()):
                raise job.not_finite(f"The latents after block {layer}")
            file.append(found[layer].float().cpu().numpy())
    _note(job, used)
    images, groups = dict(zip(job.data.fit_sizes, used, strict=True)), _groups(job)
    result, todo = dict(fitted), [key for key in wanted if key not in fitted]
    steps = job.translator.steps * len(groups)  # type: ignore[attr-defined]
    with progress("train maps", sum(steps * images[key.fit_images] for key in todo)) as advance:
        for key in todo:
            parts = [
                tuple(
                    Latents(files[layer].path, (images[key.fit_images], *shape[1:]), group, job.compute.device)
                    for layer in (key.span.start, key.span.end)
                )
                for group in groups
            ]
            result[key] = _trained(blank(job, key.span), parts, advance)
            maps.save(job.folder / maps.NAME, result)
    return result


def _trained(translator: Translator, parts: list[tuple[Latents, ...]], advance: Advance) -> Translator:
    if not isinstance(translator, ByToken):
        return translator.fit(*parts[0], advance)  # type: ignore[call-arg, arg-type]
    everything = Latents(parts[0][1].path, parts[0][1].shape, slice(None), parts[0][1].device)
    return translator.fit_parts([(*part, advance) for part in parts], everything.variation())


def _note(job: Job, used: list[int]) -> None:
    """How many fit images could be used, by how many were asked for."""
    if job.team.leads:
        job.folder.note(fit_images=dict(zip(map(str, job.data.fit_sizes), used, strict=True)))
