"""Translators without a closed form: small networks trained on the latents of the fit images.

The latents are on disk and are read chunk by chunk. Each step of Adam uses all tokens (full batch), adding up the gradients
of the chunks, so that memory does not grow with the number of images.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toast_cli.layers import Residual
from toast_cli.translators.allowed import check
from toast_cli.translators.base import BaseTranslator

_CHUNK = 2**22  # elements of a latent that are read at a time

Advance = Callable[[int], None]


class LatentFile:
    """X^(i) of the fit images on disk, float32 ``shape`` (N, T, D); only the tokens in ``group`` are read."""

    def __init__(
        self, path: Path, shape: tuple[int, int, int], device: torch.device, group: slice = slice(None)
    ) -> None:
        self.path, self.shape, self.device, self.group = path, shape, device, group
        self.width = shape[2]

    def __len__(self) -> int:
        return self.shape[0]

    def of(self, group: slice) -> "LatentFile":
        """The same latents (N, T, D), only the tokens in ``group``."""
        return LatentFile(self.path, self.shape, self.device, group)

    def chunks(self) -> Iterator[Tensor]:
        """Rows (N, D), the tokens of a few images at a time, in order."""
        images, tokens, width = self.shape
        stored = np.memmap(self.path, np.float32, "r", shape=self.shape)
        size = max(_CHUNK // (tokens * width), 1)
        for start in range(0, images, size):
            part = np.array(stored[start : start + size, self.group]).reshape(-1, width)
            yield torch.from_numpy(part).to(self.device)

    def variation(self) -> float:
        """Σ ‖x − mean x‖²."""
        count, total, squares = 0, torch.zeros(self.width, dtype=torch.float64), 0.0
        for chunk in self.chunks():
            wide = chunk.cpu().double()
            count, total, squares = count + len(wide), total + wide.sum(0), squares + wide.square().sum().item()
        return squares - total.square().sum().item() / count


class TrainedTranslator(BaseTranslator):
    """T(x) = net(x), net = argmin of the mean of (y − net(x))² by ``steps`` full-batch steps of Adam at ``learning_rate``.

    Raises ToastError for invalid settings.

    Learned:
        net_: the weights of the network by name. width_: D.
    """

    solver = "adam"
    net_: dict[str, Tensor]
    width_: int

    def __init__(self, learning_rate: float = 1e-3, steps: int = 300, seed: int = 0, tokens: str = "shared") -> None:
        super().__init__(tokens)
        check(learning_rate=learning_rate, steps=steps, seed=seed)
        self.learning_rate, self.steps, self.seed = learning_rate, steps, seed

    def network(self, width: int) -> nn.Module:
        """The untrained network, (…, D) -> (…, D)."""
        raise NotImplementedError

    def fit(self, x: LatentFile, y: LatentFile, advance: Advance = lambda images: None) -> Self:
        """Train the network to predict ``y`` (N, T, D) from ``x`` (N, T, D); ``advance`` is called with N after every step."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = self.network(x.width).to(x.device)
        elements = len(x) * len(range(x.shape[1])[x.group]) * x.width
        optimizer = torch.optim.Adam(net.parameters(), lr=self.learning_rate)
        for _ in range(self.steps):
            optimizer.zero_grad()
            for source, target in zip(x.chunks(), y.chunks(), strict=True):
                (F.mse_loss(net(source), target, reduction="sum") / elements).backward()
            optimizer.step()
            advance(len(x))
        self.width_ = x.width
        self.net_ = {name: value.detach().cpu() for name, value in net.state_dict().items()}
        with torch.no_grad():
            pairs = zip(x.chunks(), y.chunks(), strict=True)
            error = sum((target - net(source)).square().sum().item() for source, target in pairs)
        return self.scored(error, y.variation(), x.width)

    def to_module(self) -> nn.Module:
        net = self.network(self.width_)
        net.load_state_dict(self.net_)
        return net.requires_grad_(False)

    def example(self, width: int) -> nn.Module:
        return self.network(width).requires_grad_(False)

    def learned(self) -> dict[str, Any]:
        plain = {name: value for name, value in super().learned().items() if name != "net_"}
        return plain | {f"net/{name}": value for name, value in getattr(self, "net_", {}).items()}

    def restore(self, learned: dict[str, Any]) -> Self:
        inside = {key: value for key, value in learned.items() if key.startswith("net/")}
        self.net_ = {key.removeprefix("net/"): value for key, value in inside.items()}
        return super().restore({key: value for key, value in learned.items() if key not in inside})


class Mlp(TrainedTranslator):
    """Linear D -> D/2, GELU, Linear D/2 -> D."""

    name = "mlp"

    def network(self, width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, width))


class DeepMlp(TrainedTranslator):
    """LayerNorm, h + Linear(SiLU(Linear(h))), LayerNorm; width D throughout."""

    name = "deep_mlp"

    def network(self, width: int) -> nn.Module:
        inside = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        return nn.Sequential(nn.LayerNorm(width), Residual(inside), nn.LayerNorm(width))
