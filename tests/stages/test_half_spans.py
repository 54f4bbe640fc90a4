"""Runs of plans that cut blocks: independent, sequential and healed, to the end, killed, and exported."""

import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from tests.conftest import SMALL, pixels, tiny
from tests.models.families import FAMILIES
from tests.models.test_families import features, relative
from toast_cli import load
from toast_cli.models.branches import branches_of
from toast_cli.plans import ATTENTION, MLP, Half, HealedBlock, Map, Plan, Span, Variant
from toast_cli.runs import contents, record
from toast_cli.runs.results import csv_of, read_csv, rows_of
from toast_cli.runs.rows import Row, Summary
from toast_cli.stages import heal, probe
from toast_cli.stages.chain import Chain
from toast_cli.stages.originals import Originals
from toast_cli.stages.walk import Encoder, latents
from toast_cli.surgery import shorten
from toast_cli.surgery.recipe import read_recipe

WORDS = ["run", *SMALL[:3], "device=cpu", "precision=fp32"]
TEXT = "2-3a+7a-9"


@pytest.mark.parametrize("kind", ["independent", "sequential"])
def test_maps_are_least_squares_between_latents_inside_blocks(toast, monkeypatch, kind: str):
    kept = {}
    score = probe.score
    monkeypatch.setattr(probe, "score", lambda job, *a: (kept.update(job=job, maps=a[1]), score(job, *a)))
    assert toast(*WORDS, f"spans=[{TEXT}]", f"fit.sequential={str(kind == 'sequential').lower()}")[0] == 0
    job, maps = kept["job"], kept["maps"]
    variant = job.variants[1]
    with torch.inference_mode():
        images = torch.cat([batch.pixels for batch in job.batches(job.data.fit[0], 64)])
        seen, x = {}, job.backbone.stem(images)[0]
        for number, block in enumerate(job.backbone.vit.blocks):  # timm's block, written out
            seen[number - 0.5] = x + block.ls1(block.attn(block.norm1(x)))
            x = seen[number] = seen[number - 0.5] + block.ls2(block.mlp(block.norm2(seen[number - 0.5])))
        source = seen[6.5]
        if kind == "sequential":
            block = job.backbone.vit.blocks[3]
            short = maps[variant.maps[0]](seen[2])
            short = short + block.mlp(block.norm2(short))
            for number in (4, 5, 6):
                short = job.backbone.vit.blocks[number](short)
            block = job.backbone.vit.blocks[7]
            source = short + block.attn(block.norm1(short))
        for key, x, y in ((variant.maps[0], seen[2], seen[2.5]), (variant.maps[1], source, seen[9])):
            rows, target = x.flatten(0, 1).double(), y.flatten(0, 1).double()
            best = rows @ torch.linalg.lstsq(rows, target, driver="gelsd").solution
            assert relative(maps[key](x).flatten(0, 1).double(), best) < 1e-3


def healed(backbone, text: str, images: torch.Tensor, folder: Path) -> dict:
    """The modules of the healed plan, whose maps take a part of their sources away."""
    variant = Variant(Plan.parse(text), 0, healed=True)
    originals = Originals(folder, backbone, [variant], None)
    originals.add(np.arange(len(images)), originals.encode(images))
    lossy = nn.Linear(backbone.width, backbone.width)
    with torch.no_grad():
        lossy.weight.copy_(torch.diag(torch.linspace(0.4, 1, backbone.width)))
        lossy.bias.zero_()
    chain = Chain(originals, backbone, dict.fromkeys(variant.maps, lossy), {}, lambda *_: lossy, lambda *_: None)
    chain.follow([variant], len(images), 5)
    assert not list(folder.rglob("*place*")), "places are removed on the way"
    return {**dict.fromkeys(variant.maps, lossy), **chain.modules()}


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "parallel blocks"])
def test_every_family_heals_halves(family: str, tmp_path: Path):
    name, options = FAMILIES[family]
    backbone, images = tiny(name, depth=4, **options), pixels(40)
    variant, plan = Variant(Plan.parse("0-1a+2a-2"), 0, healed=True), Plan.parse("0-1a+2a-2")
    first, both = Plan.parse("0-1a"), plan
    assert variant.operations(4) == (
        0, Map(Span(0, 0.5), 0), HealedBlock(Half(1, MLP), 0, first), HealedBlock(Half(2, ATTENTION), 0, first),
        Map(Span(1.5, 2), 0, first, True), HealedBlock(3, 0, both),
    )  # fmt: skip
    assert str(variant.operations(4)[2]) == "1.mlp@0~0-1a"
    modules = healed(backbone, "0-1a+2a-2", images, tmp_path)
    with torch.inference_mode():
        walked = Encoder(backbone, [Plan(), variant], modules)(images)
        short = features(shorten(backbone, variant, modules), backbone, images)
        found = latents(backbone, images)
        source, own = modules[variant.maps[0]](found[0]), modules[HealedBlock(Half(1, MLP), 0, first)]
        missing = [(found[1] - half(source)).square().sum(-1) for half in (backbone.part(Half(1, MLP)), own)]
    assert relative(walked[:, 1], short) < 1e-5, "the walk is the shortened model"
    read, tokens = backbone.readout_tokens or 0, backbone.tokens
    weights = torch.tensor([(tokens - read) / max(read, 1)] * read + [1.0] * (tokens - read))
    before, after = ((weights * each).sum().item() for each in missing)
    assert after < 0.9 * before


def test_one_branch_of_a_half_block_is_refitted_as_in_a_whole_one(tmp_path: Path):
    """Behind a map that ends where block 1 begins, the block's attention alone receives what it receives in the whole block."""
    backbone, images = tiny(depth=4), pixels(40)
    whole, half = (healed(backbone, text, images, tmp_path / text) for text in ("stem-0", "stem-0+1a-1"))
    key = HealedBlock(1, 0, Plan.parse("stem-0"))
    own = HealedBlock(Half(1, ATTENTION), 0, Plan.parse("stem-0"))
    assert torch.equal(branches_of(whole[key])[0].last.weight, branches_of(half[own])[0].last.weight)
    assert len(branches_of(half[own])) == 1
    assert not torch.equal(branches_of(half[own])[0].last.weight, backbone.blocks[1].attn.proj.weight)


def test_a_killed_run_goes_on_to_the_same_rows_and_halves(toast, monkeypatch: pytest.MonkeyPatch):
    words = [*WORDS, f"spans=[{TEXT},1a-4]", "fit.heal=true"]
    assert toast(*words, "hydra.run.dir=whole")[0] == 0
    encoded, written = heal._encoded, []

    def until_the_third(*arguments: object) -> bytes:
        written.append(arguments[1])
        if len(written) == 3:
            raise KeyboardInterrupt
        return encoded(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(heal, "_encoded", until_the_third)
        assert toast(*words, "hydra.run.dir=killed")[0] != 0
    assert list(contents.healed_in(Path("killed")))
    assert toast(*words, "hydra.run.dir=killed")[0] == 0
    names = sorted(path.name for path in contents.healed_in(Path("whole")))
    assert names == ["healed-40~1a-4.safetensors", "healed-40~2-3a+7a-9.safetensors", "healed-40~2-3a.safetensors"]
    for name in ("results.csv", contents.TRANSLATORS, *names):
        assert Path("whole", name).read_bytes() == Path("killed", name).read_bytes()
    held = safetensors.torch.load_file(Path("whole", names[2]))
    halves = {name.partition("/")[0] for name in held if "." in name.partition("/")[0]}
    assert halves == {"3.mlp", "7.attention"}
    assert {name for name in held if name.startswith("3.mlp/")} == {"3.mlp/mlp.fc2.weight", "3.mlp/mlp.fc2.bias"}

    record.write(Path("whole", names[2]), safetensors.torch.save(held | {"3.mlp/attn.proj.bias": torch.zeros(64)}))
    status, _, err = toast("export", "whole", f"plan={TEXT}", "out=model")
    assert (status, "holds no block 3.mlp that fits the model: restore it" in err) == (1, True), err


def test_rows_count_halves_and_files_of_whole_plans_read_as_they_did(toast):
    assert toast(*WORDS, f"spans=[{TEXT},8-9a,9-11]", "hydra.run.dir=run")[0] == 0
    with Path("run/results.csv").open() as file:
        found = {row["plan"]: (row["blocks_removed"], row["spans_start_end"]) for row in csv.DictReader(file)}
    assert found == {
        "none": ("0", "[]"), "8-9a": ("0.5", "[[8, 8.5]]"), "9-11": ("2", "[[9, 11]]"), TEXT: ("3", "[[2, 2.5], [6.5, 9]]"),
    }  # fmt: skip
    for name, kind in (("results.csv", Row), ("summary.csv", Summary)):
        content = Path("run", name).read_bytes()
        rows = rows_of(content, kind, Path(name))
        assert csv_of(rows, kind).encode() == content
        assert {row.plan: row.blocks_removed for row in rows} == {"none": 0, "8-9a": 0.5, "9-11": 2, TEXT: 3}
        assert {type(row.blocks_removed) for row in rows if row.plan != "8-9a"} == {int}


FORMATS = [
    "safetensors",
    pytest.param("torch_export", marks=pytest.mark.slow),
    pytest.param("onnx", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("form", FORMATS)
def test_halves_are_exported(toast, form: str):
    if form == "onnx" and not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        pytest.skip("onnx is not installed")
    assert toast(*WORDS, f"spans=[{TEXT}]", "fit.heal=true", "hydra.run.dir=run")[0] == 0
    status, _, err = toast("export", "run", f"format={form}", "out=model", "images=16")
    assert status == 0, err
    assert "the same class for 16 of 16 images" in err
    blocks = read_recipe(Path("model"))["blocks"]
    assert [part for part in blocks if not isinstance(part, dict)] == [0, 1, 2, "3.mlp", 4, 5, 6, "7.attention", 10, 11]
    if form == "safetensors":
        short = load("model")
        row = read_csv(Path("run/results.csv"), Row)[1]
        encoder = [p.numel() for name, p in short.named_parameters() if not name.startswith("head.")]
        assert sum(encoder) == row.params


@pytest.mark.slow
@pytest.mark.usefixtures("short_bench")
def test_halves_are_tuned_timed_and_compared(toast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("toast_cli.machine.memory.peak_memory", lambda *_: 1.0)  # a process for each model
    words = WORDS[1:]
    assert toast("finetune", *words, "spans=[2-3a]", "tune.epochs=1", "hydra.run.dir=tuned")[0] == 0
    status, _, err = toast("export", "tuned", "out=model", "images=16")
    assert (status, "largest difference 0.0e+00" in err) == (0, True), err
    assert toast("bench", "spans=[8-9a,9a-9]", "seconds=0.1", "hydra.run.dir=bench")[0] == 0
    assert toast("similarity", *words, "spans=[2-3a,2-3]", "hydra.run.dir=alike")[0] == 0
    assert toast(*WORDS, "spans=[2-3a]", "translator=mlp", "translator.steps=3", "hydra.run.dir=trained")[0] == 0
    assert toast(*WORDS, "spans=halves", "hydra.run.dir=all")[0] == 0
    rows = read_csv(Path("all/results.csv"), Row)
    assert len(rows) == 301
    assert {row.blocks_removed for row in rows} == {number / 2 for number in range(25)}
    assert toast("report", "all", "--out", "report")[0] == 0


def test_a_middle_that_is_not_finite_is_named(toast, monkeypatch: pytest.MonkeyPatch):
    from toast_cli.stages import fit

    monkeypatch.setattr(
        fit, "latents", lambda *a: {key: each * (torch.nan if key == 2.5 else 1) for key, each in latents(*a).items()}
    )
    status, _, err = toast(*WORDS, "spans=[2-3a]")
    assert (status, "The latents inside block 3 are not finite in fp32: check the weights." in err) == (1, True), err


def test_a_model_whose_blocks_cannot_be_cut(toast):
    model = ["model=timm", "model.name=vit_small_patch16_18x2_224", "model.pretrained=false", "model.image_size=32"]
    status, _, err = toast(*WORDS, *model, "spans=[9a-11]")
    assert status == 1
    assert "plan 9a-11 cuts block 9 between its attention and its MLP, and a ParallelThingsBlock has no latent" in err
    assert err.count("\n") == 1
