"""The script that makes a file of text embeddings, with a stand-in for OpenCLIP: its text towers cannot be fetched here."""

import json
import math
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from toast_cli.models.imagenet import ids_of_outputs
from toast_cli.probes.texts import read_texts

SCRIPT = Path(__file__).parents[2] / "scripts" / "text_embeddings.py"


class Tower(torch.nn.Module):
    """A text is its numbers of letters and of words, and how often it has an o."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(100.0)))

    def encode_text(self, text: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        return torch.nn.functional.normalize(text, dim=-1) if normalize else text


def numbers(text: str) -> list[float]:
    return [len(text), 1 + text.count(" "), 3 * text.count("o")]


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch):
    def create_model(name: str, pretrained: str, require_pretrained: bool) -> Tower:
        assert (name, pretrained, require_pretrained) == ("ViT-B-16", "openai", True)
        return Tower()

    library = SimpleNamespace(
        create_model=create_model,
        get_tokenizer=lambda name: lambda texts: torch.tensor([numbers(text) for text in texts], dtype=torch.float32),
        OPENAI_IMAGENET_TEMPLATES=(lambda c: f"a photo of a {c}.", lambda c: f"art of the {c}."),
        IMAGENET_CLASSNAMES=[f"word {i}" for i in range(1000)],
    )
    monkeypatch.setitem(sys.modules, "open_clip", library)

    def call(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["text_embeddings.py", "ViT-B-16", "openai", "text.safetensors", *words])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return call


def direction(*sentences: str) -> np.ndarray:
    rows = np.array([numbers(each) for each in sentences], float)
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0)
    return mean / np.linalg.norm(mean)


def test_the_probe_reads_what_it_writes(write, tmp_path: Path):
    (tmp_path / "classes.json").write_text(json.dumps({"n1": "cold toast", "n2": "fox"}))
    write("--classes", "classes.json")
    found = read_texts("text.safetensors")
    wanted = [direction(f"a photo of a {each}.", f"art of the {each}.") for each in ("cold toast", "fox")]
    assert found.directions.numpy() == pytest.approx(np.stack(wanted), abs=1e-6)
    assert (found.names, found.scale) == (("n1", "n2"), pytest.approx(100, rel=1e-5))


def test_classes_of_a_run_and_sentences_of_one_s_own(write, tmp_path: Path):
    (tmp_path / "run.json").write_text(json.dumps({"classes": ["red_fox", "owl"]}))
    write("--run", ".", "--template", "no {} here", "--template", "a {}")
    found = read_texts("text.safetensors")
    assert found.names == ("red_fox", "owl")
    assert found.directions[0].numpy() == pytest.approx(direction("no red fox here", "a red fox"), abs=1e-6)


def test_imagenet_goes_by_wordnet_id(write):
    write("--imagenet", "--template", "{}")
    found = read_texts("text.safetensors")
    assert found.names == tuple(ids_of_outputs(1000))
    assert found.directions[5].numpy() == pytest.approx(direction("word 5"), abs=1e-6)
