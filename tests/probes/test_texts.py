"""Files of text embeddings: what may be in them, and how prompts are averaged."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from toast_cli.errors import ToastError
from toast_cli.probes.texts import read_texts


def written(tensors: dict[str, torch.Tensor], classes: object = None) -> str:
    save_file(tensors, "text.safetensors", metadata=None if classes is None else {"classes": json.dumps(classes)})
    return "text.safetensors"


def test_prompts_are_averaged_between_two_normalisations():
    text = np.random.default_rng(0).normal(size=(3, 5, 4)) * np.arange(1, 6)[:, None]
    file = written({"text": torch.from_numpy(text).half(), "scale": torch.tensor(50.0)}, ["cafe\u0301", "b", "c"])
    found = read_texts(file)
    stored = torch.from_numpy(text).half().double().numpy()
    unit = stored / np.sqrt((stored**2).sum(-1, keepdims=True))
    mean = unit.sum(1)
    assert found.directions.numpy() == pytest.approx(mean / np.sqrt((mean**2).sum(-1, keepdims=True)), abs=1e-6)
    assert (found.names, found.scale) == (("caf\xe9", "b", "c"), 50.0)
    plain = read_texts(written({"text": torch.from_numpy(text[:, 0]).float()}))
    assert plain.directions.numpy() == pytest.approx(text[:, 0] / np.linalg.norm(text[:, 0], axis=1, keepdims=True))
    assert (plain.names, plain.scale) == (None, 1.0)
    assert plain.checksum != found.checksum


ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("tensors", "classes", "told"),
    [
        (
            {"t": ONES},
            None,
            r"holds t \(2, 3\): it must hold a tensor text of floating point numbers, \(classes, width\)",
        ),
        ({"text": ONES.long()}, None, r"holds text \(2, 3\): it must hold a tensor text of floating"),
        ({"text": ONES[0]}, None, r"holds text \(3,\): it must"),
        ({"text": ONES * torch.tensor([[1.0], [0.0]])}, None, "has an embedding that is 0 or not finite"),
        ({"text": ONES * torch.nan}, None, "has an embedding that is 0 or not finite"),
        (
            {"text": ONES},
            ["a"],
            "has embeddings of 2 classes, and its metadata does not name as many different ones under",
        ),
        ({"text": ONES}, ["a", "a"], "does not name as many different ones"),
        ({"text": ONES}, {"a": 1}, "does not name as many different ones"),
        (
            {"text": ONES, "scale": torch.tensor(-1.0)},
            None,
            "has a scale that is no number above 0: write what cosines",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tensors: dict[str, torch.Tensor], classes: object, told: str):
    with pytest.raises(ToastError, match=told):
        read_texts(written(tensors, classes))


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "text.pt").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ToastError, match="text.pt cannot be read as a safetensors file"):
        read_texts("text.pt")
    with pytest.raises(
        ToastError, match="probe.text=nowhere is not a file: give a safetensors file of text embeddings"
    ):
        read_texts("nowhere")
    with pytest.raises(
        ToastError, match="probe=zero_shot compares images with text embeddings: give probe.text=<file>"
    ):
        read_texts(None)
