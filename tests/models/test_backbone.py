"""The paper's readout."""

import pytest
import torch

from tests.conftest import pixels, tiny
from toast_cli.errors import ToastError
from toast_cli.models import factory as models


def test_the_papers_readout_is_a_random_dense_layer_and_tanh():
    backbone = models.Backbone(tiny().vit, "tiny", 32, readout="paper")
    plain = tiny()
    latent, _ = backbone.stem(pixels())
    expected = torch.tanh(backbone.pooler[0](plain.readout(latent)))
    assert torch.allclose(backbone.readout(latent), expected)
    assert backbone.pooler[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    again = models.Backbone(tiny().vit, "tiny", 32, readout="paper")
    assert torch.equal(again.readout(latent), backbone.readout(latent)), "the same in every run"
    assert models.Backbone(tiny("vit_small_patch14_dinov2").vit, "d", 32, readout="paper").pooler is None
    with pytest.raises(ToastError, match="readout=papr is not known .did you mean paper"):
        models.Backbone(tiny().vit, "tiny", 32, readout="papr")
