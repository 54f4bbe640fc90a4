"""The method as its paper tells it, written plainly and apart from ours: hooks, stacked tokens, least squares, one span at a time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn

from toast_cli.registry import CONF
from toast_cli.runs.features import FeatureFile
from toast_cli.runs.naming import register_resolvers
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row

PAPERS_SPANS = [(s, e) for s in range(11) for e in range(s + 1, 12)]


class Plainly:
    """A timm model, and the images of each split as it wants them."""

    def __init__(self, overrides: list[str]) -> None:
        register_resolvers()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", overrides)
        self.backbone, self.data = instantiate(cfg.model, _convert_="all"), instantiate(cfg.data, _convert_="all")
        self.vit = self.backbone.vit

    def images(self, images) -> Tensor:
        mean, std = self.vit.pretrained_cfg["mean"], self.vit.pretrained_cfg["std"]
        pixels = torch.cat([batch.pixels for batch in images.batches(self.backbone.transform, 32)]).float() / 255
        return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    @torch.no_grad()
    def tokens(self, images: Tensor) -> list[Tensor]:
        """The output of each block, all tokens of all images stacked."""
        seen: list[list[Tensor]] = [[] for _ in self.vit.blocks]
        hooks = [
            block.register_forward_hook(lambda _, arguments, output, kept=kept: kept.append(output.flatten(0, 1)))
            for block, kept in zip(self.vit.blocks, seen, strict=True)
        ]
        for batch in images.split(32):
            self.vit(batch)
        for hook in hooks:
            hook.remove()
        return [torch.cat(kept) for kept in seen]

    @torch.no_grad()
    def encode(self, images: Tensor, span: tuple[int, int] | None, weight: Tensor | None = None) -> Tensor:
        """Class tokens after the final norm; blocks s+1 … e replaced by x -> x W."""
        features = []
        for x in images.split(32):
            x = self.vit.norm_pre(self.vit._pos_embed(self.vit.patch_embed(x)))
            for i, block in enumerate(self.vit.blocks):
                if span is not None and i == span[0] + 1:
                    x = x @ weight
                if span is None or not span[0] < i <= span[1]:
                    x = block(x)
            features.append(self.vit.norm(x)[:, 0])
        return torch.cat(features)


def probe(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor, classes: int) -> int:
    """How many test images a linear layer names rightly after five epochs of Adam."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(train.shape[1], classes)
    bound = train.shape[1] ** -0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    for _ in range(5):
        for batch in torch.randperm(len(train), generator=generator).split(256):
            optimizer.zero_grad()
            F.cross_entropy(layer(train[batch]), labels[batch]).backward()
            optimizer.step()
    return int((layer(test).argmax(1) == truth).sum())


def compare(toast: Callable, folder: Path, overrides: list[str], spans: list[tuple[int, int]]) -> None:
    texts = ",".join(f"{s}-{e}" for s, e in spans)
    words = [*overrides, "precision=fp32", "device=cpu"]
    status, _, err = toast(
        "run", *words, f"spans=[{texts}]", "keep_features=true", f"hydra.run.dir={folder}", "batch_size=32"
    )
    assert status == 0, err
    rows = read_csv(folder / "results.csv", Row)
    plainly = Plainly(overrides)
    data, vit = plainly.data, plainly.vit
    stacked = plainly.tokens(plainly.images(data.fit[0]))
    images = {name: plainly.images(getattr(data, name)) for name in ("train", "test")}
    labels = {name: torch.from_numpy(getattr(data, name).labels) for name in ("train", "test")}
    kept = {
        name: FeatureFile(folder / "features" / f"{name}.f32", len(images[name]), len(rows), vit.num_features).read()
        for name in images
    }
    for number, span in enumerate([None, *spans]):
        weight = None
        if span is not None:
            x, y = (stacked[layer].double() for layer in span)
            weight = torch.linalg.lstsq(x, y, driver="gelsd").solution.float()
        features = {name: plainly.encode(images[name], span, weight) for name in images}
        for name, found in features.items():
            ours = torch.from_numpy(np.array(kept[name].of_plan(number)))
            assert ((found - ours).norm() / found.norm()).item() < 1e-3, (span, name)
        right = probe(features["train"], labels["train"], features["test"], labels["test"], len(data.classes))
        assert abs(right - rows[number].accuracy * len(images["test"])) <= 2, span


@pytest.mark.slow
def test_every_span_of_the_embedded_model_agrees(toast, tmp_path):
    overrides = ["data.fit_images=200", "data.train_images=300", "data.test_images=100"]
    compare(toast, tmp_path / "here", overrides, PAPERS_SPANS)


@pytest.mark.slow
def test_real_weights_agree(toast, tmp_path, assets):
    overrides = [
        "model=dinov2_s",
        f"model.checkpoint={assets}/weights/dinov2_s_saliency.safetensors",
        "data=cifar10",
        f"data.path={assets}/cifar10_sample",
        "data.fit_images=8",
        "data.train_images=12",
        "data.test_images=12",
    ]
    compare(toast, tmp_path / "here", overrides, [(4, 9), (0, 2)])
