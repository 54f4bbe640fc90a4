"""toast run on the embedded model and digits: its rows, its folder, its accuracy."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import SMALL
from tests.probes.test_judged import by_hand
from toast_cli.data.images import Split
from toast_cli.probes import LinearProbe
from toast_cli.runs import contents, record
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row, Summary


@pytest.fixture
def done(toast, tmp_path):
    status, out, err = toast("run", *SMALL, "seeds=[0,1]", "hydra.run.dir=here")
    assert status == 0, err
    return tmp_path / "here", out, err


def test_rows_plan_by_plan_and_seed_by_seed(done):
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


def test_kept_probabilities_are_those_of_the_rows(done, toast):
    folder = done[0]
    before, predicted = (folder / "results.csv").read_bytes(), load_file(folder / "predictions.safetensors")
    again = ["run", *SMALL, "seeds=[0,1]", "hydra.run.dir=here"]
    status, out, _ = toast(*again, "keep_probabilities=true")
    assert (status, out) == (0, done[1])
    assert (folder / "results.csv").read_bytes() == before
    rows = read_csv(folder / "results.csv", Row)
    for seed in (0, 1):
        found = load_file(record.checked(folder / f"probabilities-seed{seed}.safetensors"))["probabilities"]
        assert (found.dtype, found.shape) == (np.float32, (4, 48, 10))
        assert np.allclose(found.sum(-1), 1, atol=1e-5)
        assert (found.argmax(-1) == predicted[f"seed{seed}"]).all()
        for row, each in zip([row for row in rows if row.seed == seed], found, strict=True):
            assert row.ece == pytest.approx(by_hand(each.max(-1), each.argmax(-1) == predicted["truth"]), abs=1e-7)
    summary = read_csv(folder / "summary.csv", Summary)
    assert summary[2].ece == pytest.approx((rows[2].ece + rows[6].ece) / 2)
    known = (folder / "run.json").stat().st_mtime_ns
    assert toast(*again, "keep_probabilities=true")[:2] == (0, out)
    assert (folder / "run.json").stat().st_mtime_ns == known, "nothing was done again"
    assert "probabilities-seed0.safetensors" in record.read_record(folder)["checksums"]
    contents.clear(folder)
    assert not list(folder.glob("prob*"))


def test_a_probe_without_probabilities_cannot_leave_any(toast, monkeypatch, tmp_path):
    monkeypatch.setattr(LinearProbe, "gives_probabilities", False)
    told = "toast: keep_probabilities=true is not for probe=linear, which gives none: leave it out, or use another such as probe=linear.\n"
    assert toast("run", *SMALL, "keep_probabilities=true", "hydra.run.dir=none") == (1, "", told)
    assert not (tmp_path / "none").exists()


def test_the_folder_tells_what_was_run(done):
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


def test_a_complete_run_is_not_run_again(done, toast, monkeypatch):
    monkeypatch.setattr("toast_cli.verbs.run.run", lambda *_: pytest.fail("there is nothing left to do"))
    before = (done[0] / "results.csv").read_bytes()
    status, out, _ = toast("run", *SMALL, "seeds=[0,1]", "hydra.run.dir=here")
    assert (status, out) == (0, done[1])
    assert (done[0] / "results.csv").read_bytes() == before


def test_fresh_starts_over_and_gives_the_same(done, toast):
    before = (done[0] / "results.csv").read_bytes()
    assert "encode train" in toast("run", *SMALL, "seeds=[0,1]", "hydra.run.dir=here", "fresh=true")[2]
    assert (done[0] / "results.csv").read_bytes() == before


def test_other_settings_do_not_overwrite(done, toast):
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


@pytest.mark.slow
def test_the_folder_is_named_by_what_it_computes(toast, tmp_path):
    assert toast("run", *SMALL)[0] == 0
    assert toast("run", *SMALL, "batch_size=7")[0] == 0
    assert toast("run", *SMALL, "data.seed=1")[0] == 0
    names = [path.name for path in (tmp_path / "outputs" / "run").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("digits_vit-digits-linear-") for name in names)


@pytest.mark.slow
def test_the_untouched_model_reads_held_out_digits(toast, tmp_path):
    assert toast("run", "spans=[10-11,0-4]", "hydra.run.dir=linear")[0] == 0
    none, late, early = read_csv(tmp_path / "linear" / "results.csv", Row)
    assert none.test_images == 360
    assert none.accuracy >= 0.95
    assert late.accuracy_delta > -0.015, "some spans are free"
    assert early.accuracy_delta < -0.04, "some are not"


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
        "data.train_images=12",
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
