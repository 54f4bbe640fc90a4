"""The encoder is found wherever it lies in a file, and of several the one that is better, which is said."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.by_hand import weights
from tests.models.test_checkpoints import OWN, is_own, load
from toast_cli.errors import ToastError

OTHER = {key: value + 1 for key, value in OWN.items()}
HEAD = {"dino_head.mlp.0.weight": torch.zeros(4, 24)}


def under(prefix: str, found: dict[str, Tensor] = OWN) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in found.items()}


@pytest.mark.parametrize(
    "stored",
    [
        under("module."), under("_orig_mod."), under("module._orig_mod."), under("model."), under("backbone."), under("encoder."), under("net."),
        under("visual.trunk."), under("teacher.backbone.") | HEAD, {"teacher": under("backbone.") | HEAD}, {"model_state_dict": OWN},
        {"state_dict": under("model.") | {"criterion.weight": torch.ones(3)}, "hyper_parameters": {"lr": 0.1}, "epoch": 3},
        {"epoch": 1, "backbone_state_dict": OWN}, {"state_dict": {"module": under("model.encoder.")}},
        {key.replace("blocks.", "blocks.0.", 1): value for key, value in OWN.items()},
        {**OWN, "masked_embed": torch.zeros(1, 24), "decoder_blocks.0.norm1.weight": torch.ones(3), "decoder_pos_embed": torch.ones(1)},
    ],
)  # fmt: skip
def test_one_encoder_needs_no_word(stored: dict, tmp_path: Path):
    torch.save(stored, tmp_path / "epoch=3-step=120.ckpt")
    backbone = load(tmp_path / "epoch=3-step=120.ckpt")
    assert is_own(backbone)
    assert not backbone.notes


@pytest.mark.parametrize(
    ("stored", "taken", "left"),
    [
        ({"state_dict": OTHER, "state_dict_ema": OWN}, "state_dict_ema", "state_dict"),
        ({"model": OTHER, "model_ema": under("module.")}, "model_ema.module", "model"),
        (
            {"model": under("teacher.backbone.") | under("student.backbone.", OTHER)},
            "model.teacher.backbone",
            "model.student.backbone",
        ),
        (
            {"student": under("module.backbone.", OTHER), "teacher": under("backbone.")},
            "teacher.backbone",
            "student.module.backbone",
        ),
        (
            {"encoder": under("module.", OTHER), "target_encoder": under("module.")},
            "target_encoder.module",
            "encoder.module",
        ),
    ],
)
def test_of_several_the_running_mean_or_the_teacher_is_taken_and_said(
    stored: dict, taken: str, left: str, tmp_path: Path
):
    torch.save(stored, tmp_path / "w.pth")
    backbone = load(tmp_path / "w.pth")
    assert is_own(backbone)
    assert backbone.notes == (
        f"model.checkpoint={tmp_path / 'w.pth'} holds several models: {taken} was taken, not {left}",
    )


def test_several_that_nothing_tells_apart_are_named(tmp_path: Path):
    torch.save(under("base_encoder.") | under("momentum_encoder.", OTHER), tmp_path / "w.pth")
    with pytest.raises(
        ToastError,
        match="holds several models, under base_encoder and momentum_encoder: save the weights of one of them",
    ):
        load(tmp_path / "w.pth")


def test_a_part_of_another_model_is_no_encoder(tmp_path: Path):
    torch.save(
        under(
            "base_model.model.",
            {key.replace("attn.qkv", "attn.qkv.base_layer"): value for key, value in weights().items()},
        ),
        tmp_path / "w.pth",
    )
    with pytest.raises(
        ToastError,
        match=r"4 weights are missing, such as blocks.0.attn.qkv.weight; 4 are unknown, such as blocks.0.attn.qkv.base_layer",
    ):
        load(tmp_path / "w.pth")
