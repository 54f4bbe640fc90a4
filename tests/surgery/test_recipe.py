"""Recipes from strangers: whatever stands in one, load and predict say one sentence, at once and without taking memory."""

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conftest import tiny
from tests.exports import damage, saved
from toast_cli import load
from toast_cli.errors import ToastError
from toast_cli.files import sealed
from toast_cli.surgery.recipe import RECIPE, WEIGHTS, checksum, read_recipe

SEEN = {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center", "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An export of two blocks and a map, with five classes; a photo lies beside it."""
    folder = tmp_path / "it"
    folder.mkdir()
    saved(folder, tiny())
    damage(folder, lambda recipe: recipe["pretrained_cfg"].update(SEEN, label_names=list("abcde")))
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    return folder


@pytest.fixture
def refused(export: Path, toast: Callable[..., tuple[int, str, str]]) -> Callable[[str], None]:
    """Both say the sentence in one line, within seconds of the processor and few megabytes."""

    def check(sentence: str) -> None:
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        with pytest.raises(ToastError) as caught:
            load(export)
        status, out, err = toast("predict", "it", "photo.png")
        assert sentence in str(caught.value)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert sentence in err
        assert len(err) < 700
        assert time.process_time() - began < 5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kilobytes"

    return check


def with_text(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda file: file.write_text(change(file.read_text()))


def put(file: Path, place: str, value: str) -> None:
    """Put JSON as it is written where ``place`` stands in a recipe."""
    file.write_text(file.read_text().replace(place, value, 1))


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "brackets": (lambda f: f.write_text("[" * 200_000), "recipe.json cannot be read (RecursionError)"),
    "deep": (lambda f: put(f, '"blocks": [', f'"x": {"[" * 60}{"]" * 60}, "blocks": ['), "is nested deeper than any recipe"),
    "Latin-1": (lambda f: f.write_bytes(b'{"format": "\xe9"}'), "recipe.json cannot be read (UnicodeDecodeError)"),
    "digits": (lambda f: put(f, '"classes": 5', f'"classes": {"9" * 5000}'), "recipe.json cannot be read (ValueError)"),
    "twice": (lambda f: put(f, '"classes": 5', '"classes": 5, "classes": 5'), "has the key 'classes' twice"),
    "gigabyte": (lambda f: f.open("r+b").truncate(2**30), "is larger than any recipe"),
    "list": (lambda f: f.write_text("[]"), "is not in this version's format"),
    "folder": (lambda f: (f.unlink(), f.mkdir()), "is not an export"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_recipe(kind: str, export: Path, refused):
    change, sentence = FILES[kind]
    change(export / RECIPE)
    refused(sentence)


UNBUILT = "cannot be built"
MAPS: dict[str, tuple[object, str]] = {
    "wide": ({"kind": "linear", "sizes": [40_000, 40_000], "bias": True}, "does not describe model.safetensors"),
    "wider": ({"kind": "linear", "sizes": [2**40, 2**40], "bias": True}, UNBUILT),
    "huge": ({"kind": "linear", "sizes": [10**400, 32], "bias": True}, UNBUILT),
    "true": ({"kind": "linear", "sizes": [True, 32], "bias": True}, UNBUILT),
    "negative": ({"kind": "linear", "sizes": [32, -32], "bias": True}, UNBUILT),
    "text": ({"kind": "linear", "sizes": ["32", "32"], "bias": True}, UNBUILT),
    "fraction": ({"kind": "linear", "sizes": [32.0, 32], "bias": True}, UNBUILT),
    "one size": ({"kind": "linear", "sizes": [32], "bias": True}, UNBUILT),
    "sizes in an object": ({"kind": "linear", "sizes": {"32": 1, "33": 1}, "bias": True}, UNBUILT),
    "bias": ({"kind": "linear", "sizes": [32, 32], "bias": "no"}, UNBUILT),
    "more words": ({"kind": "linear", "sizes": [32, 32], "bias": True, "device": "cuda"}, UNBUILT),
    "no kind": ({}, UNBUILT),
    "kind in a list": ({"kind": ["linear"]}, UNBUILT),
    "unknown kind": ({"kind": "os.system"}, "names a layer 'os.system'"),
    "shift": ({"kind": "shift", "sizes": [2**60]}, UNBUILT),
    "norm": ({"kind": "layer_norm", "sizes": [32], "eps": "1"}, UNBUILT),
    "norm of nothing": ({"kind": "layer_norm", "sizes": [], "eps": 1e-6}, UNBUILT),
    "residual of two": ({"kind": "residual", "inside": [{"kind": "gelu"}, {"kind": "gelu"}]}, UNBUILT),
    "inside a text": ({"kind": "sequential", "inside": "gelu"}, UNBUILT),
    "inside numbers": ({"kind": "sequential", "inside": [1]}, UNBUILT),
    "other weights": ({"kind": "linear", "sizes": [32, 32], "bias": False}, "does not describe model.safetensors"),
    "no weights": ({"kind": "identity"}, "does not describe model.safetensors"),
    "gap": ({"kind": "by_position", "groups": [[1, 9]], "inside": [{"kind": "gelu"}]}, UNBUILT),
    "endless group": ({"kind": "by_position", "groups": [[0, None]], "inside": [{"kind": "gelu"}]}, UNBUILT),
    "no group": ({"kind": "by_position", "groups": [], "inside": [{"kind": "gelu"}]}, UNBUILT),
    "groups in a number": ({"kind": "by_position", "groups": 3, "inside": [{"kind": "gelu"}]}, UNBUILT),
    "context": ({"kind": "context", "sizes": [32], "prefix": 1}, "does not describe model.safetensors"),
    "context of no width": ({"kind": "context", "sizes": [0], "prefix": 1}, UNBUILT),
    "context of two widths": ({"kind": "context", "sizes": [32, 32], "prefix": 1}, UNBUILT),
    "wide context": ({"kind": "context", "sizes": [2**40], "prefix": 1}, UNBUILT),
    "prefix": ({"kind": "context", "sizes": [32], "prefix": -1}, UNBUILT),
    "huge prefix": ({"kind": "context", "sizes": [32], "prefix": 10**400}, UNBUILT),
    "true prefix": ({"kind": "context", "sizes": [32], "prefix": True}, UNBUILT),
    "no prefix": ({"kind": "context", "sizes": [32]}, UNBUILT),
    "context around a map": ({"kind": "context", "sizes": [32], "prefix": 1, "inside": []}, UNBUILT),
    "many layers": ({"kind": "sequential", "inside": [{"kind": "gelu"}] * 300_000}, "too many layers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MAPS)
def test_a_map_that_cannot_be(kind: str, export: Path, refused):
    words, sentence = MAPS[kind]
    damage(export, lambda recipe: recipe["blocks"].__setitem__(1, words))
    refused(sentence)


def test_a_map_inside_a_map_inside_a_map(export: Path, refused):
    words: object = {"kind": "gelu"}
    for _ in range(17):
        words = {"kind": "residual", "inside": [words]}
    damage(export, lambda recipe: recipe["blocks"].__setitem__(1, words))
    refused(UNBUILT)


def test_a_number_beyond_all_numbers(export: Path, refused):
    norm = '{"kind": "layer_norm", "sizes": [32], "eps": 1e400}'
    put(export / RECIPE, '"blocks": [0', f'"blocks": [{norm}')
    refused(UNBUILT)


UNLIKE = "does not describe model.safetensors"
ENTRIES: dict[str, tuple[dict, str]] = {
    "blocks: a million": ({"blocks": [0] * 10**6}, UNLIKE),
    "blocks: none": ({"blocks": []}, UNLIKE),
    "blocks: null": ({"blocks": None}, UNLIKE),
    "blocks: number": ({"blocks": 10**30}, UNLIKE),
    "blocks: true": ({"blocks": [False, {"kind": "linear", "sizes": [32, 32], "bias": True}, 2]}, UNLIKE),
    "blocks: text": ({"blocks": ["0", "1"]}, UNLIKE),
    "blocks: half of another": ({"blocks": [0, {"kind": "linear", "sizes": [32, 32], "bias": True}, "2.mlp"]}, UNLIKE),
    "blocks: half of nothing": ({"blocks": [0, "7.mlp"]}, UNLIKE),
    "blocks: third of one": ({"blocks": [0, "1.norm1"]}, UNLIKE),
    "blocks: half and whole": ({"blocks": [0, "1.attention", 1]}, UNLIKE),
    "blocks: halves backwards": ({"blocks": [0, "1.mlp", "1.attention"]}, UNLIKE),
    "blocks: half twice": ({"blocks": [0, "1.mlp", "1.mlp"]}, UNLIKE),
    "blocks: half in other digits": ({"blocks": [0, "١.mlp"]}, UNLIKE),
    "blocks: half of a huge one": ({"blocks": [f"{'9' * 5000}.mlp"]}, UNLIKE),
    "blocks: escapes": ({"blocks": ["\x1b[2J.mlp"]}, UNLIKE),
    "blocks: half in a list": ({"blocks": [[0, "mlp"]]}, UNLIKE),
    "blocks: backwards": ({"blocks": [2, 0]}, UNLIKE),
    "blocks: huge": ({"blocks": [10**30]}, UNLIKE),
    "head: number": ({"head": 3}, UNBUILT),
    "head: list": ({"head": []}, UNBUILT),
    "head: other": ({"head": {"kind": "linear", "sizes": [32, 50_000], "bias": True}}, UNLIKE),
    "classes: text": ({"classes": "5"}, UNLIKE),
    "classes: true": ({"classes": True}, UNLIKE),
    "classes: other": ({"classes": 6}, UNLIKE),
    "architecture: number": ({"architecture": 3}, UNLIKE),
    "architecture: null": ({"architecture": None}, UNLIKE),
    "weights: number": ({"weights": 3}, "is not the file that recipe.json was written for"),
    "weights: list": ({"weights": []}, "is not the file that recipe.json was written for"),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_an_entry_that_cannot_be(kind: str, export: Path, refused):
    change, sentence = ENTRIES[kind]
    damage(export, lambda recipe: recipe.update(change))
    refused(sentence)


TIMM = "timm cannot build vit_tiny_patch16_224 with "
ARGUMENTS: dict[str, tuple[object, str]] = {
    "depth: a billion": ({"depth": 10**9}, TIMM),
    "depth: true": ({"depth": True}, TIMM),
    "depth: negative": ({"depth": -3}, TIMM),
    "depth: text": ({"depth": "3"}, UNLIKE),
    "depth: fraction": ({"depth": 3.5}, UNLIKE),
    "depth: huge": ({"depth": 10**400}, TIMM),
    "depth: two": ({"depth": [3, 3]}, UNLIKE),
    "embed_dim: wide": ({"embed_dim": 2**15}, UNLIKE),
    "embed_dim: wider": ({"embed_dim": 2**40}, TIMM),
    "img_size: large": ({"img_size": 2**14}, UNLIKE),
    "img_size: larger": ({"img_size": 10**6}, TIMM),
    "img_size: other": ({"img_size": 64}, UNLIKE),
    "patch_size: zero": ({"patch_size": 0}, TIMM),
    "num_heads: too many": ({"num_heads": 33}, UNLIKE),
    "mlp_ratio: wide": ({"mlp_ratio": 60}, UNLIKE),
    "mlp_ratio: wider": ({"mlp_ratio": 1e300}, TIMM),
    "global_pool: other": ({"global_pool": "map"}, UNLIKE),
    "global_pool: unknown": ({"global_pool": "rm -rf"}, UNLIKE),
    "norm_layer: object": ({"norm_layer": {"_target_": "os.system"}}, TIMM),
    "block_fn: text": ({"block_fn": "os.system"}, UNLIKE),
    "lists in lists": ({"img_size": [[32, 32]]}, TIMM),
    **{
        f"{name}: not a shape": ({name: value}, f"{TIMM}'{name}'")
        for name, value in {
            "checkpoint_path": "/etc/passwd", "pretrained": True, "pretrained_cfg": {"file": "x"}, "cache_dir": "/x", "features_only": True,
            "pretrained_cfg_overlay": {}, "pretrained_filter_fn": "x", "device": "cuda", "dtype": "float64", "wings": 2, "use_naflex": True,
        }.items()
    },
    "no arguments": ([], UNLIKE),
}  # fmt: skip


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_an_architecture_that_cannot_be(kind: str, export: Path, refused):
    arguments, sentence = ARGUMENTS[kind]

    def change(recipe: dict) -> None:
        given = recipe["architecture"]["arguments"]
        recipe["architecture"]["arguments"] = {**given, **arguments} if isinstance(arguments, dict) else arguments

    damage(export, change)
    refused(sentence)


@pytest.mark.parametrize("name", [5, None, ["vit"], "no\x1b[2Jsuch", "x" * 10**6, "hf-hub:a/b", "local-dir:/x"])
def test_a_name_that_timm_does_not_know(name: object, export: Path, refused):
    damage(export, lambda recipe: recipe["architecture"].update(name=name))
    refused("knows no architecture")


def test_another_kind_of_model(export: Path, refused):
    damage(export, lambda recipe: recipe.update(architecture={"name": "resnet18", "arguments": {}}))
    refused("resnet18 is not a vision transformer")


CONFIGS: dict[str, dict] = {
    "size": {"input_size": [3, 10**9, 10**9]},
    "size: channels": {"input_size": [10**6, 32, 32]},
    "size: text": {"input_size": "3x32"},
    "size: true": {"input_size": [3, True, True]},
    "mean: text": {"mean": ["a", "b", "c"]},
    "mean: two": {"mean": [0.5, 0.5]},
    "mean: nan": {"mean": [float("nan")] * 3},
    "std: zero": {"std": [0, 0.5, 0.5]},
    "crop: nothing": {"crop_pct": 1e-7},
    "crop: negative": {"crop_pct": -1},
    "crop: true": {"crop_pct": True},
    "crop mode": {"crop_mode": "random"},
    "interpolation": {"interpolation": "random"},
    "interpolation: list": {"interpolation": ["bicubic"]},
    "classes": {"num_classes": 4},
    "class names: numbers": {"label_names": [1, 2, 3, 4, 5]},
    "class names: more": {"label_names": list("abcdef")},
    "class names: text": {"label_names": "abcde"},
    "where weights are": {"url": "https://example.org/x.pth"},
    "a file": {"file": "/etc/passwd"},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_preprocessing_that_cannot_be(kind: str, export: Path, refused):
    damage(export, lambda recipe: recipe["pretrained_cfg"].update(CONFIGS[kind]))
    refused("export the model again")


def test_only_the_size_that_the_model_takes(export: Path, refused):
    damage(export, lambda recipe: recipe["pretrained_cfg"].update(input_size=[3, 64, 64]))
    refused(UNLIKE)


@pytest.mark.parametrize("file", [3, None, [], {}, "../model.safetensors", "/etc/passwd"])
def test_predict_opens_no_other_file(file: object, export: Path, toast):
    damage(export, lambda recipe: recipe.update(file=file))
    status, _, err = toast("predict", "it", "photo.png")
    assert (status, err.count("\n")) == (1, 1)
    assert "names no model file that toast export writes" in err


def test_markup_and_escapes_in_a_class_name_are_shown(export: Path, toast):
    damage(
        export, lambda recipe: recipe["pretrained_cfg"].update(label_names=["[/red]", "\x1b[2J", "[bold]c", "d", "e"])
    )
    status, out, _ = toast("predict", "it", "photo.png")
    assert status == 0
    assert "[/red]" in out
    assert "[bold]c" in out
    assert "\x1b" not in out


def seal(export: Path) -> None:
    (export / RECIPE).write_text(json.dumps(sealed(json.loads((export / RECIPE).read_text())), indent=2))


CHANGES: dict[str, Callable[[dict], object]] = {
    "mean": lambda recipe: recipe["pretrained_cfg"].update(mean=[0.5, 0.5, 0.6]),
    "std": lambda recipe: recipe["pretrained_cfg"].update(std=[0.4, 0.5, 0.5]),
    "class names": lambda recipe: recipe["pretrained_cfg"].update(label_names=list("abced")),
    "row": lambda recipe: recipe["row"].update(accuracy=0.76),
    "another entry": lambda recipe: recipe.update(more=1),
    "one entry fewer": lambda recipe: recipe.pop("weights"),
    "checksum": lambda recipe: recipe.update(checksum=3),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_recipe_that_was_changed(kind: str, export: Path, refused, toast):
    damage(export, lambda recipe: recipe.update(row={"accuracy": 0.75}))
    seal(export)
    load(export)
    assert toast("predict", "it", "photo.png")[0] == 0
    damage(export, CHANGES[kind])
    refused("it/recipe.json was changed after it was written: restore it, or export the model again.")


def test_a_recipe_of_an_earlier_version_has_no_checksum(export: Path):
    assert "checksum" not in read_recipe(export)
    seal(export)
    assert read_recipe(export)["checksum"]


def test_weights_that_are_no_numbers(export: Path, refused):
    for value in ("nan", "inf", "-inf"):
        weights = load_file(export / WEIGHTS)
        weights["blocks.2.mlp.fc1.weight"][3, 2] = float(value)
        save_file(weights, export / WEIGHTS)
        damage(export, lambda recipe: recipe.update(weights=checksum(export / WEIGHTS)))
        refused("model.safetensors has weights that are not finite numbers in blocks.2.mlp.fc1.weight")


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop("norm.bias"),
        lambda weights: weights.update(more=torch.ones(3)),
        lambda weights: weights.update({"norm.bias": torch.ones(32, dtype=torch.int32)}),
        lambda weights: weights.update({"norm.bias": torch.ones(33)}),
    ],
)
def test_weights_of_another_model(change: Callable[[dict], object], export: Path, refused):
    weights = load_file(export / WEIGHTS)
    change(weights)
    save_file(weights, export / WEIGHTS)
    damage(export, lambda recipe: recipe.update(weights=checksum(export / WEIGHTS)))
    refused(UNLIKE)


def test_a_long_model_may_be_shortened_to_little(tmp_path: Path):
    """What is built is what is left, not the forty blocks that the architecture has."""
    vit = saved(tmp_path, tiny(depth=40), "0-39")
    state = torch.get_rng_state()
    again = load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(again.blocks) == 2
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(images), vit(images))
