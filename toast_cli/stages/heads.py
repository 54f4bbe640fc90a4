"""The heads of segmentation: ridge regression from a patch's token to the shares of the classes among its pixels.

One pass over the train images gives the sums of all plans, from which the heads are solved; no token is kept.

Shapes: N images, P plans, p patches an image, D width, C class numbers, K of which the train masks have.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from toast_cli.data.images import Images
from toast_cli.errors import ToastError
from toast_cli.files import encode_arrays
from toast_cli.machine.console import progress, say
from toast_cli.machine.memory import halving
from toast_cli.models.preprocessing import Transform, to_mask
from toast_cli.moments import PairMoments
from toast_cli.moments.solvers import ridge
from toast_cli.runs import contents
from toast_cli.stages.job import Job

PENALTIES = [10.0**power for power in range(-6, 2)]
VALUES = 256  # of a mask: class numbers, and what means none
_PARTS = 5  # one of which chooses the penalty
_T = TypeVar("_T")
_Parts = tuple[
    PairMoments | None, PairMoments | None
]  # sums of a plan over four fifths of the images, and over the other fifth
Encode = Callable[[Tensor], list[Tensor]]  # pixels (N, C, H, W) -> the patch tokens (N, p, D) of each of P plans


@dataclass(frozen=True)
class Both:
    """What makes pixels of an image and of its mask in the same geometry: a ``MaskTransform``."""

    image: Transform
    mask: Transform

    @property
    def bands(self) -> int:
        return getattr(self.image, "bands", 3)

    def __call__(self, image: Image.Image) -> Tensor:
        return self.image(image)


@dataclass(frozen=True)
class Heads:
    """The heads of P plans: logits = x W + b for the classes ``numbers`` (K,), with ``weight`` W (P, D, K) and ``bias`` b (P, K).

    ``penalty`` (P,) is what the held-out fifth of the ``train_images`` images that could be decoded chose.
    """

    weight: np.ndarray
    bias: np.ndarray
    penalty: np.ndarray
    numbers: np.ndarray
    train_images: int

    def encoded(self) -> bytes:
        """The file."""
        return encode_arrays({**vars(self), "train_images": np.array([self.train_images])})


def fit_heads(job: Job, encode: Encode) -> Heads:
    """The heads of all plans, from one pass over the train images."""
    classes = len(job.data.classes)

    def one_pass(size: int) -> tuple[list[_Parts], Tensor, int]:
        sums: list[_Parts] = [(None, None)] * len(job.variants)
        seen, used = torch.zeros(classes, dtype=torch.bool), 0
        for positions, pixels, masks in masked_batches(job, "segment train", job.data.train, size):
            shares = shares_of(masks, job.backbone.grid, classes)  # (N, p, C)
            known = shares.any(2)  # (N, p)
            held = known & torch.from_numpy(positions % _PARTS == _PARTS - 1).to(known.device)[:, None]
            for plan, tokens in enumerate(encode(pixels)):
                kept, apart = sums[plan]
                sums[plan] = (_plus(kept, tokens, shares, known & ~held), _plus(apart, tokens, shares, held))
            seen |= shares.flatten(0, 1).any(0).cpu()
            used += len(positions)
        return sums, seen, used

    sums, seen, used = in_passes(job, one_pass)
    found = []
    for variant, (kept, apart) in zip(job.variants, sums, strict=True):
        if kept is None or apart is None:
            raise ToastError(
                f"eval=segmentation chooses a penalty on a fifth of the train images, and {used} with masks that name classes are too few: use "
                "data.train_images=10 or more."
            )
        if not (kept + apart).xx.isfinite().all():
            raise job.not_finite(f"The patch tokens of plan {variant}")
        found.append(_solved(_on_cpu(kept), _on_cpu(apart)))
    weight, bias = torch.stack([each for each, _, _ in found]), torch.stack([each for _, each, _ in found])
    penalty = np.array([each for _, _, each in found])
    return Heads(
        weight[..., seen].float().numpy(), bias[..., seen].float().numpy(), penalty, np.flatnonzero(seen), used
    )


def _plus(sums: PairMoments | None, tokens: Tensor, shares: Tensor, rows: Tensor) -> PairMoments | None:
    """The sums with those of the patches at ``rows`` (N, p); products and sums are in float64."""
    if not rows.any():
        return sums
    x, y = (_with_doubles(each[rows]).double() for each in (tokens, shares))
    own = PairMoments(len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y, y.T @ y)
    return own if sums is None else sums + own


def _with_doubles(rows: Tensor) -> Tensor:
    """The rows on the CPU if their device has no float64."""
    return rows.cpu() if rows.device.type == "mps" else rows


def _on_cpu(sums: PairMoments) -> PairMoments:
    arrays = {name: getattr(sums, name).cpu() for name in ("sum_x", "sum_y", "xx", "xy", "yy")}
    return replace(sums, **arrays)


def _solved(kept: PairMoments, held: PairMoments) -> tuple[Tensor, Tensor, float]:
    """W (D, C), b (C,) fitted to all, and the penalty with which a fit to what is ``kept`` leaves the smallest error on what is ``held`` out."""
    errors = [held.residual_of(weight, _bias(kept, weight)) for weight in ridge(kept, PENALTIES)]
    penalty = PENALTIES[int(np.argmin(errors))]
    everything = kept + held
    weight = ridge(everything, [penalty])[0]
    return weight, _bias(everything, weight), penalty


def _bias(sums: PairMoments, weight: Tensor) -> Tensor:
    mean_x, mean_y = sums.means
    return mean_y - mean_x @ weight


def shares_of(masks: Tensor, grid: tuple[int, int], classes: int) -> Tensor:
    """The shares of C classes among a patch's pixels that have one, float32 (N, p, C); all 0 where none has.

    Args:
        masks: class numbers (N, H, W), uint8.
        grid: the numbers of patches (h, w) below and beside each other, which divide H and W.
        classes: C.
    """
    (height, width), (n, rows, columns) = grid, masks.shape
    patches = masks.view(n, height, rows // height, width, columns // width).transpose(2, 3).flatten(3).flatten(0, 2)
    place = torch.arange(len(patches), device=masks.device)[:, None] * VALUES + patches
    counts = torch.bincount(place.flatten(), minlength=len(patches) * VALUES).view(n, height * width, VALUES)
    counts = counts[..., :classes].float()
    return counts / counts.sum(2, keepdim=True).clamp(min=1)


def masked_batches(job: Job, name: str, images: Images, size: int) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Numbers (N,), pixels (N, C, H, W) and masks (N, H, W) of the images that can be decoded."""
    both = Both(job.backbone.transform, to_mask(job.backbone.preprocessing))
    with progress(name, len(images)) as advance:
        for batch in job.batches(images, size, transform=both):
            if len(batch.positions):
                yield batch.positions, batch.pixels[:, :-1], batch.pixels[:, -1]
            advance(batch.size)


def in_passes(job: Job, one_pass: Callable[[int], _T]) -> _T:
    """A whole pass again when memory runs out: half a batch may already be in the sums. All plans' latents are in memory together."""
    most = max(job.batch_size // len(job.variants), 1)
    return halving(one_pass, most, [job.backbone.image_size] * 2, say)[0]


def stored_heads(job: Job) -> Heads | None:
    """The heads that an interrupted run has fitted; None if there are none. Raises ToastError for a file that holds others."""
    path = job.folder.checked(contents.HEADS)
    if not path.is_file():
        return None
    try:
        stored = load_file(path)
        weight, bias, penalty, numbers = (stored[name] for name in ("weight", "bias", "penalty", "numbers"))
        heads = Heads(weight, bias, penalty, numbers, int(stored["train_images"][0]))
    except (SafetensorError, OSError, KeyError, IndexError, TypeError, ValueError) as e:
        raise ToastError(
            f"{path} cannot be read as heads ({type(e).__name__}): restore it, or start over with fresh=true."
        ) from e
    if heads.weight.shape != (len(job.variants), job.backbone.width, len(heads.numbers)):
        raise ToastError(f"{path} holds heads of other plans: restore it, or start over with fresh=true.")
    return heads
