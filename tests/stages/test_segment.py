"""mIoU of every plan: heads against stacked least squares, pixels and classes counted one by one."""

import csv
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.conftest import tiny
from tests.scenes import BORDER, encoded, save_scenes
from toast_cli.data import dataset as data
from toast_cli.data.images import BadImage
from toast_cli.data.masked import MaskedSplit, read_mask
from toast_cli.errors import ToastError
from toast_cli.models import factory as models
from toast_cli.models.preprocessing import to_mask, to_pixels
from toast_cli.stages import segment
from toast_cli.stages.heads import PENALTIES, Both, shares_of
from toast_cli.stages.segment import confusion, ious

WORDS = ["eval=segmentation", "data=folder", "data.label=scenes", "data.fit_images=10", "spans=[9-11]", "device=cpu"]
Toast = Callable[..., tuple[int, str, str]]


def loaded(path: Path, **settings: object) -> data.Data:
    return data.load("scenes", None, path=str(path), masks=True, **{"fit_images": 4, **settings})


def enlarged(small: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w, K) -> (H, W, K), bilinear between the centres of pixels, from the formula."""

    def ways(count: int, wanted: int) -> list[tuple[int, int, float]]:
        places = [min(max((i + 0.5) * count / wanted - 0.5, 0), count - 1) for i in range(wanted)]
        return [(int(place), min(int(place) + 1, count - 1), place - int(place)) for place in places]

    found = np.empty((*size, small.shape[2]))
    for i, (above, below, down) in enumerate(ways(small.shape[0], size[0])):
        for j, (left, right, along) in enumerate(ways(small.shape[1], size[1])):
            upper, lower = (small[row, left] * (1 - along) + small[row, right] * along for row in (above, below))
            found[i, j] = upper * (1 - down) + lower * down
    return found


def counted(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """mIoU over the classes of the truth, and pixel accuracy, both (M,) without pixels that have no class: set by set."""
    shares = []
    for number in sorted(set(truth.tolist())):
        own, given = (set(np.flatnonzero(each == number).tolist()) for each in (truth, predicted))
        shares.append(len(own & given) / len(own | given))
    return sum(shares) / len(shares), sum(a == b for a, b in zip(truth, predicted, strict=True)) / len(truth)


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """W and b by least squares on stacked rows: unit variance, a row of √(λ n) for each dimension, no penalty on b."""
    mean, scale = x.mean(0), x.std(0)
    z = (x - mean) / scale
    rows = np.concatenate([z, np.sqrt(penalty * len(x)) * np.eye(x.shape[1])])
    target = np.concatenate([y - y.mean(0), np.zeros((x.shape[1], y.shape[1]))])
    weight = np.linalg.lstsq(rows, target, rcond=None)[0] / scale[:, None]
    return weight, y.mean(0) - mean @ weight


def by_hand(path: Path, backbone: models.Backbone) -> tuple[float, float, float]:
    """mIoU, pixel accuracy and penalty of the untouched model, from its own forward pass."""
    rows, sides = {}, backbone.vit.patch_embed.grid_size
    seen: list[torch.Tensor] = []
    backbone.vit.norm.register_forward_hook(lambda _, inputs, output: seen.append(output))
    for split in ("train", "test"):
        for number, row in enumerate(
            datasets.load_dataset("parquet", data_files=str(path / f"{split}.parquet"))["train"]
        ):
            backbone.vit(backbone.normalise(backbone.transform(row["image"].convert("RGB"))[None]))
            tokens = seen.pop()[0, backbone.prefix_tokens :].double().numpy()
            mask = to_mask(backbone.preprocessing)(Image.fromarray(np.asarray(row["mask"])))[0].numpy()
            rows[split, number] = tokens, mask
    x, y, held = [], [], []
    for (split, number), (tokens, mask) in rows.items():
        if split == "train":
            for patch, token in enumerate(tokens):
                i, j = divmod(patch, sides[1])
                high, wide = mask.shape[0] // sides[0], mask.shape[1] // sides[1]
                inside = mask[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
                if (inside != BORDER).any():
                    x.append(token)
                    y.append([(inside == number).sum() / (inside != BORDER).sum() for number in range(3)])
                    held.append(number % 5 == 4)
    x, y, held = np.array(x), np.array(y), np.array(held)
    errors = []
    for penalty in PENALTIES:
        weight, bias = ridge(x[~held], y[~held], penalty)
        errors.append(np.square(y[held] - x[held] @ weight - bias).sum())
    penalty = PENALTIES[int(np.argmin(errors))]
    weight, bias = ridge(x, y, penalty)
    truth, predicted = [], []
    for (split, _), (tokens, mask) in rows.items():
        if split == "test":
            logits = (tokens @ weight + bias).reshape(*sides, 3)
            truth.append(mask[mask != BORDER])
            predicted.append(enlarged(logits, mask.shape).argmax(2)[mask != BORDER])
    return (*counted(np.concatenate(truth), np.concatenate(predicted)), penalty)


@pytest.mark.slow
def test_a_run_from_its_definition_after_a_kill_before_the_test_images(
    tmp_path: Path, toast: Toast, monkeypatch: pytest.MonkeyPatch
):
    path = save_scenes(tmp_path / "scenes")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(segment, "_tested", killed)
        assert toast("run", *WORDS, f"data.path={path}")[0] == 130
    with monkeypatch.context() as stopped:
        stopped.setattr(segment, "fit_heads", killed)  # they are not fitted again
        status, out, err = toast("run", *WORDS, f"data.path={path}")
    assert status == 0, err
    assert "mIoU" in out
    with Path(out.splitlines()[-1]).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["plan"] for row in rows] == ["none", "9-11"]
    miou, accuracy, penalty = by_hand(path, _digits())
    assert float(rows[0]["miou"]) == pytest.approx(miou, abs=2e-3)
    assert float(rows[0]["pixel_accuracy"]) == pytest.approx(accuracy, abs=2e-3)
    assert float(rows[0]["penalty"]) == penalty
    assert float(rows[1]["miou_delta"]) == float(rows[1]["miou"]) - float(rows[0]["miou"])
    assert (rows[0]["train_images"], rows[0]["test_images"], rows[0]["classes"]) == ("20", "8", "3")
    with Path(out.splitlines()[-1]).with_name("segmentation_classes.csv").open() as file:
        of_classes = [row for row in csv.DictReader(file) if row["plan"] == "none"]
    assert sum(float(row["iou"]) for row in of_classes) / 3 == pytest.approx(float(rows[0]["miou"]))
    assert [row["number"] for row in of_classes] == ["0", "1", "2"]
    run = str(Path(out.splitlines()[-1]).parent)
    for words in (["report", run], ["check", run, "--baseline", run], ["export", run, "plan=9-11"]):
        told = f"toast: {run} is a run with eval=segmentation, whose numbers are in its segmentation.csv: give a run of images by class.\n"
        assert toast(*words)[2] == told


def _digits() -> models.Backbone:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from toast_cli.registry import CONF
    from toast_cli.runs.naming import register_resolvers
    from toast_cli.stages.load import make

    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return make(compose("config"), "model")


def test_shares_of_a_patch_count_its_pixels():
    generator = np.random.default_rng(0)
    masks = generator.choice([0, 1, 2, BORDER], (2, 6, 8)).astype(np.uint8)
    masks[1, :3, 4:] = BORDER
    found = shares_of(torch.from_numpy(masks), (2, 2), 4)
    for n in range(2):
        for i in range(2):
            for j in range(2):
                inside = masks[n, 3 * i : 3 * i + 3, 4 * j : 4 * j + 4].ravel().tolist()
                known = max(sum(value != BORDER for value in inside), 1)
                expected = [inside.count(number) / known for number in range(4)]
                assert found[n, 2 * i + j].tolist() == pytest.approx(expected)
    assert found[1, 1].sum() == 0


def test_a_patch_s_logits_become_classes_of_pixels():
    generator = np.random.default_rng(0)
    logits, numbers = generator.normal(size=(2, 6, 3)).astype(np.float32), [0, 4, 7]
    masks = generator.choice([0, 4, 7, 9, BORDER], (2, 8, 12)).astype(np.uint8)
    found = confusion(torch.from_numpy(logits), torch.tensor(numbers), torch.from_numpy(masks), (2, 3)).numpy()
    predicted = np.stack([enlarged(each.reshape(2, 3, 3), (8, 12)).argmax(2) for each in logits])
    expected = np.zeros((256, 256), int)
    for truth, own in zip(masks.ravel(), predicted.ravel(), strict=True):
        if truth != BORDER:
            expected[truth, numbers[own]] += 1
    assert (found == expected).all()
    known = masks != BORDER
    miou, _ = counted(masks[known], np.array(numbers)[predicted[known]])
    assert np.nanmean(ious(found)) == pytest.approx(miou)
    assert np.flatnonzero(~np.isnan(ious(found))).tolist() == [0, 4, 7, 9]


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(40, 30), (30, 41), (700, 20)])
def test_a_mask_is_cropped_like_its_image(mode: str, size: tuple[int, int]):
    """A picture that shows the mask's numbers, without interpolation, is the mask."""
    values = np.random.default_rng(0).integers(0, 256, size[::-1]).astype(np.uint8)
    settings = {
        "input_size": (3, 24, 24),
        "interpolation": "nearest",
        "crop_pct": 0.9,
        "crop_mode": mode,
        "mean": (1.0,) * 3,
    }
    shown = to_pixels(settings)(Image.fromarray(np.stack([values] * 3, 2)))
    mask = to_mask({**settings, "interpolation": "bicubic"})(Image.fromarray(values))
    inside = mask[0] != 255 if mode == "border" else torch.ones(24, 24, dtype=torch.bool)
    assert mask.shape == (1, 24, 24)
    assert torch.equal(mask[0][inside], shown[0][inside])
    assert set(mask.unique().tolist()) <= {*values.ravel().tolist(), 255}


def test_masks_are_the_numbers_that_are_stored():
    values = np.array([[0, 1, 254], [255, 2, 0]], np.uint8)
    palette = Image.fromarray(values, "P")
    palette.putpalette([7] * 768)
    for image in (palette, Image.fromarray(values), Image.fromarray(values.astype(np.uint16))):
        assert (np.asarray(read_mask(encoded(image, "PNG"), 100)) == values).all()
    assert (np.asarray(read_mask(encoded(Image.fromarray(values > 1), "PNG"), 100)) == (values > 1)).all()
    with pytest.raises(
        ValueError, match=r"its pixels are colours \(mode RGB\), and a mask has a class number for each"
    ):
        read_mask(encoded(palette.convert("RGB"), "PNG"), 100)
    with pytest.raises(ValueError, match="it has values from 0 to 300, and class numbers are 0 to 255"):
        read_mask(encoded(Image.fromarray(np.array([[0, 300]], np.uint16)), "PNG"), 100)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_mask_comes_with_the_pixels(streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found, backbone = loaded(save_scenes(tmp_path), streaming=streaming), tiny()
    both = Both(backbone.transform, to_mask(backbone.preprocessing))
    batch = next(iter(found.train.batches(both, 3)))
    assert batch.pixels.shape == (3, 4, 32, 32)
    assert {*batch.pixels[:, 3].unique().tolist()} == {0, 1, 2, BORDER}
    assert next(iter(found.fit[0].batches(backbone.transform, 3))).pixels.shape == (3, 3, 32, 32)
    counts: list[int] = []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, i, **how: counts.append(i) or read(self, i, **how)
    )
    list(loaded(tmp_path, streaming=streaming).train.batches(both, 3))
    assert len(counts) == 2 * streaming, "a row group is read once for images and once for masks"
    assert len({found.fingerprint(), loaded(tmp_path, streaming=streaming, seed=1).fingerprint()}) == 2


def split_of(image: Image.Image, mask: Image.Image, **settings: int) -> MaskedSplit:
    stored = {"image": [{"bytes": encoded(image, "PNG")}], "mask": [{"bytes": encoded(mask, "PNG")}]}
    features = datasets.Features(image=datasets.Image(decode=False), mask=datasets.Image(decode=False))
    return MaskedSplit("train", datasets.Dataset.from_dict(stored, features), "image", mask_column="mask", **settings)


def test_what_is_no_mask_of_its_image():
    backbone, image = tiny(), Image.new("RGB", (9, 8))
    both = Both(backbone.transform, to_mask(backbone.preprocessing))
    found = split_of(image, Image.new("L", (8, 9))).pixels(0, both)
    assert found == BadImage("train image 0", "it has 9 × 8 pixels, and its mask 8 × 9")
    found = split_of(image, Image.new("RGB", (9, 8))).pixels(0, both)
    assert isinstance(found, BadImage)
    assert found.reason.startswith("its mask: its pixels are colours (mode RGB)")
    told = (
        "The mask of train image 0 has the class 3, and data.classes names 0 to 1: name all classes in their order; 255"
    )
    with pytest.raises(ToastError, match=told):
        split_of(image, Image.new("L", (9, 8), 3), classes=2).pixels(0, both)


def test_columns_of_masks(tmp_path: Path):
    path = save_scenes(tmp_path)
    for settings, told in (
        (
            {"label_column": "masks"},
            r"data.label_column=masks holds no images \(did you mean mask\?\), and masks are images",
        ),
        (
            {"label_column": "image"},
            r"columns are image \(Image\), mask \(Image\), and eval=segmentation needs one of images",
        ),
        (
            {"classes": []},
            r"data.classes=\[\] does not name classes: give a list of 1 to 255 names in the order of their num",
        ),
    ):
        with pytest.raises(ToastError, match=told):
            loaded(path, **settings)
    assert loaded(path, classes=["a", "b", "c"]).classes == ("a", "b", "c")


def test_what_a_run_with_masks_cannot_have(toast: Toast, tmp_path: Path):
    for words, told in (
        (
            ["eval=miou"],
            "eval=miou is not known: use classification (a class for each image), or segmentation (one for each pixel).",
        ),
        (
            ["eval=segmentation", "dry=true"],
            "dry is not for eval=segmentation: leave it out, or use eval=classification.",
        ),
        (
            ["eval=segmentation", "sweep=race"],
            "sweep is not for eval=segmentation: leave it out, or use eval=classification.",
        ),
    ):
        status, _, err = toast("run", *words)
        assert (status, err) == (1, f"toast: {told}\n")
    status, _, err = toast("search", "eval=segmentation")
    assert (status, err.count("\n")) == (1, 1)
