"""The main job on the embedded model and digits: rows, resume, faults."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import SMALL, save_image_folder
from toast_cli.data.images import Split
from toast_cli.machine import device as compute
from toast_cli.probes import batched as probes
from toast_cli.runs import features
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.stages import walk as encode


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class TestResults:
    @pytest.fixture
    def done(self, toast, tmp_path):
        status, out, err = toast("run", *SMALL, "seeds=[0,1]", "hydra.run.dir=here")
        assert status == 0, err
        return tmp_path / "here", out, err

    def test_rows_plan_by_plan_and_seed_by_seed(self, done):
        table = read_csv(done[0] / "results.csv", Row)
        plans = ["none", "stem-2", "9-11", "2-3+9-11"]
        assert [(row.plan, row.seed) for row in table] == [(plan, seed) for seed in (0, 1) for plan in plans]
        assert [row.spans_start_end for row in table[:4]] == ["[]", "[[-1, 2]]", "[[9, 11]]", "[[2, 3], [9, 11]]"]
        assert [row.blocks_removed for row in table[:4]] == [0, 3, 2, 3]
        for row in table:
            assert (row.model, row.data, row.translator, row.probe) == ("digits_vit", "digits", "linear", "linear")
            assert (row.fit_images, row.train_images, row.test_images) == (0 if row.plan == "none" else 40, 96, 48)
            assert (row.fit_data, row.data_seed, row.protocol, row.readout) == ("digits", 0, "clean", "model")
            assert (row.tokens, row.solver) == ("shared", "exact")
            assert (row.precision, row.device) == ("fp32", "cpu")
            assert row.accuracy_delta == row.accuracy - row.accuracy_original
            assert row.params_ratio == row.params / row.params_original
            assert row.gflops_ratio == row.gflops / row.gflops_original
            assert row.accuracy * 48 == pytest.approx(round(row.accuracy * 48))
        assert table[0].fit_r2 is None
        assert table[0].params == table[0].params_original
        assert table[3].fit_r2 <= min(table[2].fit_r2, 1)
        assert table[1].fit_rank < 64, "the stem's latents are rank-deficient"
        assert min(row.accuracy for row in table if row.plan == "none") > 0.8, "probes are trained"

    def test_the_folder_tells_what_was_run(self, done):
        folder, out, err = done
        record = json.loads((folder / "run.json").read_text())
        assert record["complete"]
        assert set(record["seconds"]) == {"load", "fit", "encode", "probe"}
        assert {"torch", "timm", "toast", "commit"} <= set(record["versions"][0])
        assert len(record["versions"]) == 1
        assert len(record["weights"]) == len(record["data"]) == 16
        assert {path.name for path in folder.iterdir()} == {
            "config.yaml", "run.json", "results.csv", "summary.csv", "translators.safetensors", "features", ".lock",
            "predictions.safetensors", "projection.safetensors",
        }  # fmt: skip
        assert not list((folder / "features").iterdir()), "features are gone when the run is complete"
        assert out.splitlines()[-1] == str(folder / "results.csv")
        assert "2-3+9-11" in out
        assert "4 plans" in err

    def test_again_is_complete_at_once(self, done, toast, monkeypatch):
        monkeypatch.setattr("toast_cli.verbs.run.run", lambda *_: pytest.fail("there is nothing left to do"))
        before = (done[0] / "results.csv").read_bytes()
        status, out, _ = toast("run", *SMALL, "seeds=[0,1]", "hydra.run.dir=here")
        assert (status, out) == (0, done[1])
        assert (done[0] / "results.csv").read_bytes() == before

    def test_fresh_starts_over_and_gives_the_same(self, done, toast):
        before = (done[0] / "results.csv").read_bytes()
        assert "encode train" in toast("run", *SMALL, "seeds=[0,1]", "hydra.run.dir=here", "fresh=true")[2]
        assert (done[0] / "results.csv").read_bytes() == before

    def test_other_settings_do_not_overwrite(self, done, toast):
        status, _, err = toast("run", *SMALL, "seeds=[0]", "hydra.run.dir=here")
        assert status == 1
        assert "holds a run with another seeds: choose another hydra.run.dir=<dir>, or fresh=true to replace it." in err


def test_every_image_is_decoded_once(toast, monkeypatch):
    decoded: list[tuple[str, int]] = []
    original = Split.pixels

    def pixels(self, index, transform):
        decoded.append((self.name, index))
        return original(self, index, transform)

    monkeypatch.setattr(Split, "pixels", pixels)
    assert toast("run", *SMALL)[0] == 0
    assert len(decoded) == len(set(decoded))
    assert len([split for split, _ in decoded if split == "test"]) == 48
    assert 96 <= len([split for split, _ in decoded if split == "train"]) <= 136


def test_identity_leaves_nothing_in_the_blocks_place(toast, tmp_path):
    assert toast("run", *SMALL, "translator=identity", "hydra.run.dir=here")[0] == 0
    none, stem, late, _ = read_csv(tmp_path / "here" / "results.csv", Row)
    block = (none.params - late.params) // 2
    assert stem.params == none.params - 3 * block
    assert stem.fit_r2 < late.fit_r2 < 1
    assert stem.fit_rank == late.fit_rank == 64


def test_the_folder_is_named_by_what_it_computes(toast, tmp_path):
    assert toast("run", *SMALL)[0] == 0
    assert toast("run", *SMALL, "batch_size=7")[0] == 0
    assert toast("run", *SMALL, "data.seed=1")[0] == 0
    names = [path.name for path in (tmp_path / "outputs" / "run").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("digits_vit-digits-linear-") for name in names)


class TestMultirun:
    def test_each_job_in_its_own_folder_and_all_resumable(self, toast, tmp_path):
        status, out, _ = toast("run", "-m", *SMALL, "translator=identity,linear")
        assert status == 0
        paths = [line for line in out.splitlines() if line.endswith("results.csv")]
        assert [rows(Path(path))[0]["translator"] for path in paths] == ["identity", "linear"]
        assert toast("run", *SMALL, "translator=identity")[1].splitlines()[-1] == paths[0]

    def test_one_bad_job_does_not_stop_the_others(self, toast):
        status, out, err = toast(
            "run", "-m", "data.fit_images=40", "data.train_images=96", "data.test_images=48", "spans=9-12,9-11,5-3"
        )
        assert status == 1
        assert out.count("results.csv") == 1
        assert "2 runs failed; the same command tries these again." in err
        assert "span 9-12 ends at block 12" in err
        assert "span 5-3 must start before it ends" in err

    def test_unless_it_is_to_stop_there(self, toast, tmp_path):
        status, out, err = toast("run", "-m", *SMALL[:3], "spans=9-12,9-11,5-3", "fail_fast=true")
        assert (status, out) == (1, "")
        assert err == "toast: span 9-12 ends at block 12, but the model's 12 blocks are 0 to 11.\n"

    @pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
    def test_in_processes_of_their_own(self, toast, tmp_path, launcher: str):
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
        words = ["run", "-m", *SMALL[:3], "spans=9-12,9-11", f"hydra/launcher={launcher}"]
        status, _, err = toast(*words)
        assert status == 1
        assert err.endswith("toast: span 9-12 ends at block 12, but the model's 12 blocks are 0 to 11.\n")
        assert len(list(tmp_path.glob("outputs/run/*/results.csv"))) == 1
        assert not list(tmp_path.glob(".toast-failures*"))

    def test_a_launcher_that_is_not_installed(self, toast):
        status, _, err = toast("run", "-m", "hydra/launcher=ray")
        assert status == 1
        assert err.startswith(
            "toast: hydra/launcher=ray is not there: joblib, submitit_local and submitit_slurm come with pip"
        )


class TestResume:
    def reference(self, toast, tmp_path, *settings: str) -> bytes:
        assert toast("run", *SMALL, *settings, "hydra.run.dir=reference")[0] == 0
        return (tmp_path / "reference" / "results.csv").read_bytes()

    @pytest.mark.parametrize("call", range(1, 7))
    def test_from_any_batch_to_the_same_rows(self, toast, tmp_path, monkeypatch, call: int):
        expected = self.reference(toast, tmp_path, "batch_size=32")
        append, calls = features.FeatureFile.append, iter(range(1, 99))

        def killed(self, values):
            if next(calls) == call:
                append(self, values[:5])  # a write that got no further
                raise KeyboardInterrupt
            append(self, values)

        monkeypatch.setattr(features.FeatureFile, "append", killed)
        status, _, err = toast("run", *SMALL, "batch_size=32", "hydra.run.dir=here")
        assert status == (130 if call < 6 else 0)
        interrupted = "toast: Interrupted: what is finished is kept, the same command goes on from there."
        assert (interrupted in err) == (call < 6)
        encoded: list[int] = []
        monkeypatch.setattr(features.FeatureFile, "append", append)
        walk = encode.Encoder.__call__
        monkeypatch.setattr(encode.Encoder, "__call__", lambda self, x: encoded.append(len(x)) or walk(self, x))
        assert toast("run", *SMALL, "batch_size=32", "hydra.run.dir=here")[0] == 0
        assert (tmp_path / "here" / "results.csv").read_bytes() == expected
        assert sum(encoded) == max(0, 96 + 48 - 32 * (call - 1)), "finished batches are not done again"

    def test_between_seeds(self, toast, tmp_path, monkeypatch):
        expected = self.reference(toast, tmp_path, "seeds=[0,1]")
        fit = probes.LinearProbe.fit
        monkeypatch.setattr(probes.LinearProbe, "fit", lambda self, *a: fit(self, *a) if a[3] == 0 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            toast("run", *SMALL, "seeds=[0,1]", "hydra.run.dir=here")
        assert len(rows(tmp_path / "here" / "results.csv")) == 4
        seeds: list[int] = []
        monkeypatch.setattr(probes.LinearProbe, "fit", lambda self, *a: seeds.append(a[3]) or fit(self, *a))
        assert toast("run", *SMALL, "seeds=[0,1]", "hydra.run.dir=here")[0] == 0
        assert seeds == [1]
        assert (tmp_path / "here" / "results.csv").read_bytes() == expected


class TestFaults:
    def test_memory_that_runs_out_halves_the_batch(self, toast, tmp_path, monkeypatch):
        assert toast("run", *SMALL, "hydra.run.dir=reference")[0] == 0
        walk, look = encode.Encoder.__call__, encode.latents

        def limited(function):
            def call(self, x):
                if len(x) > 20:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return function(self, x)

            return call

        monkeypatch.setattr(encode.Encoder, "__call__", limited(walk))
        monkeypatch.setattr("toast_cli.stages.fit.latents", limited(look))
        status, _, err = toast("run", *SMALL, "hydra.run.dir=here", "batch_size=64")
        assert status == 0
        assert "Memory ran out with 64 images at a time: going on with 32." in err
        assert "Memory ran out with 32 images at a time: going on with 16." in err
        for one, other in zip(
            rows(tmp_path / "reference" / "results.csv"), rows(tmp_path / "here" / "results.csv"), strict=True
        ):
            assert one["accuracy"] == other["accuracy"]

    def test_memory_for_not_even_one_image(self):
        def never(batch):
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

        with pytest.raises(compute.ToastError, match="Memory ran out with a single image: use a smaller model"):
            compute.Halving(never, lambda _: None)(torch.zeros(4, 2))

    def test_a_full_disk_loses_nothing(self, toast, tmp_path, monkeypatch):
        append = features.FeatureFile.append

        def full(self, values):
            if self.path.name == "test.f32":
                raise OSError(28, "No space left on device", str(self.path))
            append(self, values)

        monkeypatch.setattr(features.FeatureFile, "append", full)
        status, _, err = toast("run", *SMALL, "hydra.run.dir=here")
        assert status == 1
        assert (
            f"toast: No space left on device ({tmp_path}/here/features/test.f32): make room, or give another place"
            in err
        )
        monkeypatch.setattr(features.FeatureFile, "append", append)
        status, _, err = toast("run", *SMALL, "hydra.run.dir=here")
        assert status == 0
        assert "encode train" not in err

    def test_bad_images_stop_the_run_or_are_left_out(self, toast, tmp_path):
        root = save_image_folder(tmp_path / "set", per_class=8, size=40)
        for name in ("train/kind0/1.png", "test/kind1/2.png"):
            (root / name).write_bytes((root / name).read_bytes()[:-300])
        command = ["run", "data=folder", f"data.path={root}", "data.fit_images=16", "spans=9-11", "hydra.run.dir=here"]
        status, _, err = toast(*command)
        assert status == 1
        assert f"toast: train image 1 ({root}/train/kind0/1.png) cannot be decoded" in err
        status, _, err = toast(*command, "data.skip_bad_images=true", "fresh=true")
        assert status == 0, err
        row = rows(tmp_path / "here" / "results.csv")[1]
        assert (row["fit_images"], row["train_images"], row["test_images"]) == ("15", "15", "15")
        assert "2 train and test images could not be decoded and were left out" in err

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_no_image_at_all(self, toast, tmp_path, split: str):
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
            f"None of the {'fit' if split == 'train' else 'train or none of the test'} images can be decoded: mend them"
            in err
        )

    def test_a_disk_too_small_is_said_before_the_work(self, toast, monkeypatch):
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 1000})())
        status, _, err = toast("run", *SMALL)
        assert status == 1
        assert "toast: The features need 0.0 GB in " in err
        assert (
            "make room, ask for fewer spans= or data.train_images=, or give another place with hydra.run.dir=<dir>."
            in err
        )

    def test_memory_that_runs_out_elsewhere(self, toast, monkeypatch):
        monkeypatch.setattr(probes.LinearProbe, "fit", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
        status, _, err = toast("run", *SMALL)
        assert status == 1
        assert "toast: Memory ran out: use a smaller batch_size=" in err

    @pytest.mark.parametrize(
        ("value", "sentence"),
        [
            (float("nan"), "has weights that are not finite numbers in blocks.5.mlp.fc2.bias: fetch or copy it anew."),
            (3e38, "toast: The latents after block 9 are not finite in fp32: check the weights."),
        ],
    )
    def test_weights_that_are_not_finite(self, toast, tmp_path, value: float, sentence: str):
        from safetensors.torch import load_file, save_file

        from toast_cli.models.factory import checkpoint_path

        weights = load_file(checkpoint_path("pkg://toast_cli/weights/digits_vit.safetensors"))
        weights["blocks.5.mlp.fc2.bias"][:] = value
        save_file(weights, tmp_path / "nan.safetensors")
        status, _, err = toast("run", *SMALL, f"model.checkpoint={tmp_path}/nan.safetensors")
        assert status == 1
        assert sentence in err


def test_bf16_is_close_and_says_so(toast, tmp_path):
    assert toast("run", *SMALL, "hydra.run.dir=fp32", "precision=fp32", "keep_features=true")[0] == 0
    assert toast("run", *SMALL, "hydra.run.dir=bf16", "precision=bf16", "keep_features=true")[0] == 0
    assert {row["precision"] for row in rows(tmp_path / "bf16" / "results.csv")} == {"bf16"}
    one, other = (
        np.memmap(tmp_path / precision / "features" / "test.f32", np.float32, "r", shape=(48, 4, 64))
        for precision in ("fp32", "bf16")
    )
    assert 1e-5 < np.linalg.norm(one - other) / np.linalg.norm(one) < 0.01


def test_the_untouched_model_reads_held_out_digits(toast, tmp_path):
    assert toast("run", "spans=[10-11,0-4]", "hydra.run.dir=linear")[0] == 0
    none, late, early = rows(tmp_path / "linear" / "results.csv")
    assert int(none["test_images"]) == 360
    assert float(none["accuracy"]) >= 0.95
    assert float(late["accuracy_delta"]) > -0.015, "some spans are free"
    assert float(early["accuracy_delta"]) < -0.04, "some are not"


@pytest.mark.slow
def test_real_weights_and_images(toast, assets, tmp_path):
    status, _, err = toast(
        "run",
        "model=dinov2_s",
        f"model.checkpoint={assets}/weights/dinov2_s_saliency.safetensors",
        "model.label=saliency",
        "data=cifar10",
        f"data.path={assets}/cifar10_sample",
        "data.fit_images=8",
        "data.train_images=24",
        "data.test_images=10",
        "spans=[9-11,stem-0]",
        "precision=fp32",
        "hydra.run.dir=here",
    )
    assert status == 0, err
    none, late, _ = read_csv(tmp_path / "here" / "results.csv", Row)
    d = 384
    assert none.params == 14 * 14 * 3 * d + d + d + 257 * d + 12 * (12 * d * d + 15 * d) + 2 * d
    assert late.params == none.params - 2 * (12 * d * d + 15 * d) + d * d
    assert 0.9 < late.fit_r2 < 1


def test_auto_stands_for_the_same_precision_when_a_run_goes_on(toast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("toast_cli.machine.device._NARROW", 1)
    monkeypatch.setattr("toast_cli.machine.device._faster_in_bf16", lambda device, width: True)
    monkeypatch.setattr("toast_cli.stages.probe.score", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        toast("run", *SMALL, "hydra.run.dir=here")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert toast("run", *SMALL, "hydra.run.dir=here")[0] == 0
    assert {row["precision"] for row in rows(tmp_path / "here" / "results.csv")} == {"bf16"}


class TestFeaturesFrom:
    @pytest.fixture
    def kept(self, toast):
        assert toast("run", *SMALL, "keep_features=true", "hydra.run.dir=kept")[0] == 0

    def test_another_probe_encodes_nothing(self, kept, toast, tmp_path, monkeypatch):
        assert toast("run", *SMALL, "probe=knn", "seeds=[3]", "hydra.run.dir=plain")[0] == 0
        monkeypatch.setattr(encode.Encoder, "__call__", lambda *_: pytest.fail("nothing is to be encoded"))
        status, _, err = toast("run", *SMALL, "probe=knn", "seeds=[3]", "features_from=kept", "hydra.run.dir=here")
        assert status == 0, err
        assert (tmp_path / "here" / "results.csv").read_text() == (tmp_path / "plain" / "results.csv").read_text()
        assert not list((tmp_path / "here" / "features").iterdir())
        assert len(list((tmp_path / "kept" / "features").iterdir())) == 2, "the other run's stay"

    def test_only_probe_and_seeds_may_differ(self, kept, toast):
        status, _, err = toast("run", *SMALL, "data.seed=1", "features_from=kept", "hydra.run.dir=here")
        assert status == 1
        assert (
            err.strip()
            == "toast: features_from=kept has another data.seed: only probe and seeds may differ from a complete run's."
        )

    def test_a_folder_without_features(self, toast):
        status, _, err = toast("run", *SMALL, "features_from=nowhere", "hydra.run.dir=here")
        assert status == 1
        assert (
            "features_from=nowhere holds no features: give the folder of a run that was made with keep_features=true."
            in err
        )
