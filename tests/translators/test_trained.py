"""Maps that are trained on latents on disk."""

import pytest
import torch

from tests.moments.conftest import some_latents
from tests.translators.conftest import fit_for


def test_a_trained_map_learns_and_its_seed_decides(tmp_path):
    x, y = some_latents()
    for side in (x, y):
        side[:, 0, 3] -= 300  # full-batch Adam needs more than a few hundred steps for a massive activation
    few, many = (fit_for(name_steps, x, y, tmp_path, 0.02) for name_steps in (("mlp", 5), ("mlp", 400)))
    assert many.r2_ > few.r2_ + 0.3
    again = fit_for(("mlp", 5), x, y, tmp_path, 0.02)
    assert torch.equal(again.to_module()(x), few.to_module()(x))


def test_chunks_do_not_matter(tmp_path, monkeypatch):
    x, y = some_latents()
    whole = fit_for(("deep_mlp", 10), x, y, tmp_path)
    monkeypatch.setattr("toast_cli.translators.trained._CHUNK", 9 * 8 * 7)
    parts = fit_for(("deep_mlp", 10), x, y, tmp_path)
    assert torch.allclose(whole.to_module()(x), parts.to_module()(x), atol=1e-3)
    assert parts.error_ == pytest.approx(whole.error_, rel=1e-4)
