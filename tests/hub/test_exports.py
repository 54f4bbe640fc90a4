"""Exports on the hub: fetched by their name, by toast and by timm."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from tests.conftest import pixels, tiny
from tests.exports import damage, saved, saved_plans
from tests.hub.conftest import offline
from tests.hub.stand_in import GOOD_TOKEN, Hub, Stored
from toast_cli import Plan, load, load_elastic
from toast_cli.errors import ToastError
from toast_cli.hub.listening import listening
from toast_cli.models.timm_parts import attach_head
from toast_cli.surgery import standalone
from toast_cli.surgery.fetched import Export
from toast_cli.surgery.parts import join, parts_of
from toast_cli.surgery.recipe import RECIPE, WEIGHTS, read_recipe
from toast_cli.surgery.saved import write_weights

NAME = "someone/short-vit"


def export(folder: Path, **recipe: object) -> tuple[torch.nn.Module, dict[str, bytes]]:
    """A shortened model, and the files of its export, with code of a stranger's beside them."""
    folder.mkdir()
    vit = saved(folder, tiny())
    (folder / RECIPE).write_text(json.dumps(json.loads((folder / RECIPE).read_text()) | recipe))
    (folder / "modeling.py").write_text("raise SystemExit('a stranger was here')")
    (folder / "README.md").write_text("a card")
    return vit, {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, dict[str, bytes]]:
    return export(tmp_path_factory.mktemp("theirs") / "it")


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, dict[str, bytes]]:
    """Another export: what its model does, and the two files that differ."""
    folder = tmp_path_factory.mktemp("later")
    return saved(folder, tiny(), "1-2"), {name: (folder / name).read_bytes() for name in (RECIPE, WEIGHTS)}


@pytest.fixture
def stored(empty_hub: Hub, theirs) -> tuple[torch.nn.Module, Stored]:
    vit, files = theirs
    return vit, empty_hub.add(NAME, dict(files))


def same(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    with torch.inference_mode():
        return torch.equal(model(pixels() / 255), other(pixels() / 255))


def test_recipe_and_weights_are_fetched_and_nothing_else(stored, empty_hub: Hub, monkeypatch: pytest.MonkeyPatch):
    vit, _ = stored
    lines: list[str] = []
    with listening(lines.append):
        assert same(load(NAME), vit)
    assert [line.partition(" to ")[0] for line in lines] == [
        f"fetching {NAME} from the hub: {len(stored[1].files[WEIGHTS]) / 1000:.0f} kB"
    ]
    asked = {re.search(r"/resolve/\w+/([^?]+)", each.what)[1] for each in empty_hub.requests("resolve")}
    assert asked == {RECIPE, WEIGHTS}
    sent = empty_hub.sent("signature=x")
    assert same(load(NAME), vit)
    assert empty_hub.sent("signature=x") == sent, "the weights are in the cache"
    offline(True, monkeypatch)
    with listening(lines.append):
        assert same(load(NAME), vit)
    assert lines[-1] == f"{NAME} is read as the cache holds it (HF_HUB_OFFLINE is set)"
    offline(False, monkeypatch)
    empty_hub.stop()
    with listening(lines.append):
        assert same(load(NAME), vit)
    assert lines[-1].startswith(f"{NAME} is read as the cache holds it (")


def test_the_newest_commit_is_read_and_an_older_one_by_its_name(stored, later, empty_hub: Hub):
    vit, there = stored
    first, before, other = there.commit, load(NAME), later[0]
    there.change(later[1])
    assert same(load(NAME), other)
    assert not same(before, other)
    asked = len(empty_hub.asked)
    assert same(load(f"{NAME}@{first}"), vit)
    assert len(empty_hub.asked) == asked, "a commit in the cache never changes"
    assert same(load(f"{NAME}@main"), other)
    with pytest.raises(ToastError, match=r"Invalid rev id: v7"):
        load(f"{NAME}@v7")


def test_a_folder_of_that_name_comes_first(stored, empty_hub: Hub):
    Path("someone").mkdir()
    mine, _ = export(Path(NAME))
    assert same(load(NAME), mine)
    assert empty_hub.asked == []
    with pytest.raises(ToastError, match=r"is not an export: give the folder that toast export wrote"):
        load(Path("someone/else"))
    assert empty_hub.asked == [], "a path is a folder"


def test_predict_takes_a_name(empty_hub: Hub, toast, tmp_path: Path):
    settings = {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"}
    config = settings | {"mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 5, "label_names": [*"abcde"]}
    empty_hub.add(NAME, export(tmp_path / "theirs", pretrained_cfg=config)[1])
    status, _, err = toast("predict", NAME, "nowhere.png")
    assert (status, err) == (1, "toast: nowhere.png does not exist: give image files or folders of images.\n")
    assert not empty_hub.requests("safetensors"), "weights are fetched for images that are there"
    Image.new("RGB", (40, 40), "red").save("red.png")
    status, out, err = toast("predict", NAME, "red.png", "--top", "1")
    assert status == 0, err
    assert re.search(r"red.png\W+[a-e] \d+\.\d%", out)
    assert err.startswith(f"fetching {NAME} from the hub: ")


def test_one_plan_of_several_and_all_of_them(empty_hub: Hub, toast, tmp_path: Path):
    backbone, models = tiny(), {}
    for text in ("none", "0-1"):
        parts = parts_of(backbone, Plan.parse(text), {span: torch.nn.Linear(32, 32) for span in Plan.parse(text).spans})
        models[text] = join(parts).eval(), parts
        attach_head(models[text][0], torch.nn.Linear(32, 5), 5)
    saved_plans(tmp_path, models, backbone)
    seen = {"interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center", "mean": [0.5] * 3, "std": [0.5] * 3}
    damage(tmp_path, lambda recipe: recipe["pretrained_cfg"].update(seen, label_names=[*"abcde"]))
    empty_hub.add(NAME, {name: (tmp_path / name).read_bytes() for name in (RECIPE, WEIGHTS)})
    Image.new("RGB", (40, 40), "red").save("red.png")
    with pytest.raises(ToastError, match="holds several plans, none, 0-1: say which one"):
        load(NAME)
    with pytest.raises(ToastError, match="has no plan 1-2"):
        load(NAME, plan="1-2")
    assert "has no plan 1-2" in toast("predict", NAME, "red.png", "--plan", "1-2")[2]
    assert not empty_hub.requests("safetensors"), "a plan that is not there is not fetched"
    assert same(load(NAME, plan="0-1"), models["0-1"][0])
    several = load_elastic(NAME)
    assert all(same(several.use(text), vit) for text, (vit, _) in models.items())
    status, out, err = toast("predict", NAME, "red.png", "--plan", "0-1", "--top", "1")
    assert (status, err) == (0, "")
    assert re.search(r"red.png\W+[a-e] \d+\.\d%", out)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda files: files.pop(RECIPE),
            rf"The hub has {NAME}, but no recipe.json in it, so it is not an export of toast: give",
        ),
        (
            lambda files: files.pop(WEIGHTS),
            rf"The hub has {NAME}, but not model.safetensors, which its recipe.json describes",
        ),
        (lambda files: files.update({RECIPE: b"{}"}), r"recipe.json is not in this version's format, toast-export-1"),
        (lambda files: files.update({RECIPE: b"\x80"}), r"recipe.json cannot be read \(UnicodeDecodeError\)"),
        (
            lambda files: files.update({WEIGHTS: b"other"}),
            r"model.safetensors is not the file that recipe.json was written for",
        ),
    ],
)
def test_what_is_no_export_is_a_sentence(change, sentence: str, stored, empty_hub: Hub):
    files = dict(stored[1].files)
    change(files)
    empty_hub.add(NAME, files)
    with pytest.raises(ToastError, match=sentence):
        load(NAME)


def test_a_recipe_names_no_other_file(empty_hub: Hub, tmp_path: Path):
    _, files = export(tmp_path / "theirs", file="modeling.py")
    empty_hub.add(NAME, files)
    with pytest.raises(ToastError, match="holds no model.safetensors: load reads exports with format=safetensors"):
        load(NAME)
    assert not empty_hub.requests("modeling")


def test_names_that_there_are_not(empty_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        ToastError, match=r"There is no folder someone/nothing here, so the hub is meant: The hub has no export called"
    ):
        load("someone/nothing")
    asked = len(empty_hub.asked)
    for name in ("nothing", "./some/thing", "some/thing/else", "/some/thing"):
        with pytest.raises(ToastError, match=r"is not an export: give the folder that toast export wrote"):
            load(name)
    assert len(empty_hub.asked) == asked
    offline(True, monkeypatch)
    with pytest.raises(ToastError) as caught:
        load("someone/nothing")
    assert str(caught.value) == (
        f"There is no folder someone/nothing here, so the hub is meant: HF_HUB_OFFLINE is set, so nothing is fetched, and the cache "
        f"{tmp_path}/cache/hub does not hold someone/nothing: unset it; or run hf download someone/nothing --local-dir <dir> where there is "
        "internet, bring that folder here and give <dir>."
    )


def test_a_private_export_needs_a_token(stored, empty_hub: Hub, monkeypatch: pytest.MonkeyPatch):
    vit, there = stored
    there.private = True
    with pytest.raises(
        ToastError, match=r"if it is private, set HF_TOKEN to a token that may read it; or give <dir> with a copy"
    ):
        load(NAME)
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    assert same(load(NAME), vit)


def test_there_must_be_room(stored, empty_hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1000}))
    with pytest.raises(ToastError, match=rf"{NAME} takes \d+ kB in the cache .* has 1.0 kB free: make room"):
        load(NAME)
    assert empty_hub.sent("signature=x") == 0


def test_recipe_and_weights_are_of_one_commit(stored, later, empty_hub: Hub):
    """Somebody pushes another export between the two questions."""
    vit, there = stored
    found = Export.find(NAME)
    there.change(later[1])
    found.require(WEIGHTS)
    assert same(load(found.folder), vit)


def test_timm_loads_what_has_only_blocks(empty_hub: Hub, tmp_path: Path):
    backbone = tiny()
    vit = saved(tmp_path, backbone, "1-2", layer=torch.nn.Identity)
    vit.blocks = vit.blocks[:2]
    write_weights(tmp_path, vit, torch.float32)
    images = backbone.normalise(pixels())
    with torch.inference_mode():
        outputs = vit(images)
        recipe = read_recipe(tmp_path) | {"blocks": [0, 1]}
        assert standalone.add(tmp_path, vit, recipe, images, outputs) == standalone.CONFIG
        empty_hub.add(NAME, {name: (tmp_path / name).read_bytes() for name in (standalone.CONFIG, WEIGHTS)})
        by_timm = timm.create_model(f"hf-hub:{NAME}", pretrained=True).eval()
        assert torch.equal(by_timm(images), outputs)
