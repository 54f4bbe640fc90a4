"""The model of a reopened run, ready to deploy: shortened, folded, with its classifier.

Shapes: N images, F features, C classes.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from toast_cli.errors import ToastError
from toast_cli.models.timm_parts import Vit, attach_head
from toast_cli.stages.encode import encode
from toast_cli.stages.reopen import Reopened
from toast_cli.surgery.folding import fold
from toast_cli.surgery.parts import Part, join, parts_of, split


def deployed(run: Reopened, with_head: bool, seed: int) -> tuple[Vit, list[Part]]:
    """The shortened model on the CPU, and its parts: (N, 3, H, W) -> logits (N, C), or features (N, F) without a head.

    The head is the probe of this ``seed``, or the fine-tuned one.
    """
    job, classes = run.job, list(run.job.data.classes)
    parts, tuned_head = parts_of(job.backbone, run.variant, job.modules(run.fitted)), None
    if run.tuned is not None:
        parts, tuned_head = _tuned(parts, run.tuned)
    parts = fold(parts)
    vit = join(parts).cpu()
    if with_head:
        head = _probe(run, seed) if tuned_head is None else tuned_head
        pooler = job.backbone.pooler
        attach_head(vit, head if pooler is None else nn.Sequential(*copy.deepcopy(pooler).cpu(), head), len(classes))
    vit.pretrained_cfg = {  # type: ignore[assignment]  # timm accepts a plain dict
        "architecture": job.backbone.recipe["name"],
        **{
            key: list(value) if isinstance(value, tuple) else value for key, value in job.backbone.preprocessing.items()
        },
        "num_classes": vit.num_classes,
        **({"label_names": classes} if with_head else {}),
    }
    return vit.eval(), parts


def _tuned(parts: Sequence[Part], path: Path) -> tuple[list[Part], nn.Linear]:
    """The same parts with the weights of a fine-tuned model, and its head, from its file.

    Raises ToastError if the file holds another model.
    """
    vit = join(parts)
    try:
        weights = safetensors.torch.load_file(path)
        vit.load_state_dict({key.removeprefix("vit."): each for key, each in weights.items() if key.startswith("vit.")})
        return split(vit, parts), _tuned_head(weights)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as e:
        raise ToastError(
            f"{path} does not hold the fine-tuned model ({type(e).__name__}): restore it, or run it again with fresh=true."
        ) from e


def _tuned_head(weights: Mapping[str, Tensor]) -> nn.Linear:
    """The fine-tuned head, (N, F) -> (N, C)."""
    classes, width = weights["head.weight"].shape
    head = nn.Linear(width, classes)
    head.load_state_dict({key: weights[f"head.{key}"] for key in ("weight", "bias")})
    return head


def _probe(run: Reopened, seed: int) -> nn.Module:
    """The plan's probe, (N, F) -> (N, C), trained again on the run's train images as the run trained it."""
    job = run.job
    encode(job, job.modules(run.fitted), ["train"])
    features = job.feature_file("train").read()
    job.probe.fit(features, job.data.train.labels[features.positions], len(job.data.classes), seed)
    return copy.deepcopy(job.probe.to_module(-1)).cpu()
