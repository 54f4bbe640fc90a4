"""Models, their options and their weights."""

import pytest

from tests.bad_input.conftest import Check

SENTENCES = {
    "run model=dinov2_x": (
        "model=dinov2_x does not exist (did you mean dinov2_s, dinov2_l, dinov2_b?): use one of deit_b, deit_s, "
        "digits_vit, dinov2_b, dinov2_l, dinov2_s, timm, vit_b, vit_l, vit_s, vit_t, or --config-dir <dir> with "
        "your own."
    ),
    "run model.nmae=x": (
        "model.nmae is not a setting (did you mean model.name, model.label, model.image_size?): toast run --help lists them, and "
        "+model.nmae=x would add one."
    ),
    "run +model.wings=2": (
        "_target_=toast_cli.models.factory.load cannot be made: load() takes no wings; toast run --help lists the settings."
    ),
    "run model=[false]": (
        "A group of settings was given no name: write model=<name>, data=<name> and so on; see toast list for the names."
    ),
    "run ~model=false": (
        "A group of settings was given no name: write model=<name>, data=<name> and so on; see toast list for the names."
    ),
    "run model=timm": "model.name is missing: give model.name=<value>, see toast run --help for what it means.",
    "run model.name=vit_smal_patch16_224": "model.name=vit_smal_patch16_224 is not known to timm …",
    "run model.pretrained=no": (
        "model.pretrained=no is neither true nor false: write model.pretrained=true or model.pretrained=false."
    ),
    "run model.image_size=[8,8]": (
        "model.image_size=[8, 8] is not a size: give a whole number of pixels, or null for the model's own."
    ),
    "run model.options=3": "model.options=3 are not arguments: write model.options={depth:6}, or {} for none.",
    "run model.options.depth=x": (
        "timm cannot build vit_tiny_patch16_224 with {'patch_size': 2, 'embed_dim': 64, 'depth': 'x', "
        "'num_heads': 4, 'num_classes': 0, 'img_size': 8}: unsupported operand type(s) for +: 'int' and 'str'; "
        "check model.image_size and model.options."
    ),
    "run model.label=null": "model.label=None is not a name: choose model=<name>, see toast list, or give text as a name for yours.",
    "run model.checkpoint=@nan.safetensors": (
        "model.checkpoint=nan.safetensors has weights that are not finite numbers in blocks.3.mlp.fc1.weight: fetch "
        "or copy it again."
    ),
    "run model.checkpoint=@inf.safetensors": (
        "model.checkpoint=inf.safetensors has weights that are not finite numbers in blocks.3.mlp.fc1.weight: fetch "
        "or copy it again."
    ),
    "run model.checkpoint=nowhere.safetensors": (
        "model.checkpoint=nowhere.safetensors is not a file: give the path of a safetensors or torch weights file."
    ),
    "run model.checkpoint=pkg://nowhere/x": (
        "model.checkpoint=pkg://nowhere/x does not name an installed package: write pkg://<package>/<file>."
    ),
    "run model.checkpoint=@folder.safetensors": (
        "model.checkpoint=folder.safetensors is a folder without model.safetensors: give the path of a safetensors or torch "
        "weights file."
    ),
    "run model.checkpoint=@empty.safetensors": "model.checkpoint=empty.safetensors is empty: fetch or copy it again.",
    "run model.checkpoint=@cut.safetensors": (
        "model.checkpoint=cut.safetensors is cut off, its end is missing: fetch or copy it again."
    ),
    "run model.checkpoint=@other.safetensors": (
        "model.checkpoint=other.safetensors does not fit the model (150 weights are missing, such as cls_token; 1 "
        "are unknown, such as conv.weight): choose the model it was saved from."
    ),
    "run model.checkpoint=@payload.pt": "model.checkpoint=payload.pt cannot be read as weights (…",
    "run model.checkpoint=@payload.pkl": "model.checkpoint=payload.pkl cannot be read as weights (…",
    "run model.checkpoint=@class.pt": "model.checkpoint=class.pt cannot be read as weights (…",
}


@pytest.mark.parametrize("command", SENTENCES)
def test_one_line_says_what_is_wrong(command: str, check_one_line: Check):
    check_one_line(command, SENTENCES[command])
