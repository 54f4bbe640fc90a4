"""Exports of several plans: what is stored once, what is read, plans that are switched, and recipes from strangers."""

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from tests.conftest import tiny
from tests.exports import damage, saved_plans
from toast_cli import Plan, load, load_elastic
from toast_cli.errors import ToastError
from toast_cli.files import sealed
from toast_cli.models.timm_parts import attach_head
from toast_cli.surgery.parts import BlockPart, join, parts_of
from toast_cli.surgery.recipe import RECIPE, WEIGHTS, checksum
from toast_cli.surgery.saved import recipe_of, write_weights

BACKBONE = tiny()
PLANS = ("none", "0-1", "0-1a", "0-1+1-2")
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
SEEN = {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center", "mean": [0.5] * 3, "std": [0.5] * 3}


def made() -> dict[str, tuple[nn.Module, list]]:
    """Models of the plans with the same map for the same span, and a head for each; block 2 of 0-1 is healed."""
    torch.manual_seed(0)
    maps = {span: nn.Linear(32, 32) for plan in PLANS for span in Plan.parse(plan).spans}
    models = {}
    for text in PLANS:
        parts = parts_of(BACKBONE, Plan.parse(text), maps)
        if text == "0-1":
            healed = copy.deepcopy(parts[-1].module)
            healed.mlp.fc2.bias.data += 1
            parts[-1] = BlockPart(2, healed)
        vit = join(parts).eval()
        attach_head(vit, nn.Linear(32, 5), 5)
        models[text] = vit, parts
    return models


@pytest.fixture(scope="module")
def _honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elastic")
    saved_plans(folder, made(), BACKBONE)
    damage(folder, lambda recipe: recipe["pretrained_cfg"].update(SEEN, label_names=list("abcde")))
    return folder


@pytest.fixture
def export(_honest: Path, tmp_path: Path) -> Path:
    """An export of the plans that a test may change; a photo lies beside it."""
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    return Path(shutil.copytree(_honest, tmp_path / "it"))


@pytest.mark.parametrize(("dtype", "plans"), [(torch.float32, PLANS), (torch.float16, ["0-1"])])
def test_every_plan_is_the_export_that_it_would_be_alone(tmp_path: Path, dtype: torch.dtype, plans: list[str]):
    models = made()
    saved_plans(tmp_path, models, BACKBONE, dtype)
    for text in plans:
        vit, parts = models[text]
        alone = tmp_path / text
        alone.mkdir()
        write_weights(alone, vit, dtype)
        recipe = recipe_of(vit, BACKBONE.recipe, parts) | {"weights": checksum(alone / WEIGHTS)}
        recipe["pretrained_cfg"] = {"num_classes": 5, "input_size": [3, 32, 32]}
        (alone / RECIPE).write_text(json.dumps(recipe))
        ours, theirs = load(tmp_path, plan=text), load(alone)
        assert [*ours.state_dict()] == [*theirs.state_dict()]
        assert all(torch.equal(ours.state_dict()[key], value) for key, value in theirs.state_dict().items())
        with torch.inference_mode():
            assert torch.equal(ours(IMAGES), theirs(IMAGES))


def test_what_plans_share_is_stored_once(tmp_path: Path):
    models = made()
    shared = saved_plans(tmp_path, models, BACKBONE)
    stored = load_file(tmp_path / WEIGHTS)
    maps, heads = 3 * (32 * 32 + 32), len(PLANS) * (32 * 5 + 5)
    own = 32  # the healed bias
    whole = sum(p.numel() for p in BACKBONE.vit.parameters())
    assert sum(value.numel() for value in stored.values()) == whole + maps + heads + own
    assert {name for name in stored if "@" in name and not name.startswith(("head.", "maps."))} == {
        "blocks.2.mlp.fc2.bias@0-1"
    }
    assert {name.split(".")[1] for name in stored if name.startswith("maps.")} == {"0-1", "0-1a", "1-2"}
    sizes = []
    for text, (vit, _) in models.items():
        (tmp_path / text).mkdir()
        write_weights(tmp_path / text, vit, torch.float32)
        sizes.append((tmp_path / text / WEIGHTS).stat().st_size)
    assert shared.alone == sum(sizes)
    assert (tmp_path / WEIGHTS).stat().st_size < 0.6 * sum(sizes)


def test_equal_tensors_of_other_parts_are_not_taken_for_one(tmp_path: Path):
    """To train one of them would change the other."""
    models = made()
    for vit, _ in models.values():
        for module in vit.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
    stored = saved_plans(tmp_path, models, BACKBONE).tensors
    assert {"norm.weight", *(f"blocks.{i}.norm{k}.weight" for i in range(3) for k in (1, 2))} <= stored.keys()


def test_only_the_tensors_of_the_plan_are_read(export: Path):
    """A tensor that only another plan has may be damaged."""
    weights = load_file(export / WEIGHTS)
    weights["blocks.2.mlp.fc2.bias@0-1"][3] += 1
    save_file(weights, export / WEIGHTS)
    load(export, plan="none")
    with pytest.raises(ToastError, match=r"blocks\.2\.mlp\.fc2\.bias@0-1 was changed; export the model again"):
        load(export, plan="0-1")


def test_plans_are_switched_in_memory(export: Path):
    model = load_elastic(export)
    assert [(each.plan, each.accuracy, each.params, each.gflops) for each in model.plans] == [
        (plan, 0.5, 7, 1.5) for plan in PLANS
    ]
    assert model.plan == "none"
    assert model.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    with torch.inference_mode():
        alone = {plan: load(export, plan=plan)(IMAGES) for plan in PLANS}
        for plan in (*PLANS, *PLANS):
            assert torch.equal(model.use(plan)(IMAGES), alone[plan])
        assert torch.equal(model.use("1-2+0-1")(IMAGES), alone["0-1+1-2"]), "spans in another order"
        again = pickle.loads(pickle.dumps(model))
        assert torch.equal(again(IMAGES), model(IMAGES))
    with pytest.raises(ToastError, match=r"no plan 2-3: it has none, 0-1, 0-1a, 0-1\+1-2\.$"):
        model.use("2-3")


def test_plans_share_their_parameters(export: Path):
    model = load_elastic(export)
    stored = sum(value.numel() for value in load_file(export / WEIGHTS).values())
    assert sum(p.numel() for p in model.parameters()) == stored
    model.double()
    none, other = model.models["none"], model.models["0-1a"]
    assert none.blocks[2].mlp.fc2.weight.data_ptr() == other.blocks[-1].mlp.fc2.weight.data_ptr(), (
        "moved, and still one"
    )
    with torch.inference_mode():
        before = other(IMAGES.double())
    optimizer = torch.optim.SGD(none.parameters(), 0.1)
    none(IMAGES.double()).sum().backward()
    optimizer.step()
    with torch.inference_mode():
        assert not torch.equal(other(IMAGES.double()), before), "training one trains what it shares with others"


def test_which_plan_is_meant(export: Path, toast):
    sentence = "it holds several plans, none, 0-1, 0-1a, 0-1+1-2: say which one, such as plan 0-1+1-2."
    with pytest.raises(ToastError) as caught:
        load("it")
    assert str(caught.value) == sentence
    assert toast("predict", "it", "photo.png") == (1, "", f"toast: {sentence}\n")
    assert toast("predict", "it", "photo.png", "--plan", "0-2")[2].startswith("toast: it has no plan 0-2 (did you mean")
    damage(export, lambda recipe: recipe.update(chosen="0-1"))
    with torch.inference_mode():
        assert torch.equal(load(export)(IMAGES), load(export, plan="0-1")(IMAGES))
    assert load_elastic(export).plan == "0-1"
    chosen = toast("predict", "it", "photo.png")
    assert chosen == toast("predict", "it", "photo.png", "--plan", "0-1")
    assert chosen[0] == 0
    assert chosen[1] != toast("predict", "it", "photo.png", "--plan", "none")[1]


LIST, UNLIKE = "does not list plans and their tensors: export the model again.", "does not describe model.safetensors"


def entry(**changes: object) -> Callable[[dict], object]:
    return lambda recipe: recipe["plans"][1].update(changes)


def tensors(**changes: object) -> Callable[[dict], object]:
    return lambda recipe: recipe["plans"][1]["tensors"].update(changes)


HOSTILE: dict[str, tuple[Callable[[dict], object], str]] = {
    "no plans": (lambda recipe: recipe.pop("plans"), LIST),
    "an empty list": (lambda recipe: recipe.update(plans=[]), LIST),
    "plans in an object": (lambda recipe: recipe.update(plans={"0-1": {}}), LIST),
    "plans of text": (lambda recipe: recipe.update(plans=["0-1"]), LIST),
    "a plan twice": (entry(plan="none"), LIST),
    "a number": (entry(plan=3), LIST),
    "no plan": (entry(plan="rm -rf /"), LIST),
    "escapes": (entry(plan="\x1b[2J"), LIST),
    "spans out of order": (entry(plan="1-2+0-1"), LIST),
    "a long plan": (entry(plan="+".join(f"{i}-{i + 1}" for i in range(9000))), LIST),
    "tensors in a list": (entry(tensors=["norm.bias"]), LIST),
    "a tensor of a number": (tensors(**{"norm.bias": 3}), LIST),
    "a tensor that is not there": (tensors(**{"norm.bias": "/etc/passwd"}), UNLIKE),
    "a tensor of another shape": (tensors(**{"norm.bias": "head.bias"}), UNLIKE),
    "more tensors": (tensors(more="norm.bias"), UNLIKE),
    "no tensors": (entry(tensors={}), UNLIKE),
    "no checksums": (lambda recipe: recipe.pop("tensors"), "was changed; export the model again"),
    "checksums of numbers": (lambda recipe: recipe.update(tensors=dict.fromkeys(recipe["tensors"], 0)), "was changed"),
    "checksums in a list": (lambda recipe: recipe.update(tensors=[]), "was changed"),
    "many blocks": (entry(blocks=[0] * 10**4), UNLIKE),
    "no blocks": (entry(blocks=None), UNLIKE),
    "a layer of its own": (lambda recipe: recipe["plans"][1]["blocks"].__setitem__(1, {"kind": "os.system"}), "names a layer"),
    "no architecture": (lambda recipe: recipe.pop("architecture"), UNLIKE),
    "the format of one plan": (lambda recipe: recipe.update(format="toast-export-1"), "not 0-1: leave the plan out"),
    "another format": (lambda recipe: recipe.update(format="toast-elastic-9"), "is not in this version's format"),
    "no weights": (lambda recipe: recipe.pop("weights"), "holds no model.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_recipe_of_a_strangers(kind: str, export: Path):
    change, sentence = HOSTILE[kind]
    damage(export, change)
    with pytest.raises(ToastError) as caught:
        load(export, plan="0-1")
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 700
    assert str(caught.value).isprintable()
    with pytest.raises(ToastError):
        load_elastic(export)


@pytest.mark.parametrize("value", [["0-1"], "9-11"])
def test_a_choice_that_is_no_plan_is_none(value: object, export: Path):
    damage(export, lambda recipe: recipe.update(chosen=value))
    with pytest.raises(ToastError, match="holds several plans"):
        load(export)
    assert load_elastic(export).plan == "none"


def test_numbers_that_are_none_are_not_shown(export: Path):
    damage(export, entry(accuracy="high", params=None, gflops=float("nan")))
    listed = load_elastic(export).plans[1]
    assert (listed.accuracy, listed.params, listed.gflops) == (None, None, None)


def test_a_file_that_was_damaged(export: Path):
    content = (export / WEIGHTS).read_bytes()
    for damaged in (content[:-9], b"", b"\x80\x04cos\nsystem\n", content[:8] + b"?" + content[9:]):
        (export / WEIGHTS).write_bytes(damaged)
        with pytest.raises(ToastError, match=UNLIKE):
            load(export, plan="0-1")
    recipe = json.loads((export / RECIPE).read_text())
    (export / WEIGHTS).write_bytes(content)
    (export / RECIPE).write_text(json.dumps(sealed(recipe)))
    load(export, plan="0-1")
    damage(export, lambda recipe: recipe["plans"][1].update(accuracy=0.9))
    with pytest.raises(ToastError, match="recipe.json was changed after it was written"):
        load(export, plan="0-1")


def test_a_tensor_that_stands_for_many_is_read_once(export: Path, monkeypatch: pytest.MonkeyPatch):
    """So that a small file cannot take much memory."""
    from toast_cli.surgery import elastic

    read = []
    monkeypatch.setattr(elastic, "checksum_of", lambda value: read.append(value) or "sum")
    damage(export, lambda recipe: recipe.update(tensors=dict.fromkeys(recipe["tensors"], "sum")))
    norms = [f"blocks.{i}.norm{k}.bias" for i in (0, 2) for k in (1, 2)]
    damage(export, lambda recipe: recipe["plans"][0]["tensors"].update(dict.fromkeys(norms, "norm.bias")))
    load(export, plan="none")
    assert len(read) == len(BACKBONE.vit.state_dict()) + 2 - len(norms)
