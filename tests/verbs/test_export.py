"""toast export: what is written, in which forms, and what cannot be exported."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from filelock import FileLock
from safetensors.torch import load_file
from timm.data import create_transform

from tests.verbs.conftest import PLAN, SMALL, digits_tested_on, picture
from toast_cli import load, load_elastic
from toast_cli.errors import ToastError
from toast_cli.runs import predictions
from toast_cli.runs.measured import Compared, Tuned
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.stages import exported, quantised
from toast_cli.surgery.recipe import checksum, read_recipe


@pytest.mark.parametrize(
    ("run", "words", "position"),
    [
        ("plain", [f"plan={PLAN}"], 1),
        ("plain", ["plan=4-6", "seed=1"], 2),
        pytest.param("plain", ["plan=none"], 0, marks=pytest.mark.slow),
        pytest.param("sequential", [], 1, marks=pytest.mark.slow),
        pytest.param("logistic", ["plan=4-6"], 2, marks=pytest.mark.slow),
        ("mlp", [], 1),
    ],
)
def test_an_export_says_what_the_run_said(finished, toast, tmp_path, run: str, words: list[str], position: int):
    status, out, err = toast("export", str(finished(run)), *words, "out=here/it")
    assert status == 0
    assert out.strip() == "here/it"
    assert "largest difference 0.0e+00" in err
    model, recipe = load(tmp_path / "here" / "it"), json.loads((tmp_path / "here" / "it" / "recipe.json").read_text())
    keys = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
    transform = create_transform(**{key: model.pretrained_cfg[key] for key in keys})
    images = digits_tested_on()
    seed = int(next((word[5:] for word in words if word.startswith("seed=")), 0))
    with torch.inference_mode():
        pixels = torch.stack([transform(picture(images, i)) for i in range(len(images))])
        named = model(pixels).argmax(1).numpy()
    stored = predictions.read(finished(run) / "predictions.safetensors").by_seed[seed][position]
    assert (named != stored).sum() <= 1, "training fewer plans together rounds otherwise"
    assert recipe["row"] == vars(
        next(
            r for r in read_csv(finished(run) / "results.csv", Row)[::-1] if (r.plan, r.seed) == (recipe["plan"], seed)
        )
    )
    assert recipe["pretrained_cfg"]["label_names"] == list(map(str, range(10)))
    assert model.default_cfg == model.pretrained_cfg
    assert recipe["params"] == sum(p.numel() for p in model.parameters())
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["it"], "nothing is left over"


def test_a_shift_is_gone_from_the_file(finished, toast, tmp_path):
    status, _, err = toast("export", str(finished("mlp")), "out=it")
    assert status == 0
    recipe = json.loads((tmp_path / "it" / "recipe.json").read_text())
    assert recipe["blocks"] == [*range(5), *range(7, 12)]
    assert (tmp_path / "it" / "modeling.py").is_file(), "the probe is no head that timm has"
    status, _, err = toast("export", str(finished("mlp")), "head=none", "out=features")
    assert 'timm.create_model("local-dir:features", pretrained=True)' in err
    images = torch.randn(2, 3, 8, 8)
    by_timm = timm.create_model("local-dir:features", pretrained=True).eval()
    assert torch.equal(by_timm(images), load("features")(images))


def test_what_a_killed_export_left_is_removed(finished, toast, tmp_path):
    for name in (".export-dead", ".export-alive"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".lock").touch()
    with FileLock(tmp_path / ".export-alive" / ".lock"):
        assert toast("export", str(finished("plain")), "plan=4-6", "out=it")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"it", ".export-alive"}


def test_a_fine_tuned_model_is_the_tuned_one(finished, toast, tmp_path):
    assert toast("export", str(finished("tuned")), "out=it")[0] == 0
    row = read_csv(finished("tuned") / "finetune.csv", Tuned)[0]
    recipe = json.loads((tmp_path / "it" / "recipe.json").read_text())
    assert recipe["fine_tuned"]
    assert recipe["row"]["accuracy_after"] == row.accuracy_after
    weights, tuned = (
        load_file(tmp_path / "it" / "model.safetensors"),
        load_file(finished("tuned") / "model-seed0.safetensors"),
    )
    assert all(
        torch.equal(value, tuned[key if key.startswith("head.") else f"vit.{key}"]) for key, value in weights.items()
    )


@pytest.mark.parametrize(
    "words",
    [
        ["dtype=fp16"],
        ["dtype=BF16"],
        ["head=none"],
        pytest.param(["format=torch_export"], marks=pytest.mark.slow),
        ["format=onnx"],
    ],
)
def test_every_form_reads_back(finished, toast, tmp_path, words: list[str]):
    if "format=onnx" in words:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    status, out, err = toast("export", str(finished("plain")), "plan=4-6", *words)
    assert status == 0, err
    assert "read back: largest difference" in err
    assert ("modeling.py in it loads it without toast" in err) == (tmp_path / out.strip() / "modeling.py").is_file()
    assert ("modeling.py in it" in err) == ("safetensors" in out)
    recipe = json.loads((tmp_path / out.strip() / "recipe.json").read_text())
    assert recipe["weights"] == checksum(tmp_path / out.strip() / recipe["file"])
    if "format=onnx" in words:
        assert b"site-packages" not in (tmp_path / out.strip() / recipe["file"]).read_bytes(), (
            "no folder of this machine"
        )
    assert (
        f"pipeline_tag: image-{'feature-extraction' if 'head=none' in words else 'classification'}"
        in (tmp_path / out.strip() / "README.md").read_text()
    )
    if "head=none" in words:
        assert load(out.strip())(torch.zeros(3, 3, 8, 8)).shape == (3, 64)
        assert "names no classes" in toast("predict", out.strip(), out.strip())[2]


@pytest.mark.slow
def test_several_plans_are_what_they_are_alone(finished, toast, tmp_path):
    command = ["export", str(finished("plain")), f"plan=[none,4-6,{PLAN}]", "out=all"]
    status, out, err = toast(*command)
    assert (status, out) == (0, "all\n")
    assert "read back: largest difference 0.0e+00 of the largest output; the same class for 192 of 192 images" in err
    assert toast("export", str(finished("plain")), "plan=4-6", "out=alone")[0] == 0
    ours, theirs = load("all", plan="4-6"), load("alone")
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in theirs.state_dict().items())
    images = torch.randn(4, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))
        assert torch.equal(load_elastic("all").use("4-6")(images), theirs(images))
    assert ours.pretrained_cfg == theirs.pretrained_cfg
    rows = {row.plan: row for row in read_csv(finished("plain") / "results.csv", Row) if row.seed == 0}
    assert [(each.plan, each.accuracy, each.gflops) for each in load_elastic("all").plans] == [
        (plan, rows[plan].accuracy, rows[plan].gflops) for plan in ("none", "4-6", PLAN)
    ]
    told = float(re.search(r"3 plans in one file, ([\d.]+) MB if each had its own", err)[1])
    assert (tmp_path / "all" / "model.safetensors").stat().st_size < 0.5e6 * told
    _, out, err = toast(*command, "push=me/all", "dry=true")
    assert "all is there already" in err
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == ["README.md", "recipe.json", "model.safetensors"]
    card = (tmp_path / "all" / "README.md").read_text()
    assert all(f"| {plan} |" in card for plan in ("none", "4-6", PLAN))
    assert f'toast_cli.load("me/all", plan="{PLAN}")' in card
    assert "all exists" in toast("export", str(finished("plain")), "plan=[none,4-6]", "out=all")[2]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["dynamic", "static"])
def test_int8_is_measured_beside_others(finished, toast, tmp_path, monkeypatch, way: str):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(quantised, "_SECONDS", 0.01)
    command = [
        "export",
        str(finished("plain")),
        "plan=4-6",
        "format=onnx",
        "dtype=int8",
        f"quantisation={way}",
        "out=it",
    ]
    status, out, err = toast(*command)
    assert (status, out) == (0, "it\n"), err
    rows = read_csv(tmp_path / "it" / "comparison.csv", Compared)
    assert [(row.dtype, row.quantisation) for row in rows] == [("fp32", ""), ("fp16", ""), ("int8", way)]
    assert rows[2].calibration_images == {"dynamic": 0, "static": 40}[way], "the run has 40 fit images"
    assert rows[2].size == (tmp_path / "it" / "model.onnx").stat().st_size < 0.5 * rows[0].size
    stored = predictions.read(finished("plain") / "predictions.safetensors")
    assert abs(rows[0].accuracy - (stored.by_seed[0][2] == stored.truth).mean()) <= 1 / 64
    recipe, images = read_recipe(tmp_path / "it"), digits_tested_on()
    transform = create_transform(
        **{
            key: recipe["pretrained_cfg"][key]
            for key in ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
        }
    )
    session = onnxruntime.InferenceSession(tmp_path / "it" / "model.onnx")
    pixels = torch.stack([transform(picture(images, i)) for i in range(len(images))]).numpy()
    right = session.run(None, {"images": pixels})[0].argmax(1) == images.labels
    assert abs(right.mean() - rows[2].accuracy) <= 2 / 64, "a dynamic range is that of a batch"
    assert rows[2].accuracy_delta == pytest.approx(rows[2].accuracy - rows[0].accuracy)
    assert "int8 " + way in err
    assert recipe["quantisation"] == way
    assert b"site-packages" not in (tmp_path / "it" / "model.onnx").read_bytes(), "no folder of this machine"
    picture(images, 0).save("0.png")
    assert toast("predict", "it", "0.png", "--top", "1")[0] == 0
    _, out, err = toast(*command, "push=me/it", "dry=true")
    assert "it is there already" in err
    names = ["README.md", "recipe.json", "model.onnx", "comparison.csv"]
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == names
    accuracy, change = rows[2].accuracy, rows[2].accuracy_delta
    assert f" | {accuracy:.4f} | {change:+.4f} | " in (tmp_path / "it" / "README.md").read_text()


def test_a_mismatch_leaves_nothing(finished, toast, tmp_path, monkeypatch):
    monkeypatch.setattr(exported, "TOLERANCES", {"fp16": 0.0})
    status, _, err = toast("export", str(finished("plain")), "plan=4-6", "dtype=fp16", "out=here/it")
    assert status == 1
    assert "does not do what the model does" in err
    assert not list((tmp_path / "here").iterdir())


def change(recipe: Path, **entries: object) -> None:
    recipe.write_text(json.dumps({**json.loads(recipe.read_text()), **entries}))


def test_the_same_command_again_finds_its_export(finished, toast, tmp_path, monkeypatch):
    """A process may be killed when the folder has its name and nothing has been printed."""
    command = ["export", str(finished("plain")), "plan=4-6", "out=it"]
    assert toast(*command)[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr("toast_cli.stages.exported.deployed", lambda *_: pytest.fail("nothing is left to do"))
        found = toast(*command, "images=3")
        assert found == (0, "it\n", "it is there already, and its files are as they were written\n")
        for other in (["seed=1"], ["dtype=fp16"], ["head=none"], [f"plan={PLAN}"], ["format=torch_export"]):
            assert "it exists: give another out=, or replace an export with fresh=true" in toast(*command, *other)[2]
    assert "read back: largest difference" in toast(*command, "fresh=true")[2]
    assert {path.name for path in tmp_path.iterdir()} == {"it"}


def test_a_damaged_export_is_not_taken_for_the_same(finished, toast, tmp_path):
    command = ["export", str(finished("plain")), "plan=4-6", "out=it"]
    assert toast(*command)[0] == 0
    recipe, model = tmp_path / "it" / "recipe.json", tmp_path / "it" / "model.safetensors"
    before, weights = recipe.read_bytes(), model.read_bytes()
    of_an_earlier_version = json.dumps({key: each for key, each in json.loads(before).items() if key != "checksum"})
    for damage in (
        lambda: change(recipe, dtype="fp16"),
        lambda: recipe.write_bytes(before[:-9]),
        lambda: recipe.write_text(of_an_earlier_version),
        lambda: model.write_bytes(weights[:-9]),
        model.unlink,
    ):
        damage()
        assert "it exists: give another out=" in toast(*command)[2]
        recipe.write_bytes(before)
        model.write_bytes(weights)
    assert toast(*command)[0] == 0


@pytest.mark.slow
def test_an_export_of_another_run_is_in_the_way(finished, toast):
    assert toast("export", str(finished("sequential")), "out=it")[0] == 0
    assert "it exists: give another out=" in toast("export", str(finished("plain")), "plan=4-6", "out=it")[2]


def test_every_export_is_sealed_and_knows_its_model_file(finished, toast, tmp_path):
    assert toast("export", str(finished("plain")), "plan=4-6", "out=it")[0] == 0
    recipe = read_recipe(tmp_path / "it")
    assert recipe["checksum"]
    assert recipe["weights"] == checksum(tmp_path / "it" / "model.safetensors")
    change(tmp_path / "it" / "recipe.json", row={**recipe["row"], "accuracy": 0.999})
    with pytest.raises(ToastError, match="recipe.json was changed after it was written"):
        load(tmp_path / "it")


@pytest.mark.parametrize("name", ["${oc.env:HOME}", "ends in \\", "it's", "a,b", "[0]", "${nowhere}"])
def test_a_run_is_found_by_its_folders_own_name(name: str, toast):
    status, out, err = toast("export", name)
    assert (status, out) == (1, "")
    assert err == f"toast: {name} is not a complete run: give the folder of a finished toast run, search or finetune.\n"


def test_a_run_by_its_key(finished, toast):
    """The folder is given once, as a word or as a setting."""
    assert toast("export", f"run={finished('plain')}", "plan=4-6", "out=it")[:2] == (0, "it\n")
    assert "was given two runs" in toast("export", str(finished("plain")), f"run={finished('plain')}")[2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere is not a complete run"),
        ([], "toast export needs the folder of a finished run"),
        (["{plain}"], "has several plans: choose one with plan="),
        (["{plain}", "plan=4-7"], "plan=4-7 is not in"),
        (["{plain}", "plan=4-6", "seed=7"], "seed=7 is not in"),
        (["{plain}", "plan=4-6", "format=onx"], "format=onx is not known (did you mean onnx"),
        (["{plain}", "plan=4-6", "format=onnx", "dtype=bf16"], "format=onnx has no runtime for dtype=bf16"),
        (["{plain}", "plan=4-6", "quantisation=static"], "quantisation=static is a way to int8"),
        (["{plain}", "plan=[4-6,4-7]"], "plan=4-7 is not in"),
        (["{plain}", "plan=front"], "plan=front is all that a search has found, and"),
        (["{plain}", "plan=4-6", "images=0"], "images=0 cannot be used"),
        (["{plain}", "plan=4-6", "out=."], ". exists: give another out="),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(finished, toast, words: list[str], sentence: str):
    status, _, err = toast("export", *(word.format(plain=finished("plain")) for word in words))
    assert status == 1
    assert sentence in err


@pytest.mark.slow
def test_nearest_neighbours_have_no_head(finished, toast):
    assert toast("run", *SMALL, "spans=[4-6]", "probe=knn", "hydra.run.dir=knn")[0] == 0
    assert "probe=knn cannot become a model's head" in toast("export", "knn")[2]
    assert toast("export", "knn", "head=none")[0] == 0


def test_the_digits_tested_on_are_in_stored_order():
    assert np.array_equal(np.sort(digits_tested_on().indices), digits_tested_on().indices)
