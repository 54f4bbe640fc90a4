"""Train the embedded model: 12 blocks of width 64 on the 1 437 train digits of scikit-learn; 360 are held out.

    python scripts/train_digits_vit.py [--output toast_cli/weights/digits_vit.safetensors]
    python scripts/train_digits_vit.py --output deep.safetensors --epochs 40 model.options.depth=24    # another model

AdamW with a cosine schedule and shifts by one pixel; the last epoch's weights are kept, nothing is selected. Seeded:
the same versions on the same processor give the same file.
"""

import argparse
import math

import numpy as np
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from safetensors.torch import save_file

from toast_cli.data.images import Images
from toast_cli.registry import CONF

WARM_UP, BATCH, RATE, DECAY = 1 / 15, 64, 1e-3, 0.05  # the first as a share of all steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="toast_cli/weights/digits_vit.safetensors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument(
        "overrides", nargs="*", help="settings of toast run, for data of ten classes: model.options.depth=24 data=mnist"
    )
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        own = ["model.checkpoint=null", "model.pretrained=false", "+model.options.num_classes=10"]
        cfg = compose("config", [*own, *args.overrides])
    backbone, data = instantiate(cfg.model), instantiate(cfg.data)
    model = backbone.vit.train().requires_grad_(True)

    def tensors(images: Images) -> tuple[torch.Tensor, torch.Tensor]:
        """All images, normalised (N, 3, H, W), and their labels (N,)."""
        pixels = torch.cat([batch.pixels for batch in images.batches(backbone.transform, 256)])
        return backbone.normalise(pixels), torch.from_numpy(images.labels)

    (x, y), (test_x, test_y) = tensors(data.train), tensors(data.test)
    steps = args.epochs * math.ceil(len(x) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(step / (steps * WARM_UP), 0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    for epoch in range(args.epochs):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(shift(x[batch])), y[batch])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(
                f"epoch {epoch + 1}: loss {loss.item():.4f}, held-out accuracy {accuracy(model, test_x, test_y):.4f}",
                flush=True,
            )
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, args.output)
    print(f"wrote {args.output}: held-out accuracy {accuracy(model, test_x, test_y):.4f} on {len(test_x)} digits")


def shift(x: torch.Tensor) -> torch.Tensor:
    """Each image of (N, C, H, W) moved by −1, 0 or 1 pixels either way, its border repeated."""
    _, _, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    offsets = np.stack([torch.randint(0, 3, (len(x),)).numpy() for _ in range(2)], axis=1)
    return torch.stack([image[:, i : i + height, j : j + width] for image, (i, j) in zip(padded, offsets, strict=True)])


@torch.no_grad()
def accuracy(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of the images x (N, C, H, W) whose class y (N,) the model predicts."""
    model.eval()
    correct = (model(x).argmax(1) == y).float().mean().item()
    model.train()
    return correct


if __name__ == "__main__":
    main()
