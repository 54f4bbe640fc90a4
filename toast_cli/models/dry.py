"""A dry pass through a model on torch's meta device: whether it takes images as toast makes them, and gives features.

Shapes: F features.
"""

import torch

from toast_cli.errors import ToastError
from toast_cli.models.preprocessing import CHANNELS
from toast_cli.models.timm_parts import Vit, channels_of


@torch.inference_mode()
def check_dry(vit: Vit, name: str) -> None:
    """Check a model on the meta device. Raises ToastError if it is not for square images of 1, 3 or 4 channels, or gives no vector.

    Raises what timm and torch raise for images of its size, if it does not take these.
    """
    height, width = vit.patch_embed.img_size
    if height != width:
        raise ToastError(
            f"{name} takes images of {height} × {width} pixels, and toast crops images to squares: give model.image_size=<pixels>, or shorten "
            "the model in memory with toast_cli.compress."
        )
    if vit.patch_embed.num_patches < 1:
        raise ToastError(
            f"{name} takes images of {height} pixels, in which there is not a single patch: give a larger model.image_size."
        )
    channels = channels_of(vit)
    if channels not in CHANNELS:
        raise ToastError(
            f"{name} takes images of {channels} channels, and toast decodes pictures in grey, RGB or four channels: give in_chans 1, 3 or 4, or "
            "shorten the model in memory with toast_cli.compress."
        )
    latent = vit.eval().forward_features(torch.empty(2, channels, height, width, device="meta"))
    features = vit.forward_head(latent, pre_logits=True)
    if features.shape != (2, vit.head_hidden_size):
        raise ToastError(
            f"{name} gives {tuple(features.shape[1:])} numbers for an image, and a probe needs one vector: give global_pool=token or avg in "
            "model.options."
        )
