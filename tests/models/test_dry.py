"""Models that do not take square pictures, or give no vector, are refused before anything is fetched."""

import pytest

from tests.conftest import tiny
from toast_cli.errors import ToastError
from toast_cli.models import factory as models


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"img_size": [64, 32]},
            "takes images of 64 × 32 pixels, and toast crops images to squares: give model.image_size=<pixels>",
        ),
        (
            {"img_size": 8},
            "takes images of 8 pixels, in which there is not a single patch: give a larger model.image_size.",
        ),
        (
            {"in_chans": 2},
            "takes images of 2 channels, and toast decodes pictures in grey, RGB or four channels: give in_chans 1, 3 or 4, or shorten",
        ),
        (
            {"global_pool": ""},
            "gives (197, 192) numbers for an image, and a probe needs one vector: give global_pool=token or avg",
        ),
        ({"embed_dim": 100}, "timm cannot build vit_tiny_patch16_224 with"),
        ({"global_pool": "map", "class_token": False, "num_heads": 7}, "timm cannot build vit_tiny_patch16_224 with"),
    ],
)
@pytest.mark.parametrize("pretrained", [True, False])
def test_what_cannot_be_a_backbone_is_named(options: dict, sentence: str, pretrained: bool):
    with pytest.raises(ToastError) as error:
        models.load("m", "vit_tiny_patch16_224", pretrained=pretrained, options=options)
    assert sentence in str(error.value)
    assert "the hub" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"global_pool": "max"},
        {"global_pool": "avg", "class_token": False},
        {"pos_embed": "none"},
        {"dynamic_img_size": True},
        {"in_chans": 1},
        {"in_chans": 4},
    ],
)
def test_unusual_models_that_can_be_used(options: dict):
    assert tiny(**options).depth == 3
