"""Files of weights as people have them, and what is wrong with some."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.models.by_hand import SIZE, VIT, renamed, weights
from toast_cli.errors import ToastError
from toast_cli.models import Backbone
from toast_cli.models import factory as models

OWN = weights()


def load(path: Path | str, name: str = "vit_tiny_patch16_224", **options: object) -> Backbone:
    return models.load("m", name, str(path), image_size=32, options=SIZE | options)


def is_own(backbone: Backbone) -> bool:
    return all(torch.equal(value, OWN[key]) for key, value in backbone.vit.state_dict().items())


def shards(folder: Path) -> Path:
    """The weights in two files with an index."""
    keys = list(OWN)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for file, part in zip(files, (keys[:9], keys[9:]), strict=True):
        save_file({key: OWN[key] for key in part}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: files[i >= 9] for i, key in enumerate(keys)}}))
    return index


def test_several_files_with_an_index_are_one_model(tmp_path: Path):
    index = shards(tmp_path)
    assert is_own(load(index))
    assert is_own(load(tmp_path)), "the folder will do"
    with pytest.raises(
        ToastError, match=r"is one of 2 files that hold a model together: give model\.safetensors\.index\.json"
    ):
        load(tmp_path / "model-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: (p.parent / "model-00002-of-00002.safetensors").unlink(), "names model-00002-of-00002.safetensors, which is not beside it"),
        (lambda p: p.write_text(p.read_text().replace("model-00002-of", "../model-00002-of")), "is not an index of weights (ValueError"),
        (lambda p: p.write_text('{"weight_map": [1]}'), "is not an index of weights (AttributeError"),
        (lambda p: p.write_text("weights"), "is not an index of weights (JSONDecodeError"),
        (lambda p: p.write_text(p.read_text().replace("cls_token", "class_token")), "should be in model-00001-of-00002.safetensors and is not there"),
    ],
)  # fmt: skip
def test_an_index_that_does_not_serve_is_named(change, sentence: str, tmp_path: Path):
    change(index := shards(tmp_path))
    with pytest.raises(ToastError) as error:
        load(index)
    assert str(error.value).startswith(f"model.checkpoint={index}")
    assert sentence in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_other_precisions_become_fp32_before_anything_is_resized(dtype: torch.dtype, suffix: str, tmp_path: Path):
    stored = {key: value.to(dtype) for key, value in OWN.items()} | {"head.weight": torch.ones(3, 24, dtype=dtype)}
    path = tmp_path / f"w.{suffix}"
    save_file(stored, path) if suffix == "safetensors" else torch.save(stored, path)
    save_file({key: value.float() for key, value in stored.items()}, tmp_path / "wide.safetensors")
    found, wide = (
        models.load("m", "vit_tiny_patch16_224", str(file), image_size=48, options=SIZE)
        for file in (path, tmp_path / "wide.safetensors")
    )
    assert found.fingerprint() == wide.fingerprint()
    assert found.head.weight.dtype == torch.float32


def test_arguments_of_a_training_script_are_plain_values(tmp_path: Path):
    torch.save(
        {"model": OWN, "optimizer": {"state": {0: {"x": torch.ones(2)}}}, "args": argparse.Namespace(lr=1.0)},
        tmp_path / "w.pth",
    )
    assert is_own(load(tmp_path / "w.pth"))


def test_what_else_a_pickle_holds_is_named_and_not_made(tmp_path: Path):
    torch.save({"state_dict": OWN, "best_acc": np.float64(0.9)}, tmp_path / "w.pth")
    with pytest.raises(
        ToastError,
        match=r"it holds numpy\._?core\.multiarray\.scalar, numpy\.dtype.*save its state_dict with safetensors",
    ):
        load(tmp_path / "w.pth")


def test_a_dictionary_that_holds_itself_ends(tmp_path: Path):
    endless: dict = {"cls_token": torch.zeros(1)}
    endless["again"] = endless
    torch.save(endless, tmp_path / "w.pth")
    with pytest.raises(ToastError, match="does not fit the model"):
        load(tmp_path / "w.pth")


def test_the_config_beside_the_weights_knows_the_heads(tmp_path: Path):
    save_file(renamed(OWN, VIT), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 12}))
    with pytest.raises(
        ToastError,
        match=r"has 12 attention heads in its config.json, and the model has 3: .*\+model\.options\.num_heads=12",
    ):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 3, "hidden_act": "quick_gelu"}))
    (note,) = load(tmp_path).notes
    assert note.endswith("has gelu: use +model.options.act_layer=quick_gelu, or its features will be off")
    assert not load(tmp_path, act_layer="quick_gelu").notes
    (tmp_path / "config.json").write_text("[" * 10_000)
    assert not load(tmp_path).notes, "a damaged config is none"


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty: fetch or copy it again."),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a pointer of git-lfs and not the"),
        (b"\n<!DOCTYPE html><title>403</title>", "is a page of HTML, which a server sent instead of weights: fetch it"),
        (b"<html lang=en>" + b"x" * 9999, "is a page of HTML, which a server sent instead of weights: fetch it again"),
    ],
)
def test_what_comes_in_place_of_weights_is_named(content: bytes, sentence: str, ending: str, tmp_path: Path):
    (tmp_path / f"w.{ending}").write_bytes(content)
    with pytest.raises(ToastError, match=sentence):
        load(tmp_path / f"w.{ending}")


@pytest.mark.parametrize("content", [b"junk", b")ei\x80(jXT}3a)))", b"e", b"\x80\x02\x8a", b"Q.", b"h\x01."])
def test_any_bytes_are_told_from_weights(content: bytes, tmp_path: Path):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(ToastError, match="cannot be read as weights"):
        load(tmp_path / "weights.pt")


def test_a_file_is_read_by_what_it_is_and_not_by_its_ending(tmp_path: Path):
    save_file(OWN, tmp_path / "w.pth")
    torch.save(OWN, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        assert is_own(load(tmp_path / name))
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-200])
        with pytest.raises(ToastError, match="is cut off, its end is missing: fetch or copy it again"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("part", "wrapped"),
    [
        ("blocks.0.", "blocks.0._orig_mod."),
        ("blocks.", "_fsdp_wrapped_module.blocks."),
        ("blocks.1.", "blocks.1._fsdp_wrapped_module._checkpoint_wrapped_module."),
    ],
)
def test_modules_that_wrap_blocks_leave_no_trace_in_names(part: str, wrapped: str, tmp_path: Path):
    torch.save({"model": {key.replace(part, wrapped): each for key, each in OWN.items()}}, tmp_path / "w.pth")
    assert is_own(load(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda key, each: {key: (each * 99).to(torch.int8)},
            "in whole numbers .int8., as quantised models do: give the",
        ),
        (
            lambda key, each: {key.replace("qkv.", "qkv.base_layer."): each, f"{key}.lora_A.default": each},
            "it holds LoRA adapters, so merge them into their model first",
        ),
        (
            lambda key, each: {key: torch.cat([each, each], -1)},
            "does not fit the model: cls_token is 1 × 1 × 48, and the",
        ),
    ],
)
def test_weights_that_are_others_than_they_seem_are_named(change, sentence: str, tmp_path: Path):
    torch.save(
        {new: value for key, each in OWN.items() for new, value in change(key, each).items()}, tmp_path / "w.pth"
    )
    with pytest.raises(ToastError, match=sentence):
        load(tmp_path / "w.pth")


def test_a_tilde_that_names_no_user_is_a_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save(OWN, "~nobody-of-that-name.pth")
    assert is_own(load("~nobody-of-that-name.pth"))
    with pytest.raises(ToastError, match="model.checkpoint=~nobody-either.pth is not a file"):
        load("~nobody-either.pth")
    with pytest.raises(ToastError, match="model.name=local-dir:~nobody-either: ~nobody-either has no config.json"):
        models.load("m", "local-dir:~nobody-either")
