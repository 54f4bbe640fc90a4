"""Train a shortened model: the model with its head, the epochs.

The kept blocks, the final norm and the head are trained, the stem is not; the maps are trained if ``train_maps``. After
every epoch all state is on disk, and a run resumes from its last epoch with the same result.
"""

import io
import math
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toast_cli.data.images import Images
from toast_cli.errors import ToastError
from toast_cli.machine.console import progress, say
from toast_cli.machine.memory import Halving
from toast_cli.models.backbone import Backbone
from toast_cli.plans import Variant, block_of
from toast_cli.runs import contents
from toast_cli.runs.folder import Folder
from toast_cli.stages.job import Job, Modules
from toast_cli.stages.tuning import Settings
from toast_cli.surgery.shortened import shorten


class Student:
    """A shortened model with a head, to be trained: kept blocks, final norm and head, and the maps if ``train_maps``.

    Attributes:
        model: uint8 (N, 3, H, W) -> logits (N, C). In bf16 the first two blocks and the maps stay in fp32.
        encoder, head: the parameters that are trained.
    """

    def __init__(self, backbone: Backbone, variant: Variant, maps: Modules, head: nn.Linear, train_maps: bool) -> None:
        steps = variant.operations(backbone.depth)
        vit = shorten(backbone, variant, maps, folded=False)
        in_fp32 = {
            i for i, block in enumerate(map(block_of, steps)) if block is None or not backbone.multiplies_in_bf16(block)
        }
        self.model = backbone.with_vit(vit, head, backbone.block_dtype, in_fp32).to(backbone.mean.device)
        kept = [
            block for block, step in zip(vit.blocks, steps, strict=True) if train_maps or block_of(step) is not None
        ]
        self.encoder = [p for module in (*kept, vit.norm, vit.fc_norm) for p in module.parameters()]
        self.head = list(head.parameters())
        for parameter in (*self.encoder, *self.head):
            parameter.requires_grad_(True)


class Training:
    """The epochs of one seed: AdamW, a linear warm-up then a cosine, label smoothing, clipped gradients."""

    def __init__(self, job: Job, student: Student, settings: Settings, seed: int) -> None:
        self.job, self.student, self.settings, self.seed = job, student, settings, seed
        groups = [
            {"params": student.encoder, "lr": settings.encoder_rate},
            {"params": student.head, "lr": settings.learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        self.rates = [settings.encoder_rate, settings.learning_rate]

    def _of_epoch(self, epoch: int) -> str:
        return contents.weights_of_epoch(self.seed, epoch)

    def run(self, train: Images, held_out: Images) -> dict[str, Any]:
        """Train on ``train``; leaves the student with the weights of the epoch that is best on ``held_out``.

        Raises ToastError where the loss is not finite.
        """
        state = self._resume()
        for epoch in range(state["epoch"], self.settings.epochs):
            loss = self._epoch(train, epoch)
            score = accuracy(self.job, self.student, held_out, f"held out, epoch {epoch + 1}")
            say(
                f"seed {self.seed}, epoch {epoch + 1} of {self.settings.epochs}: loss {loss:.4f}, held-out accuracy {score:.4f}"
            )
            if score > state["score"]:
                state |= {"score": score, "best": epoch + 1}
                self.job.folder.write(self._of_epoch(epoch + 1), safetensors.torch.save(self._state_dict()))
            state["epoch"] = epoch + 1
            self._keep(state)
        best = self.job.folder.checked(self._of_epoch(state["best"]))
        self.student.model.load_state_dict(safetensors.torch.load_file(best))
        self.job.folder.write(contents.weights(self.seed), safetensors.torch.save(self._state_dict()))
        return {"best_epoch": state["best"], "held_out_accuracy": state["score"]}

    def _state_dict(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().contiguous() for name, value in self.student.model.state_dict().items()}

    def _keep(self, state: dict[str, Any]) -> None:
        """Save all that the next epoch needs, in a file of plain tensors and numbers."""
        buffer = io.BytesIO()
        torch.save(
            state | {"seed": self.seed, "student": self._state_dict(), "optimizer": self.optimizer.state_dict()}, buffer
        )
        self.job.folder.write(contents.EPOCH, buffer.getvalue())

    def _resume(self) -> dict[str, Any]:
        path = self.job.folder.checked(contents.EPOCH)
        fresh = {"epoch": 0, "best": 0, "score": -1.0}
        if not path.is_file():
            return fresh
        stored = torch.load(path, map_location=self.job.compute.device, weights_only=True)
        if stored["seed"] != self.seed:
            return fresh
        self.student.model.load_state_dict(stored["student"])
        self.optimizer.load_state_dict(stored["optimizer"])
        return {key: stored[key] for key in fresh}

    def _epoch(self, images: Images, epoch: int) -> float:
        """Train for one pass over the images, in an order drawn for it; returns the mean loss."""
        settings, generator = self.settings, np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(images))
        shuffled, steps, total = images.only(order), -(-len(images) // settings.batch_size), 0.0
        with progress(f"epoch {epoch + 1}", len(images)) as advance:
            for step, batch in enumerate(self.job.batches(shuffled, settings.batch_size)):
                for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                    group["lr"] = rate * self._factor(epoch + step / steps)
                mirrored = torch.from_numpy(settings.flip & (generator.random(batch.size) < 0.5))[:, None, None, None]
                pixels = torch.where(mirrored.to(batch.pixels.device), batch.pixels.flip(-1), batch.pixels)
                target = torch.from_numpy(shuffled.labels[batch.positions]).to(pixels.device)
                loss = F.cross_entropy(self.student.model(pixels), target, label_smoothing=settings.label_smoothing)
                self.optimizer.zero_grad()
                loss.backward()
                clipped = [p for group in self.optimizer.param_groups for p in group["params"]]
                nn.utils.clip_grad_norm_(clipped, settings.clip_norm)
                self.optimizer.step()
                total += loss.item() * batch.size
                advance(batch.size)
        if not math.isfinite(total):
            raise ToastError(
                f"The loss of epoch {epoch + 1} is not finite: use a smaller tune.learning_rate or precision=fp32."
            )
        return total / len(images)

    def _factor(self, epoch: float) -> float:
        """Factor on the learning rate at a fractional epoch: linear to 1 in the warm-up, then half a cosine to 0."""
        warmup, epochs = min(self.settings.warmup_epochs, self.settings.epochs), self.settings.epochs
        if epoch < warmup:
            return (epoch + 1e-3) / warmup
        return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / max(epochs - warmup, 1e-9)))


def forget(folder: Folder) -> None:
    """Remove what a resumed run would start from, once no seed is in training."""
    for file in contents.epochs_in(folder.path):
        file.unlink(missing_ok=True)


@torch.no_grad()
def accuracy(job: Job, student: Student, images: Images, label: str) -> float:
    """Share of the images whose class the student predicts correctly."""
    right, model = 0, Halving(student.model, say)
    with progress(label, len(images)) as advance:
        for batch in job.batches(images, job.batch_size):
            named = model(batch.pixels).argmax(-1).cpu().numpy()
            right += int((named == images.labels[batch.positions]).sum())
            advance(batch.size)
    return right / len(images)
