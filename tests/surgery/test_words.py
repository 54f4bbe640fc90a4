"""Layers in plain words."""

import json

import pytest
import torch

from toast_cli.errors import ToastError
from toast_cli.layers import ByPosition, Residual, Shift, UnitLength, blank_context
from toast_cli.surgery.words import build, describe


def test_every_layer_reads_back():
    module = torch.nn.Sequential(
        torch.nn.LayerNorm(8), Residual(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.SiLU())), torch.nn.GELU(),
        ByPosition([Shift(torch.ones(8)), torch.nn.Linear(8, 8, bias=False)], [slice(0, 1), slice(1, 4)]),
        blank_context(1, 8), blank_context(0, 8), UnitLength(),
    )  # fmt: skip
    again = build(json.loads(json.dumps(describe(module))))
    again.load_state_dict(module.state_dict())
    x = torch.randn(2, 4, 8)
    assert torch.equal(again(x), module(x))
    with pytest.raises(ToastError, match="A Bilinear cannot be described in an export"):
        describe(torch.nn.Bilinear(2, 2, 2))
