"""The model card of an export: its numbers, its licence, and what strangers have written into names."""

import csv
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt
from safetensors.numpy import load_file

from toast_cli.models.origin import Origin, origin_of
from toast_cli.report.card import CARD, Card, write_card
from toast_cli.runs.measured import Compared, Tuned
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.surgery.recipe import ELASTIC, read_recipe, without_folders

PINNED = Path(__file__).parents[1] / "pinned" / "outputs"
RUN = PINNED / "run" / "digits_vit-digits-affine-5317bf72"
EXPORT = PINNED / "export" / "digits_vit-digits-0-10-safetensors"


def card(settings: dict | None = None, **changes: object) -> Card:
    """The card of the pinned export, of a model with other ``settings``."""
    made = replace(Card(read_recipe(EXPORT), RUN), **changes)
    if settings is not None:
        vars(made)["settings"] = {"data": {"source": None}, **settings}
    return made


def front(made: Card) -> dict:
    return yaml.safe_load(str(made).split("---\n")[1])


def cells(text: str, plan: str) -> list[str]:
    """The line of a plan in the card's table."""
    return next(
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in text.splitlines()
        if line.startswith(f"| {plan} |")
    )


def test_its_numbers_are_those_of_the_run():
    rows = [row for row in csv.DictReader((RUN / "results.csv").open()) if row["plan"] == "0-10"]
    found, change = [float(row["accuracy"]) for row in rows], [float(row["accuracy_delta"]) for row in rows]
    text = str(card())
    plan, removed, accuracy, delta, interval, params, gflops = cells(text, "0-10")
    assert (plan, removed) == ("0-10", "10")
    assert accuracy == f"{np.mean(found):.4f} ± {np.std(found, ddof=1):.4f}"
    assert delta == f"{np.mean(change):+.4f}"
    assert params.startswith(f"{int(rows[0]['params']):,} ({float(rows[0]['params_ratio']):.3f})")
    assert gflops.startswith(f"{float(rows[0]['gflops']):.4g} (")
    assert cells(text, "none")[2].startswith(f"{float(rows[0]['accuracy_original']):.4f}"[:4])
    low, high = map(float, interval.split(" … "))
    assert (low, high) == pytest.approx(_interval(), abs=0.03)
    assert "means over 2 seeds of the probe" in text
    assert f"shares of {rows[0]['test_images']} test images of digits" in text
    assert f"the probe of seed 0, with an accuracy of {found[0]:.4f}" in text


def test_the_table_has_every_plan_of_the_file():
    rows = [row for row in read_csv(RUN / "results.csv", Row) if row.seed == 0]
    alone, plans = read_recipe(EXPORT), [row.plan for row in rows]
    words = [{"plan": plan, "params": 7 * i + 7, "head": alone["head"]} for i, plan in enumerate(plans)]
    several = {key: value for key, value in alone.items() if key not in ("head", "params", "sequential", "healed")}
    recipe = {**several, "format": ELASTIC, "plan": plans, "row": [asdict(row) for row in rows], "plans": words}
    text = str(card(recipe=recipe, repository="me/x"))
    for row in rows:
        both = [each.accuracy for each in read_csv(RUN / "results.csv", Row) if each.plan == row.plan]
        assert cells(text, row.plan)[2].startswith(f"{np.mean(both):.4f}")
        assert f"### {row.plan}\n" in text
    assert cells(text, "0-10") == cells(str(card()), "0-10"), "as its own card says it"
    last = plans[-1]
    assert f'toast_cli.load("me/x", plan="{last}")' in text
    assert f'toast_cli.load_elastic("me/x")\noutputs = several.use("{last}")(images)' in text
    assert f"    toast predict me/x photo.jpg --plan {last}\n" in text
    assert f"- Size: 7 to {7 * len(plans)} parameters" in text
    assert front(card(recipe=recipe))["pipeline_tag"] == "image-classification"
    assert "one for each plan" in text


def test_int8_is_what_was_measured():
    row = Compared("int8", "static", 40, 700000, 360, 0.5, -0.25, -0.5, 0.0, 0.75, 1, 1, 1, 1, 16, 1, 1, 1, 1, "1.32")
    text = str(card(recipe={**read_recipe(EXPORT), "dtype": "int8"}, compared=[row]))
    assert cells(text, "int8 static") == ["int8 static", "0.7", "0.5000", "-0.2500", "-0.5000 … +0.0000", "0.750"]
    assert "quantised by onnxruntime 1.32 (static: with ranges of activations found on 40 fit images)" in text
    assert "stored in int8" in text
    assert "Accuracy with weights in int8" not in text
    assert "`comparison.csv` has the times" in text


def _interval() -> tuple[float, float]:
    """By drawing the test images again and again, both seeds together."""
    stored, generator = load_file(RUN / "predictions.safetensors"), np.random.default_rng(7)
    seeds = [value for name, value in stored.items() if re.search(r"\d$", name)]
    right = np.mean([(each[1] == stored["truth"]).astype(int) - (each[0] == stored["truth"]) for each in seeds], axis=0)
    drawn = right[generator.integers(0, len(right), (4000, len(right)))].mean(1)
    return tuple(np.quantile(drawn, [0.025, 0.975]))


@pytest.mark.parametrize(
    ("settings", "origin"),
    [
        ({"name": "vit_small_patch14_dinov2.lvd142m"}, ("timm/vit_small_patch14_dinov2.lvd142m", "apache-2.0")),
        ({"name": "vit_small_patch16_dinov3.lvd1689m"}, ("timm/vit_small_patch16_dinov3.lvd1689m", "dinov3-license")),
        ({"name": "hf-hub:me/base@v2"}, ("me/base", None)),
        ({"name": "hf-hub:../base"}, (None, None)),
        ({"name": "local-dir:/home/me/base"}, (None, None)),
        ({"name": "vit_small_patch14_dinov2.lvd142m", "checkpoint": "w.safetensors"}, (None, None)),
        ({"name": "vit_small_patch14_dinov2.lvd142m", "pretrained": False}, (None, None)),
        (
            {"name": "vit_tiny_patch16_224", "checkpoint": "pkg://toast_cli/weights/digits_vit.safetensors"},
            (None, "mit"),
        ),
        ({"name": "no_such_model"}, (None, None)),
    ],
)
def test_where_weights_come_from(settings: dict, origin: tuple[str | None, str | None]):
    found = origin_of(settings)
    assert (found.repository, found.licence) == origin
    assert "/home" not in found.told


@pytest.mark.parametrize(
    ("origin", "asked", "told"),
    [
        (Origin("x", "timm/x", "apache-2.0"), None, {"license": "apache-2.0", "base_model": "timm/x"}),
        (
            Origin("x", "timm/x", "dinov3-license"),
            None,
            {"license": "other", "license_name": "dinov3-license", "base_model": "timm/x"},
        ),
        (Origin("x", "me/x"), "mit", {"license": "mit", "base_model": "me/x"}),
        (Origin("x", "me/x"), None, {"license": "other", "base_model": "me/x"}),
        (Origin("x"), None, {"license": "other"}),
    ],
)
def test_the_licence_is_the_bases(origin: Origin, asked: str | None, told: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Card, "origin", property(lambda self: origin))
    made = card(licence=asked)
    assert {
        key: value for key, value in front(made).items() if key in ("license", "license_name", "base_model")
    } == told
    known = origin.licence or asked
    assert ("does not know the licence" in str(made)) == (known is None)


def test_what_the_hub_sorts_by():
    model = {"name": "vit_small_patch14_dinov2.lvd142m"}
    on_hub = card({"model": model, "data": {"source": "uoft-cs/cifar100", "path": None}})
    assert front(on_hub)["datasets"] == ["uoft-cs/cifar100"]
    own = card({"model": model, "data": {"source": "uoft-cs/cifar100", "path": "/home/me/photos"}})
    assert "datasets" not in front(own)
    assert "/home/me" not in str(own)
    recipe = read_recipe(EXPORT)
    assert front(card())["library_name"] == "toast"
    assert front(card())["pipeline_tag"] == "image-classification"
    by_timm = card(recipe={**recipe, "beside": {"config.json": "0"}, "head": None}, repository="me/x")
    assert front(by_timm)["library_name"] == "timm"
    assert front(by_timm)["pipeline_tag"] == "image-feature-extraction"
    assert 'timm.create_model("hf-hub:me/x", pretrained=True)' in str(by_timm)
    assert "toast predict" not in str(by_timm), "it names no classes"


def test_what_strangers_write_is_text():
    evil = [
        "<script>alert(1)</script>",
        "![x](http://evil)",
        "[a](http://evil)",
        "a|b",
        "`x`",
        "# big",
        "---\nlicense: mit",
        "\x1b[2J",
    ]
    recipe = read_recipe(EXPORT)
    row = {**recipe["row"], "model": "<b>m</b>|", "data": "[d](http://evil)\n# big"}
    config = {**recipe["pretrained_cfg"], "label_names": evil}
    text = str(card(recipe={**recipe, "row": row, "pretrained_cfg": config}))
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text.split("---\n", 2)[2])
    flat = [each for token in tokens for each in (token, *(token.children or []))]
    assert not [each for each in flat if each.type in ("html_inline", "image", "link_open")]
    assert [each.content for each in flat if each.type == "html_block"] == [text.splitlines()[-1] + "\n"], (
        "toast's own mark"
    )
    assert sum(each.type == "heading_open" for each in flat) == 7
    assert "\x1b" not in text
    assert any("<script>alert(1)</script>" in each.content for each in flat if each.type == "text"), (
        "it is shown as it is"
    )


def test_a_card_that_a_person_has_written_in_stays(tmp_path: Path):
    shutil.copytree(EXPORT, tmp_path / "it")
    file = tmp_path / "it" / CARD
    assert write_card(tmp_path / "it", RUN)
    assert 'toast_cli.load(".")' in file.read_text()
    assert write_card(tmp_path / "it", RUN, "me/x"), "toast's own is written anew"
    assert 'toast_cli.load("me/x")' in file.read_text()
    for edited in (file.read_text().replace("digits", "my digits", 1), "# Mine\n", ""):
        file.write_text(edited)
        assert not write_card(tmp_path / "it", RUN)
        assert file.read_text() == edited


def test_the_card_of_a_fine_tuned_model():
    run = next((PINNED / "finetune").iterdir())
    row, typed = next(csv.DictReader((run / "finetune.csv").open())), vars(read_csv(run / "finetune.csv", Tuned)[0])
    recipe = {**read_recipe(EXPORT), "fine_tuned": True, "row": typed, "plan": row["plan"]}
    text = str(Card(recipe, run))
    assert cells(text, f"{row['plan']}, fine-tuned")[2] == f"{float(row['accuracy_after']):.4f}"
    assert (
        cells(text, f"{row['plan']}, fine-tuned")[3]
        == f"{float(row['accuracy_after']) - float(row['accuracy_original']):+.4f}"
    )
    assert cells(text, "none")[2] == f"{float(row['accuracy_original']):.4f}"
    assert "There are no intervals" in text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("local-dir:/home/me/my vit", "local-dir:my vit"),
        ("/home/me/vit/", "vit"),
        ("~/vit", "vit"),
        ("local-dir:C:\\Users\\me\\vit", "local-dir:vit"),
        ("hf-hub:me/vit", "hf-hub:me/vit"),
        ("2-3:identity+9-11", "2-3:identity+9-11"),
        ("vit_small/16", "vit_small/16"),
    ],
)
def test_a_recipe_names_no_folder_of_this_machine(text: str, left: str):
    assert without_folders({"row": {"model": text, "seed": 0}, "list": [text]}) == {
        "row": {"model": left, "seed": 0},
        "list": [left],
    }
