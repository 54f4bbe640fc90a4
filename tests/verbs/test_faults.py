"""What stops a run halfway: memory, disks, images and weights."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import SMALL, save_image_folder
from toast_cli.models.weight_files import checkpoint_path
from toast_cli.probes import batched as probes
from toast_cli.runs import features
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.stages import walk as encode


def test_memory_that_runs_out_halves_the_batch(toast, tmp_path, monkeypatch):
    assert toast("run", *SMALL, "hydra.run.dir=reference")[0] == 0
    walk, look = encode.Encoder.__call__, encode.latents

    def limited(function):
        def call(self, x, *rest):
            if len(x) > 20:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return function(self, x, *rest)

        return call

    monkeypatch.setattr(encode.Encoder, "__call__", limited(walk))
    monkeypatch.setattr("toast_cli.stages.fit.latents", limited(look))
    status, _, err = toast("run", *SMALL, "hydra.run.dir=here", "batch_size=64")
    assert status == 0
    assert "Memory ran out with 64 images at a time: continuing with 32." in err
    assert "Memory ran out with 32 images at a time: continuing with 16." in err
    for one, other in zip(
        read_csv(tmp_path / "reference" / "results.csv", Row),
        read_csv(tmp_path / "here" / "results.csv", Row),
        strict=True,
    ):
        assert one.accuracy == other.accuracy


def test_memory_that_runs_out_elsewhere_is_named(toast, monkeypatch):
    monkeypatch.setattr(probes.LinearProbe, "fit", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    status, _, err = toast("run", *SMALL)
    assert status == 1
    assert re.search(r"toast: Memory ran out( \(.+\))?: use a smaller batch_size=", err)


def test_a_full_disk_loses_nothing(toast, tmp_path, monkeypatch):
    write = features.FeatureFile.write

    def full(self, first, values):
        if self.path.name == "test.f32":
            raise OSError(28, "No space left on device", str(self.path))
        write(self, first, values)

    monkeypatch.setattr(features.FeatureFile, "write", full)
    status, _, err = toast("run", *SMALL, "hydra.run.dir=here")
    assert status == 1
    assert f"toast: No space left on device ({tmp_path}/here/features/test.f32; " in err
    assert " are free there): make room, or give another place" in err
    monkeypatch.setattr(features.FeatureFile, "write", write)
    status, _, err = toast("run", *SMALL, "hydra.run.dir=here")
    assert status == 0
    assert "encode train" not in err


def test_a_disk_too_small_is_said_before_the_work(toast, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 1000})())
    status, _, err = toast("run", *SMALL)
    assert status == 1
    assert re.search(r"toast: The features need \d+ kB in .+, which has 1.0 kB free: ", err)
    assert (
        "make room, ask for fewer spans= or data.train_images=, or give another place with hydra.run.dir=<dir>." in err
    )


def test_bad_images_stop_the_run_or_are_left_out(toast, tmp_path):
    root = save_image_folder(tmp_path / "set", per_class=8, size=40)
    for name in ("train/kind0/1.png", "test/kind1/2.png"):
        (root / name).write_bytes((root / name).read_bytes()[:-300])
    command = ["run", "data=folder", f"data.path={root}", "data.fit_images=16", "spans=9-11", "hydra.run.dir=here"]
    status, _, err = toast(*command)
    assert status == 1
    assert f"toast: train image 1 ({root}/train/kind0/1.png) cannot be decoded" in err
    status, _, err = toast(*command, "data.skip_bad_images=true", "fresh=true")
    assert status == 0, err
    row = read_csv(tmp_path / "here" / "results.csv", Row)[1]
    assert (row.fit_images, row.train_images, row.test_images) == (15, 15, 15)
    assert "2 train and test images could not be decoded and were left out" in err


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_one_good_image_is_named(toast, tmp_path, split: str):
    root = save_image_folder(tmp_path / "set")
    for file in (root / split).rglob("*.png"):
        file.write_bytes(b"garbage")
    command = [
        "run",
        "data=folder",
        f"data.path={root}",
        "data.fit_images=6",
        "spans=9-11",
        "data.skip_bad_images=true",
    ]
    status, _, err = toast(*command)
    assert status == 1
    assert (
        f"None of the {'fit' if split == 'train' else 'train or none of the test'} images can be decoded: repair them"
        in err
    )


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (float("nan"), "has weights that are not finite numbers in blocks.5.mlp.fc2.bias: fetch or copy it again."),
        (3e38, "toast: The latents after block 9 are not finite in fp32: check the weights."),
    ],
)
def test_weights_that_are_not_finite_are_named(toast, tmp_path, value: float, sentence: str):
    weights = load_file(checkpoint_path("pkg://toast_cli/weights/digits_vit.safetensors"))
    weights["blocks.5.mlp.fc2.bias"][:] = value
    save_file(weights, tmp_path / "nan.safetensors")
    status, _, err = toast("run", *SMALL, f"model.checkpoint={tmp_path}/nan.safetensors")
    assert status == 1
    assert sentence in err
