"""All that the commands of the tables read: files and folders with something wrong in them, and a few that are sound."""

import dataclasses
import hashlib
import io
import json
import pickle
import shutil
import struct
from pathlib import Path

import datasets
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conftest import save_image_folder, tiny
from tests.exports import damage, saved
from toast_cli.models.weight_files import checkpoint_path
from toast_cli.runs.rows import Row
from toast_cli.surgery.recipe import RECIPE, WEIGHTS


def make(root: Path) -> None:
    for part in (_checkpoints, _data_sets, _exports, _reports):
        part(root)


class Payload:
    """Unpickled, it would leave a file."""

    def __reduce__(self):
        return (open, ("executed", "w"))


def _checkpoints(root: Path) -> None:
    file = checkpoint_path("pkg://toast_cli/weights/digits_vit.safetensors")
    weights, name = load_file(file), "blocks.3.mlp.fc1.weight"
    (root / "folder.safetensors").mkdir()
    (root / "empty.safetensors").touch()
    (root / "words.safetensors").write_text("weights\n" * 99)
    (root / "cut.safetensors").write_bytes(file.read_bytes()[:-999])
    (root / "header.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    save_file({"conv.weight": torch.ones(3)}, root / "other.safetensors")
    torch.save(Payload(), root / "payload.pt")
    (root / "payload.pkl").write_bytes(pickle.dumps(Payload()))
    torch.save(torch.nn.Linear(1, 1), root / "class.pt")
    torch.save([1, 2], root / "list.pt")
    for value in ("nan", "inf"):
        bad = weights[name].clone()
        bad[0, 0] = float(value)
        save_file({**weights, name: bad}, root / f"{value}.safetensors")


def _data_sets(root: Path) -> None:
    good = save_image_folder(root / "good", per_class=2)
    (root / "void").mkdir()
    (root / "file").touch()
    for split in ("train", "test"):
        (root / "hollow" / split).mkdir(parents=True)
    for name, gone in (
        ("one_class", ["train/kind1", "test/kind1"]),
        ("missing_in_train", ["train/kind1"]),
        ("no_test", ["test"]),
    ):
        shutil.copytree(good, root / name)
        for folder in gone:
            shutil.rmtree(root / name / folder)
    shutil.copytree(good, root / "all_empty")
    for image in (root / "all_empty").rglob("*.png"):
        image.write_bytes(b"")
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    png = buffer.getvalue()
    for name, columns in (
        ("floats", {"image": [png] * 4, "label": [0.5, 1.5, 0.5, 1.5]}),
        ("gaps", {"image": [png] * 4, "label": ["a", None, "b", "a"]}),
        ("no_images", {"x": [1, 2, 3, 4], "label": [0, 1, 0, 1]}),
        ("cut_off", {"image": [png] * 4, "label": [0, 1, 0, 1]}),
    ):
        (root / name).mkdir()
        for split in ("train", "test"):
            pd.DataFrame(columns).to_parquet(root / name / f"{split}.parquet")
    for file in (root / "cut_off").iterdir():
        file.write_bytes(file.read_bytes()[:-50])
    for name, labels, test in (
        ("minus", [-1, 0, 1, 0], ["a", "b"]),
        ("shard", [0, 1, 1, 0], ["a", "b"]),
        ("new_class", [0, 1, 1, 0], ["a", "z"]),
    ):
        for split, names in (("train", ["a", "b"]), ("test", test)):
            features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
            pictures = [Image.new("RGB", (4, 4))] * 4
            rows = datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)
            rows.save_to_disk(str(root / name / split))
    for file in (root / "shard" / "train").glob("*.arrow"):
        file.unlink()


def _exports(root: Path) -> None:
    good = root / "export"
    good.mkdir()
    saved(good, tiny())
    seen = {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center", "mean": [0.5] * 3, "std": [0.5] * 3}
    damage(good, lambda recipe: recipe["pretrained_cfg"].update(seen, label_names=list("abcde")))
    weights = b"\xff" * 8 + (good / WEIGHTS).read_bytes()[8:]
    rehashed = {"weights": hashlib.sha256(weights).hexdigest()}
    for name, change in (
        ("cut_recipe", lambda p: (p / RECIPE).write_text((p / RECIPE).read_text()[:90])),
        ("list_recipe", lambda p: (p / RECIPE).write_text("[]")),
        ("outside", lambda p: damage(p, lambda r: r.update(file="../../x"))),
        ("no_crop", lambda p: damage(p, lambda r: r["pretrained_cfg"].pop("crop_pct"))),
        ("headless", lambda p: damage(p, lambda r: r.update(pretrained_cfg=3))),
        ("tampered", lambda p: (p / WEIGHTS).write_bytes(weights)),
        ("rehashed", lambda p: ((p / WEIGHTS).write_bytes(weights), damage(p, lambda r: r.update(rehashed)))),
    ):
        shutil.copytree(good, root / name)
        change(root / name)
    Image.new("RGB", (8, 8)).save(root / "photo.png")
    (root / "text.png").write_text("no picture")


def _reports(root: Path) -> None:
    """Runs that say they are complete, with other things in their files."""
    head = ",".join(field.name for field in dataclasses.fields(Row))
    line = ",".join("True" if field.type in (bool, "bool") else "1" for field in dataclasses.fields(Row))
    for name, files in (
        ("older", {"results.csv": "model,data\na,b\n"}),
        ("half_written", {"results.csv": f"{head}\na,b,c\n"}),
        ("no_rows", {"results.csv": f"{head}\n"}),
        ("cut_record", {"results.csv": f"{head}\n", "run.json": '{"compl'}),
        ("bad_config", {"results.csv": f"{head}\n{line}\n", "config.yaml": "a: [1"}),
        ("incomplete", {"results.csv": f"{head}\n", "run.json": "{}"}),
    ):
        (root / name).mkdir()
        for file, text in {"run.json": json.dumps({"complete": True}), "config.yaml": "model: {}\n", **files}.items():
            (root / name / file).write_text(text)
