"""Attention by products against its formula in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from toast_cli.layers import multiplied_by_onednn
from toast_cli.models import attention as module
from toast_cli.models.attention import attention


def drawn(images: int, heads: int, tokens: int, width: int, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values in bf16, (N, H, T, d), as views of one tensor (N, T, 3·H·d)."""
    together = scale * torch.randn(images, tokens, 3, heads, width, generator=torch.Generator().manual_seed(0))
    query, key, value = together.bfloat16().permute(2, 0, 3, 1, 4)
    return query, key, value


def error(found: Tensor, *parts: Tensor) -> float:
    query, key, value = (part.double() for part in parts)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    shares = (scores - scores.amax(-1, keepdim=True)).exp()
    expected = (shares / shares.sum(-1, keepdim=True) @ value).transpose(1, 2).flatten(2)
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.mark.skipif(
    not multiplied_by_onednn(torch.empty(0, dtype=torch.bfloat16)), reason="oneDNN has no products in bf16 here"
)
@pytest.mark.parametrize("at_once", [1, 2 * 3 * 37**2, 2**19])  # scores: of one head, of six, of all
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_scores_are_not_rounded_to_bf16(at_once: int, scale: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_multiplies_faster", lambda tensor: True)
    monkeypatch.setattr(module, "_SCORES", at_once)
    parts = drawn(5, 3, 37, 24, scale)
    found = attention(*parts)
    assert found.shape == (5, 37, 72)
    assert found.dtype == torch.bfloat16
    assert error(found, *parts) < 2 * error(fused(*parts), *parts) < 0.005


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_does_it_where_that_is_fast(amx: bool, bf16: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "multiplied_by_onednn", lambda tensor: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(module, "_by_products", lambda *parts: "by products")
    found = attention(*(part.to(dtype) for part in drawn(2, 2, 5, 8)))
    assert (found == "by products") == (dtype == torch.bfloat16 and bf16 and not amx)
