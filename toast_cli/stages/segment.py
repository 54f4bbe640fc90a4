"""Segmentation: the mIoU of every plan, by a linear head on its patch tokens (heads.py).

On a test image a head's logits are enlarged to the size of the mask, and each pixel gets the class of the largest.

Shapes: N images, P plans, p patches an image, K classes of the heads.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from toast_cli.data.images import PixelCache
from toast_cli.data.masked import IGNORED
from toast_cli.errors import ToastError
from toast_cli.runs import contents
from toast_cli.runs.segmented import ClassIou, Segmented
from toast_cli.stages.fit import fit
from toast_cli.stages.heads import VALUES, Encode, Heads, fit_heads, in_passes, masked_batches, stored_heads
from toast_cli.stages.job import Fitted, Job, Modules
from toast_cli.stages.probe import variant_columns
from toast_cli.stages.walk import Encoder
from toast_cli.surgery.costs import Costs


def segment(job: Job) -> tuple[list[Segmented], list[ClassIou]]:
    """The rows of all variants, and what each costs every class; heads that the job's folder holds are not fitted again.

    Raises ToastError for too few images, images and masks that cannot be decoded, and numbers that are not finite.
    """
    job = replace(job, pixels=PixelCache(job.data.train.split, ()))  # it would keep images without their masks
    fitted = fit(job)
    maps = job.modules(fitted)
    encode = _encoder(job, maps)
    heads = stored_heads(job)
    if heads is None:
        heads = fit_heads(job, encode)
        job.folder.write(contents.HEADS, heads.encoded())
    confusions, tested = _tested(job, encode, heads)
    costs = Costs(job.backbone, maps)
    return _rows(job, fitted, costs, heads, confusions, tested), list(_of_classes(job, fitted, confusions))


def _encoder(job: Job, maps: Modules) -> Encode:
    encoder = Encoder(job.backbone, job.variants, maps, whole=True)

    @torch.inference_mode()
    def encode(pixels: Tensor) -> list[Tensor]:
        return [job.backbone.patches(latent) for latent in encoder(pixels).unbind(1)]

    return encode


def _tested(job: Job, encode: Encode, heads: Heads) -> tuple[np.ndarray, int]:
    """How many pixels of each class were taken for which (P, 256, 256), truth first, and the number of images."""
    device = job.compute.device
    weight, bias = (torch.from_numpy(each).to(device) for each in (heads.weight, heads.bias))
    numbers = torch.from_numpy(heads.numbers).to(device)

    def one_pass(size: int) -> tuple[Tensor, int]:
        found, used = torch.zeros(len(job.variants), VALUES, VALUES, dtype=torch.int64), 0
        for positions, pixels, masks in masked_batches(job, "segment test", job.data.test, size):
            for plan, tokens in enumerate(encode(pixels)):
                logits = tokens.float() @ weight[plan] + bias[plan]
                if not torch.isfinite(logits).all():
                    raise job.not_finite(f"The logits of plan {job.variants[plan]}")
                found[plan] += confusion(logits, numbers, masks, job.backbone.grid).cpu()
            used += len(positions)
        return found, used

    found, used = in_passes(job, one_pass)
    if used == 0 or not found[0].any():
        raise ToastError(
            "No pixel of the test images has a class: repair the images and masks, or give another data.path."
        )
    return found.numpy(), used


@torch.inference_mode()
def confusion(logits: Tensor, numbers: Tensor, masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """How many pixels of each class are taken for which, (256, 256), truth first; pixels without a class are left out.

    Args:
        logits: of each patch (N, p, K), for the classes ``numbers`` (K,).
        masks: class numbers (N, H, W), to whose size logits are enlarged bilinearly.
        grid: the numbers of patches (h, w) below and beside each other.
    """
    found = torch.zeros(VALUES**2, dtype=torch.int64, device=masks.device)
    for each, mask in zip(logits, masks, strict=True):  # (p, K), (H, W): the logits of one image's pixels at a time
        small = each.T.reshape(1, -1, *grid)
        large = F.interpolate(small, size=mask.shape, mode="bilinear", align_corners=False)[0]  # (K, H, W)
        predicted, known = numbers[large.argmax(0)], mask != IGNORED
        found += torch.bincount(mask[known].long() * VALUES + predicted[known], minlength=VALUES**2)
    return found.view(VALUES, VALUES)


def ious(confused: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, (256,), from pixels by truth and prediction (256, 256); nan for classes without pixels."""
    right, pixels = np.diag(confused), confused.sum(1)
    with np.errstate(invalid="ignore"):
        return np.where(pixels > 0, right / (pixels + confused.sum(0) - right), np.nan)


def _rows(job: Job, fitted: Fitted, costs: Costs, heads: Heads, confusions: np.ndarray, tested: int) -> list[Segmented]:
    scores = [(float(np.nanmean(ious(each))), float(np.trace(each) / each.sum())) for each in confusions]
    (miou, accuracy), fields = scores[0], Segmented.__dataclass_fields__
    found = []
    for variant, head, (own, pixels) in zip(job.variants, heads.penalty.tolist(), scores, strict=True):
        shared = {key: value for key, value in variant_columns(job, fitted, variant, costs).items() if key in fields}
        measured = {
            "train_images": heads.train_images,
            "test_images": tested,
            "classes": int((confusions[0].sum(1) > 0).sum()),
            "penalty": head,
            "miou": own,
            "miou_original": miou,
            "miou_delta": own - miou,
            "pixel_accuracy": pixels,
            "pixel_accuracy_original": accuracy,
            "pixel_accuracy_delta": pixels - accuracy,
        }
        found.append(Segmented(**shared, **measured))
    return found


def _of_classes(job: Job, fitted: Fitted, confusions: np.ndarray) -> Iterator[ClassIou]:
    original = ious(confusions[0])
    for variant, each in zip(job.variants, confusions, strict=True):
        own = ious(each)
        for number in np.flatnonzero(each.sum(1) > 0).tolist():
            yield ClassIou(
                plan=str(variant.plan),
                fit_images=fitted.images_used[variant.fit_images] if variant.maps else 0,
                sequential=variant.sequential,
                healed=variant.healed,
                number=number,
                name=job.data.classes[number],
                test_pixels=int(each[number].sum()),
                iou=float(own[number]),
                iou_original=float(original[number]),
                iou_delta=float(own[number] - original[number]),
            )
