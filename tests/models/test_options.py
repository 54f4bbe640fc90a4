"""Options of a model shape it: they never say where its weights come from, whoever wrote them."""

import pytest

from tests.conftest import tiny
from toast_cli.errors import ToastError
from toast_cli.models import factory as models

REFUSED = {
    "checkpoint_path": "/etc/passwd", "pretrained_cfg": {"file": "x"}, "pretrained_cfg_overlay": {"url": "x"}, "cache_dir": "/x",
    "pretrained": True, "features_only": True, "norm_layer": {"_target_": "os.system"}, "act_layer": print, "depth": 10**9,
    "embed_dim": 10**9, "img_size": [10**9, 10**9], "mlp_ratio": float("inf"), "reg_tokens": 10**9, "class_token": [[True]],
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_shape_a_model_is_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models.timm, "create_model", lambda *_, **__: pytest.fail("timm was asked"))
    with pytest.raises(ToastError, match=f"^timm cannot build vit_tiny_patch16_224 with '?{name}") as caught:
        models.load("t", "vit_tiny_patch16_224", pretrained=False, options={name: REFUSED[name]})
    assert str(caught.value).count("\n") == 0


def test_what_shapes_a_model_is_taken():
    options = {
        "class_token": True,
        "global_pool": "token",
        "act_layer": "gelu",
        "init_values": None,
        "mlp_ratio": 2.5,
        "qk_norm": True,
    }
    assert tiny(**options).vit.blocks[0].mlp.fc1.out_features == 80
    assert tiny("vit_small_patch16_dinov3", rope_temperature=50.0).depth == 3
