"""The fit stage: one pass over the fit images, then the translator of every span at every number of fit images.

The fit images come in parts, each of which adds to those before it: sums are taken once, and at the end of each part the
translators of that number of images are solved from what has been added up so far.
"""

import copy
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from toast_cli import maps
from toast_cli.compute import halve, out_of_memory
from toast_cli.console import progress, say
from toast_cli.encode import latents
from toast_cli.errors import ToastError
from toast_cli.features import FeatureFile
from toast_cli.job import Fitted, Job
from toast_cli.moments import ROWS_FOR_A_BASIS, Moments
from toast_cli.plans import STEM, Map, Span
from toast_cli.tokens import ByToken, groups_of
from toast_cli.trained import Advance, Latents
from toast_cli.translators import Translator


def fit(job: Job) -> Fitted:
    """The translator of every map. Bad images that are left out are not counted."""
    path = job.folder / "translators.safetensors"
    fitted = maps.load(path, _blank(job)) if path.is_file() else {}
    if all(key in fitted for key in job.maps):
        return fitted
    size = max(job.batch_size, -(-ROWS_FOR_A_BASIS * job.backbone.width // job.backbone.tokens))
    while True:  # the whole pass again when memory runs out: half a batch may have been added to the sums already
        try:
            return _train(job, fitted, size) if job.translator.trained else _solve(job, size)
        except Exception as e:
            if not out_of_memory(e):
                raise
            size = halve(size, say, e)


def _groups(job: Job) -> list[slice]:
    return groups_of(job.translator.tokens, job.backbone.prefix_tokens, job.backbone.tokens)


def _blank(job: Job) -> Translator:
    """What is fitted for each map: a copy of the run's translator, or one that holds one for each group of tokens."""
    groups, translator = _groups(job), copy.deepcopy(job.translator)
    return translator if len(groups) == 1 else ByToken(translator, groups)


def _passes(job: Job, batch_size: int) -> Iterator[tuple[int, dict[int, Tensor] | None]]:
    """Every batch as (number of images so far, its latents by layer), and (so far, None) at the end of each part."""
    again = set(job.data.train.indices.tolist())  # these will be encoded too, and need no second decoding
    seen = 0
    with progress("fit", sum(map(len, job.data.fit))) as advance:
        for part in job.data.fit:
            for batch in job.batches(part, batch_size, keep=again if part.split is job.data.train.split else ()):
                seen += len(batch.positions)
                if len(batch.positions):
                    yield seen, latents(job.backbone, batch.pixels)
                advance(batch.size)
            if seen == 0:
                raise ToastError("None of the fit images can be decoded: mend them, or draw others with data.seed.")
            yield seen, None


class _Sums:
    """Moments of each group of tokens; those of the images that the translator wants held out are kept apart."""

    def __init__(self, job: Job) -> None:
        pairs = [(span.start, span.end) for span in job.spans]
        self.groups, self.blank = _groups(job), _blank(job)
        self.held_out = job.translator.held_out
        self.moments = [(Moments(pairs), Moments(pairs)) for _ in self.groups]  # kept, held out

    def update(self, first: int, found: Mapping[int, Tensor]) -> None:
        """Add the latents (N, T, D) by layer of images number ``first`` on."""
        images = np.arange(first, first + len(found[STEM]))
        apart = np.floor((images + 1) * self.held_out) > np.floor(images * self.held_out)  # one in 1 / held_out
        for which, kind in ((~apart, 0), (apart, 1)):
            if not which.any():
                continue
            chosen = slice(None) if which.all() else torch.from_numpy(which)
            for group, sums in zip(self.groups, self.moments, strict=True):
                sums[kind].update({layer: found[layer][chosen][:, group] for layer in sums[kind].layers})

    def solve(self, span: Span) -> Translator:
        """The span's translator from all that has been added so far."""
        parts = [tuple(sums.pair(span.start, span.end) for sums in kinds if sums.count) for kinds in self.moments]
        translator = copy.deepcopy(self.blank)
        if isinstance(translator, ByToken):
            everything = sum((pair for part in parts for pair in part[1:]), start=parts[0][0])
            everything = sum((part[0] for part in parts[1:]), start=everything)
            return translator.fit_parts(parts, everything.variation)
        return translator.fit(*parts[0])


def _solve(job: Job, batch_size: int) -> Fitted:
    """Closed forms. The sums, gigabytes for a large model, end with this function."""
    sums, before = _Sums(job), 0
    fitted: dict[Map, Translator] = {}
    used: list[int] = []
    for seen, found in _passes(job, batch_size):
        if found is None:
            fitted |= {Map(span, job.data.fit_sizes[len(used)]): sums.solve(span) for span in job.spans}
            used.append(seen)
        else:
            try:
                sums.update(before, found)
            except FloatingPointError as e:
                raise job.not_finite(str(e).capitalize()) from e
            before = seen
    _note(job, used)
    maps.save(job.folder / "translators.safetensors", fitted)
    return fitted


def _train(job: Job, fitted: Fitted, batch_size: int) -> Fitted:
    """Trained maps, one after the other, each on disk before the next begins; their latents wait on disk meanwhile."""
    layers = sorted({layer for span in job.spans for layer in (span.start, span.end)})
    shape = (sum(map(len, job.data.fit)), job.backbone.tokens, job.backbone.width)
    files = {layer: FeatureFile(job.folder / "features" / f"latent{layer}.f32", *shape) for layer in layers}
    for file in files.values():
        file.path.unlink(missing_ok=True)
    used: list[int] = []
    for seen, found in _passes(job, batch_size):
        if found is None:
            used.append(seen)
            continue
        for layer, file in files.items():
            if not torch.isfinite(found[layer].sum()):
                raise job.not_finite(f"The latents after block {layer}")
            file.append(found[layer].float().cpu().numpy())
    _note(job, used)
    images, groups = dict(zip(job.data.fit_sizes, used, strict=True)), _groups(job)
    result, todo = dict(fitted), [key for key in job.maps if key not in fitted]
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
            result[key] = _trained(_blank(job), parts, advance)
            maps.save(job.folder / "translators.safetensors", result)
    for file in files.values():
        file.path.unlink()
    return result


def _trained(translator: Translator, parts: list[tuple[Latents, ...]], advance: Advance) -> Translator:
    if not isinstance(translator, ByToken):
        return translator.fit(*parts[0], advance)  # type: ignore[call-arg, arg-type]
    everything = Latents(parts[0][1].path, parts[0][1].shape, slice(None), parts[0][1].device)
    return translator.fit_parts([(*part, advance) for part in parts], everything.variation())


def _note(job: Job, used: list[int]) -> None:
    """How many fit images could be used, by how many were asked for."""
    job.folder.note(fit_images=dict(zip(map(str, job.data.fit_sizes), used, strict=True)))
