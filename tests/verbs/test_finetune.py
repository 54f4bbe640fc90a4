"""toast finetune: its rows, its weights, and going on after an epoch."""

import json

import pytest
import torch
from safetensors.torch import load_file

from toast_cli.runs.measured import Tuned
from toast_cli.runs.record import note
from toast_cli.runs.results import read_csv
from toast_cli.stages import tune as tuning

SMALL = ["data.fit_images=60", "data.train_images=200", "data.test_images=80", "device=cpu", "hydra.run.dir=here"]
QUICK = [*SMALL, "spans=[6-11]", "tune.epochs=2", "tune.learning_rate=1e-4", "tune.batch_size=16"]


@pytest.fixture
def done(toast, tmp_path):
    status, out, err = toast("finetune", *QUICK, "seeds=[0,1]")
    assert status == 0, err
    return tmp_path / "here", out


def test_rows_tell_before_and_after(done):
    folder, out = done
    rows = read_csv(folder / "finetune.csv", Tuned)
    assert [row.seed for row in rows] == [0, 1]
    for row in rows:
        assert (row.plan, row.blocks_removed, row.train_images, row.held_out_images, row.test_images) == (
            "6-11",
            5,
            180,
            20,
            80,
        )
        assert row.accuracy_after > row.accuracy_before, "five blocks out of the embedded model, two epochs"
        assert 1 <= row.best_epoch <= 2
        assert row.params_ratio < 0.7
    assert "trained" in out
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "run.json", "finetune.csv", "translators.safetensors", "features", ".lock",
        "model-seed0.safetensors", "model-seed1.safetensors",
    }  # fmt: skip
    weights = load_file(folder / "model-seed0.safetensors")
    assert sum(name.endswith("attn.qkv.weight") for name in weights) == 7, "removed blocks are not stored"


@pytest.mark.slow
def test_killed_after_an_epoch_it_ends_with_the_same(done, toast, tmp_path, monkeypatch):
    folder, _ = done
    expected = (folder / "finetune.csv").read_text()
    keep = tuning.Training._keep

    def killed(self, state):
        keep(self, state)
        raise KeyboardInterrupt

    elsewhere = [word.replace("here", "there") for word in QUICK]
    for _ in range(4):  # two epochs of two seeds
        monkeypatch.setattr(tuning.Training, "_keep", killed)
        assert toast("finetune", *elsewhere, "seeds=[0,1]")[0] == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuning.Training, "_epoch", lambda *_: pytest.fail("all epochs are done"))
    assert toast("finetune", *elsewhere, "seeds=[0,1]")[0] == 0
    assert (tmp_path / "there" / "finetune.csv").read_text() == expected
    assert not (tmp_path / "there" / "epoch.pt").exists()


@pytest.mark.slow
def test_killed_when_only_tidying_up_was_left(done, toast, monkeypatch):
    folder, _ = done
    expected = {path.name for path in folder.iterdir()}
    note(folder, complete=False)
    for name in ("epoch.pt", "model-seed1-epoch2.safetensors", "features/test.f32"):
        (folder / name).touch()
    monkeypatch.setattr("toast_cli.stages.finetune.encode", lambda *_: pytest.fail("no seed needs features"))
    assert toast("finetune", *QUICK, "seeds=[0,1]")[0] == 0
    assert {path.name for path in folder.iterdir()} == expected
    assert not list((folder / "features").iterdir())


@pytest.mark.slow
def test_frozen_maps_stay_and_the_stem_always_does(toast, tmp_path):
    for maps in ("true", "false"):
        assert toast("finetune", *QUICK, f"tune.train_maps={maps}", f"hydra.run.dir=maps-{maps}")[0] == 0
    original = load_file(tmp_path / "maps-true" / "translators.safetensors")["6-11@60/weight_"].T
    for maps, moved in (("true", True), ("false", False)):
        weights = load_file(tmp_path / f"maps-{maps}" / "model-seed0.safetensors")
        assert (weights["vit.blocks.7.map.weight"] != original).any() == moved
    both = [load_file(tmp_path / f"maps-{maps}" / "model-seed0.safetensors") for maps in ("true", "false")]
    for name in ("vit.patch_embed.proj.weight", "vit.pos_embed"):
        assert torch.equal(both[0][name], both[1][name])


@pytest.mark.slow
def test_test_images_choose_nothing(toast, tmp_path):
    """The same epochs and weights come out whatever the test images are."""
    for count in (40, 80):
        words = [word for word in QUICK if not word.startswith(("data.test_images", "hydra"))]
        assert toast("finetune", *words, f"data.test_images={count}", f"hydra.run.dir=t{count}")[0] == 0
    one, other = (load_file(tmp_path / f"t{count}" / "model-seed0.safetensors") for count in (40, 80))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_untouched_model_can_be_tuned_too(toast, tmp_path):
    assert toast("finetune", *SMALL, "spans=none", "tune.epochs=1")[0] == 0
    row = read_csv(tmp_path / "here" / "finetune.csv", Tuned)[0]
    assert (row.plan, row.translator, row.params_ratio) == ("none", "", 1.0)
    assert row.accuracy_before == row.accuracy_original
    assert json.loads((tmp_path / "here" / "run.json").read_text())["complete"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["tune.epochs=0"], "tune.epochs=0 cannot be used: give a whole number from 1."),
        (["tune.held_out=1"], "tune.held_out=1 cannot be used: give a share between 0 and 1."),
        (["tune.flip=yes"], "tune.flip=yes is neither true nor false"),
        (["spans=[9-11,8-11]"], "toast finetune takes one plan, one number of data.fit_images, and a linear probe"),
        (["probe=knn"], "toast finetune takes one plan, one number of data.fit_images, and a linear probe"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(toast, words: list[str], text: str):
    status, _, err = toast("finetune", *SMALL, *words)
    assert status == 1
    assert err.splitlines()[-1].startswith(f"toast: {text}")
