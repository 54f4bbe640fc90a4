"""Healed blocks of a run: what is missing, where it is kept, and how it is found again.

The blocks that follow the same spans are in one file, which grows block by block: a killed run goes on after the last.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from toast_cli.errors import ToastError, reraise_disk
from toast_cli.machine.console import progress, say
from toast_cli.machine.memory import free_on, halving
from toast_cli.models.branches import are_refitted
from toast_cli.plans import HealedBlock, Map
from toast_cli.runs import contents
from toast_cli.runs.folder import Folder
from toast_cli.stages.chain import Chain, Tensors
from toast_cli.stages.job import Job
from toast_cli.stages.originals import Originals, branch_ends
from toast_cli.stages.solve import Maps, add, empty_sums, solved

Healed = dict[HealedBlock, Tensors]


def originals_of(job: Job) -> Originals:
    """What is kept of the untouched model's latents that the job's healed plans need: on a GPU in its memory if half of what is
    free is enough, else on disk. Raises ToastError if its blocks cannot be healed."""
    healed = [variant for variant in job.variants if variant.healed]
    make = partial(Originals, job.folder.path, job.backbone, healed, min(job.data.fit_sizes), job.team.rank)
    on_disk = make()
    fits = 2 * on_disk.bytes(sum(map(len, job.data.fit))) < free_on(job.compute.device)
    return make(in_memory=True) if fits else on_disk


def heal(job: Job, maps: Maps, healed: Healed, originals: Originals) -> tuple[Maps, Healed]:
    """All maps and healed blocks of the job, from those that there are and the ``originals`` of all fit images.

    Raises ToastError where latents are not finite.
    """
    total = sum(
        len(branch_ends(key.block)) * originals.below(key.fit_images) for key in job.healed if key not in healed
    )
    modules: dict[Map, nn.Module] = {key: each.to_module().to(job.compute.device) for key, each in maps.items()}
    found = dict(maps)

    def fit_map(key: Map, pairs: Iterator[tuple[np.ndarray, Tensor, Tensor]]) -> nn.Module:
        found[key] = _solved(job, key, pairs)
        return found[key].to_module().to(job.compute.device)

    def keep(key: HealedBlock, tensors: Tensors) -> None:
        if job.team.leads:
            job.folder.write(_file(key), _encoded(chain.healed, key))

    with progress("heal", total) as advance:

        def attempt(size: int) -> None:
            for images in job.data.fit_sizes:
                plans = [each for each in job.variants if each.healed and each.fit_images == images]
                chain.follow(plans, images, size)

        chain = Chain(originals, job.backbone, modules, dict(healed), fit_map, keep, advance, job.team)
        try:
            if job.team.size > 1:  # the other processes would have gone on
                attempt(job.batch_size)
            else:
                halving(attempt, job.batch_size, [job.backbone.image_size] * 2, say)
        except FloatingPointError as e:
            raise job.not_finite(str(e).capitalize()) from e
    return found, dict(chain.healed)


def _solved(job: Job, key: Map, pairs: Iterator[tuple[np.ndarray, Tensor, Tensor]]) -> Any:
    """The translator of a map whose sources come from a healed model."""
    source = "healed"
    sums = empty_sums(job, {key: source})
    for numbers, x, y in pairs:
        add(job, sums, numbers, {source: x, key.span.end: y})
    return solved(job, sums, {key: source})[key]


def load_healed(job: Job, folder: Folder) -> Healed:
    """The healed blocks of the job that are stored in ``folder``.

    Raises ToastError if a file was changed, or holds something else.
    """
    found: Healed = {}
    for key in job.healed:
        path = folder.checked(_file(key))
        if path.is_file() and (tensors := _read(path, key)):
            if not are_refitted(job.backbone.part(key.block), tensors):
                raise ToastError(
                    f"{path} holds no block {key.block} that fits the model: restore it, or run it again with fresh=true."
                )
            found[key] = tensors
    return found


def is_healed(job: Job) -> bool:
    """Whether the job's folder has a file for all of its healed blocks, as far as they are."""
    return all((job.folder / _file(key)).is_file() for key in job.healed)


def remove_others(job: Job) -> None:
    """Remove the healed blocks in the job's folder that none of its plans has."""
    own = {_file(key) for key in job.healed}
    for path in contents.healed_in(job.folder.path):
        if path.name not in own:
            path.unlink()


def _file(key: HealedBlock) -> str:
    return contents.healed(str(key).partition("@")[2])


def _encoded(healed: Healed, key: HealedBlock) -> bytes:
    """The file of all blocks that follow what ``key`` follows, their tensors by block and name."""
    chain = [each for each in healed if (each.fit_images, each.after) == (key.fit_images, key.after)]
    tensors = {f"{each.block}/{name}": value for each in chain for name, value in healed[each].items()}
    return safetensors.torch.save(tensors)


def _read(path: Any, key: HealedBlock) -> dict[str, Tensor]:
    """The tensors of one block; none if it is not healed yet."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            start = f"{key.block}/"
            own = [name for name in file.keys() if name.startswith(start)]  # noqa: SIM118  # it is no dict
            return {name.removeprefix(start): file.get_tensor(name) for name in own}
    except (SafetensorError, OSError) as e:
        reraise_disk(e)
        raise ToastError(
            f"{path} does not hold healed blocks ({type(e).__name__}): restore it, or run it again with fresh=true."
        ) from e
