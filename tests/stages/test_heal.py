"""Healing: the blocks behind a map, refitted to what they receive there."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tests.conftest import SMALL, pixels, tiny
from tests.models.families import FAMILIES
from toast_cli.errors import ToastError
from toast_cli.models.backbone import Backbone
from toast_cli.models.branches import branches_of
from toast_cli.moments.weighted import WeightedSums
from toast_cli.plans import HEALED, INDEPENDENT, HealedBlock, Map, Plan, Span, Variant, variants
from toast_cli.runs import contents, record
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.runs.searched import Candidate, Found
from toast_cli.stages import heal
from toast_cli.stages.chain import Chain
from toast_cli.stages.originals import Originals, Sample
from toast_cli.stages.walk import Encoder, latents
from toast_cli.surgery import shorten
from toast_cli.translators.refit import STRENGTHS, refit
from toast_cli.translators.sums import HELD_OUT, held_apart

WORDS = [*SMALL[:3], "device=cpu", "precision=fp32", "fit.heal=true"]


def test_variants_and_their_steps():
    plan = Plan.parse("0-1+3-5:identity")
    variant = Variant(plan, 50, healed=True)
    first, second = variant.maps
    assert variant.operations(8) == (
        0, first, HealedBlock(2, 50, Plan.parse("0-1")), HealedBlock(3, 50, Plan.parse("0-1")), second,
        HealedBlock(6, 50, plan), HealedBlock(7, 50, plan),
    )  # fmt: skip
    assert (str(first), str(second)) == ("0-1@50", "3-5:identity@50~0-1~healed")
    assert Map.parse(str(second)) == second
    assert str(variant.operations(8)[-1]) == "7@50~0-1+3-5:identity"
    plans = [Plan(), Plan.parse("0-1"), Plan.parse("5-7"), plan]
    told = [f"{v}{'*' * v.sequential}{'+' * v.healed}" for v in variants(plans, [50], 8, [INDEPENDENT, HEALED])]
    assert told == [
        "none", "0-1", "5-7", "0-1+3-5:identity", "0-1+", "0-1+3-5:identity+",
    ], "nothing stays behind 5-7 that could be healed"  # fmt: skip


def healed(
    backbone: Backbone, text: str, images: Tensor, folder: Path, count: int | None = None
) -> dict[Any, nn.Module]:
    """The modules of the healed plan, whose first map takes a small part of its source away."""
    variant = Variant(Plan.parse(text), 0, healed=True)
    originals = Originals(folder, backbone, [variant], count)
    originals.add(np.arange(len(images)), originals.encode(images))
    lossy = nn.Linear(backbone.width, backbone.width)
    with torch.no_grad():
        lossy.weight.copy_(0.8 * torch.eye(backbone.width))
    maps = dict.fromkeys(variant.maps, lossy)
    chain = Chain(originals, backbone, maps, {}, lambda *_: lossy, lambda *_: None)
    chain.follow([variant], len(images), 5)
    assert not list(folder.rglob("*place*")), "places are removed on the way"
    return {**maps, **chain.modules()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_heals_or_says_why_not(family: str, tmp_path: Path):
    name, options = FAMILIES[family]
    backbone, images = tiny(name, depth=4, **options), pixels(40)
    if family == "parallel blocks":
        with pytest.raises(ToastError, match=r"a ParallelThingsBlock does not end in such layers: use fit.heal=false"):
            healed(backbone, "0-1", images, tmp_path)
        return
    variant = Variant(Plan.parse("0-1"), 0, healed=True)
    modules = healed(backbone, "0-1", images, tmp_path)
    with torch.inference_mode():
        walked = Encoder(
            backbone, [Plan(), variant, Plan.parse("0-1")], modules | {Span(0, 1): modules[variant.maps[0]]}
        )(images)
        short = shorten(backbone, variant, modules)
        features = short.forward_head(short.forward_features(backbone.normalise(images)), pre_logits=True)
    original, walked_healed, unhealed = walked.unbind(1)
    assert relative(walked_healed, features) < 1e-5, "the walk is the shortened model"
    assert relative(walked_healed, original) < 0.9 * relative(unhealed, original)
    assert [type(block) for block in short.blocks[2:]] == [type(block) for block in backbone.blocks[2:]]
    count = sum(parameter.numel() for parameter in short.blocks[2:].parameters())
    assert count == sum(parameter.numel() for parameter in backbone.blocks[2:].parameters()), "no larger than it was"


def test_latents_in_memory_heal_as_those_on_disk_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    backbone, images = tiny(depth=5), pixels(40)
    torch.manual_seed(0)
    on_disk = healed(backbone, "0-1+2-3", images, tmp_path / "disk", 8)
    monkeypatch.setattr(f"{__name__}.Originals", partial(Originals, in_memory=True))
    torch.manual_seed(0)
    in_memory = healed(backbone, "0-1+2-3", images, tmp_path / "memory", 8)
    for key, module in on_disk.items():
        for one, other in zip(module.parameters(), in_memory[key].parameters(), strict=True):
            assert torch.equal(one, other), key
    assert not (tmp_path / "memory").exists(), "nothing was written"


def relative(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_small_patch14_dinov2", {"init_values": 1e-9}),  # LayerScale that lets next to nothing through
        ("vit_tiny_patch16_224", {"proj_bias": False}),
    ],
)
def test_the_regression_is_ridge_on_all_tokens(name: str, options: dict, tmp_path: Path):
    """The first healed branch against a direct solution in float64, its strength chosen on a fifth of the images."""
    backbone, images = tiny(name, **options), pixels(40)
    modules = healed(backbone, "stem-0", images, tmp_path)
    variant = Variant(Plan.parse("stem-0"), 0, healed=True)
    with torch.inference_mode():
        found = latents(backbone, images, [1])
        source = modules[variant.maps[0]](found[-1])
        branch = branches_of(backbone.blocks[1])[0]
        hidden = branch.hidden(source, {})
        missing = (found[0.5] - branch.end(source, hidden)).double()
        fitted = branches_of(modules[HealedBlock(1, 0, variant.plan)])[0]
        added = fitted.end(source, hidden).double() - branch.end(source, hidden).double()
    tokens, prefix = hidden.shape[1], backbone.prefix_tokens
    weights = torch.ones(tokens, dtype=torch.float64)
    weights[: backbone.readout_tokens] = (tokens - backbone.readout_tokens) / backbone.readout_tokens
    assert prefix == backbone.readout_tokens == 1
    apart = torch.from_numpy(held_apart(np.arange(40), HELD_OUT))
    assert int(apart.sum()) == 8
    intercept = branch.last.bias is not None
    rows = [
        (hidden[own].double(), missing[own], weights.expand(int(own.sum()), -1))
        for own in (~apart, apart, apart | True)
    ]
    errors = []
    for strength in STRENGTHS:
        weight, bias = ridge(*rows[0], strength, intercept)
        errors.append((rows[1][2][..., None] * (rows[1][1] - rows[1][0] @ weight - bias).square()).sum().item())
        if len(errors) > 1 and errors[-1] > errors[-2]:
            break
    weight, bias = ridge(*rows[2], STRENGTHS[errors.index(min(errors))], intercept)
    assert relative(added, rows[2][0] @ weight + bias) < 1e-3
    assert min(errors) < (rows[1][2][..., None] * rows[1][1].square()).sum().item()


def ridge(x: Tensor, y: Tensor, w: Tensor, strength: float, intercept: bool) -> tuple[Tensor, Tensor]:
    """W and b of weighted ridge regression with a penalty on standardised x, by stacking the penalty as further rows."""
    x, y, w = x.flatten(0, 1), y.flatten(0, 1), w.flatten()[:, None]
    mean_x, mean_y = (
        (w * each).sum(0) / w.sum() if intercept else torch.zeros(each.shape[1]).double() for each in (x, y)
    )
    spread = ((w * (x - mean_x).square()).sum(0) / w.sum()).sqrt()
    rows = torch.cat([w.sqrt() * (x - mean_x), torch.diag(spread) * (strength * w.sum()).sqrt()])
    targets = torch.cat([w.sqrt() * (y - mean_y), torch.zeros(len(spread), y.shape[1]).double()])
    weight = torch.linalg.lstsq(rows, targets, driver="gelsd").solution
    return weight, mean_y - mean_x @ weight


def test_nothing_is_added_where_nothing_helps():
    """Of noise, a regression is kept only as far as it helps on held-out rows."""
    nothing = 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        kept, held_out = WeightedSums(30, 4), WeightedSums(30, 4)
        unseen = (torch.randn(20, 30, generator=generator), torch.randn(20, 4, generator=generator), torch.ones(20))
        kept.update(torch.randn(60, 30, generator=generator), torch.randn(60, 4, generator=generator), torch.ones(60))
        held_out.update(*unseen)
        found = refit(kept.moments(), held_out.moments(), intercept=False)
        nothing += found.left == 1
        assert found.left <= 1
        assert (found.left == 1) == (found.strength == float("inf")) == (not found.weight.any())
        assert not found.bias.any()
    assert nothing >= 5


def test_the_sample_of_tokens_is_that_of_the_image():
    backbone = tiny(patch_size=2)  # 256 patches of 32 × 32 pixels
    assert len(Sample(backbone, None)) == len(Sample(backbone, 10)) == 257
    sample = Sample(backbone, 60)
    assert len(sample) == 1 + 85, "40 rows for each of 128 unknowns"
    assert len(Sample(backbone, 10_000)) == 1 + 64, "a quarter of the patches at least"
    numbers = np.array([3, 7, 11])
    positions = torch.arange(257.0)[None, :, None].expand(3, -1, 2)
    picked = sample.of(positions, numbers)
    assert torch.equal(picked, torch.cat([sample.of(positions[i : i + 1], numbers[i : i + 1]) for i in range(3)]))
    for row in picked[..., 0]:
        assert row[0] == 0
        assert len(set(row.tolist())) == 86
        assert row.tolist() == sorted(row.tolist())
    assert not torch.equal(picked[0], picked[1])
    assert sample.weights[0].item() == pytest.approx(sample.weights[1:].sum().item())


def test_a_run_heals_and_says_so(toast, tmp_path: Path):
    status, out, _ = toast("run", *WORDS, "spans=[2-6,0-2+6-8,3-11]", "hydra.run.dir=run")
    assert status == 0
    rows = read_csv(Path("run/results.csv"), Row)
    assert [(row.plan, row.sequential, row.healed) for row in rows] == [
        ("none", False, False), ("2-6", False, True), ("0-2+6-8", False, True), ("3-11", False, False),
    ]  # fmt: skip
    assert "healed" in out
    assert sorted(path.name for path in contents.healed_in(Path("run"))) == [
        "healed-40~0-2+6-8.safetensors", "healed-40~0-2.safetensors", "healed-40~2-6.safetensors",
    ]  # fmt: skip
    assert not list(Path("run/features").iterdir())
    status, _, err = toast("export", "run", "plan=0-2+6-8", "out=model", "images=16")
    assert status == 0, err
    assert "the same class for 16 of 16 images" in err


def test_a_killed_run_goes_on_after_the_last_healed_block(toast, monkeypatch: pytest.MonkeyPatch):
    words = ["run", *WORDS, "spans=[2-6,1-4]"]
    assert toast(*words, "hydra.run.dir=whole")[0] == 0
    encoded, written = heal._encoded, []

    def until_the_third(*arguments: Any) -> bytes:
        written.append(arguments[1])
        if len(written) == 4:
            raise KeyboardInterrupt
        return encoded(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(heal, "_encoded", until_the_third)
        assert toast(*words, "hydra.run.dir=killed")[0] != 0
    before = {path.name: path.read_bytes() for path in contents.healed_in(Path("killed"))}
    assert before
    assert toast(*words, "hydra.run.dir=killed")[0] == 0
    for name in ("results.csv", *(path.name for path in contents.healed_in(Path("whole")))):
        assert Path("whole", name).read_bytes() == Path("killed", name).read_bytes()


def test_several_numbers_of_fit_images(toast):
    words = [word for word in WORDS if "fit_images" not in word]
    assert toast("run", *words, "data.fit_images=[20,40]", "spans=[2-9]", "hydra.run.dir=both")[0] == 0
    assert toast("run", *words, "data.fit_images=20", "spans=[2-9]", "hydra.run.dir=few")[0] == 0
    both, few = (read_csv(Path(folder, "results.csv"), Row) for folder in ("both", "few"))
    assert [(row.fit_images, row.healed) for row in both] == [(0, False), (20, True), (40, True)]
    assert few[1] in both or abs(few[1].accuracy - both[1].accuracy) <= 1 / 48
    assert len(list(contents.healed_in(Path("both")))) == 2


def test_a_damaged_file_is_noticed(toast):
    assert toast("run", *WORDS, "spans=[2-9]", "hydra.run.dir=run")[0] == 0
    file = next(contents.healed_in(Path("run")))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    status, _, err = toast("export", "run", "plan=2-9", "out=model")
    assert (status, "was changed or damaged" in err) == (1, True)


def test_blocks_of_a_stranger_do_not_pass(toast):
    """Files with fitting checksums that hold something else than what healing leaves."""
    assert toast("run", *WORDS, "spans=[2-9]", "hydra.run.dir=run")[0] == 0
    file = next(contents.healed_in(Path("run")))
    good, key = safetensors.torch.load_file(file), "10/attn.proj.weight"
    narrow, none = good[key][:, :-1].clone(), {name: each for name, each in good.items() if name != key}
    for other in (
        good | {key: good[key].long()},
        good | {key: good[key].half()},
        good | {key: good[key] * float("nan")},
        good | {key: narrow},
        good | {"10/norm1.weight": torch.zeros(64)},
        good | {"10/nope.weight": torch.zeros(64)},
        good | {f"{key}.deeper": torch.zeros(64)},
        none,
    ):
        record.write(file, safetensors.torch.save(other))
        status, _, err = toast("export", "run", "plan=2-9", "out=model")
        assert (status, f"{file} holds no block 10 that fits the model: restore it" in err) == (1, True), err
        assert not Path("model").exists()
    record.write(file, safetensors.torch.save({name: each for name, each in good.items() if name.startswith("11/")}))
    assert "holds no healed block 10@40~2-9: restore it" in toast("export", "run", "plan=2-9", "out=model")[2]
    record.write(file, safetensors.torch.save(good))
    assert toast("export", "run", "plan=2-9", "out=model", "images=16")[0] == 0


def test_a_search_keeps_the_plan_and_the_fit_with_the_least_held_out_loss(toast):
    words = ["data.fit_images=40", "data.train_images=200", "data.test_images=48", "device=cpu", "precision=fp32"]
    words += [
        "search.blocks=3",
        "search.beam=2",
        "search.rounds=1",
        "search.baselines=[]",
        "fit.heal=true",
        "search.halves=false",
    ]
    status, out, _ = toast("search", *words, "search.refits=3", "hydra.run.dir=found")
    assert status == 0
    found, rows = (read_csv(Path("found", name), kind) for name, kind in (("front.csv", Found), ("results.csv", Row)))
    measured = read_csv(Path("found/search.csv"), Candidate)
    assert {row.healed for row in rows} == {False, True}
    assert "healed" in out
    first = {each.plan: each for each in measured if not each.sequential and not each.healed}
    for row in found:
        own = {
            each.healed: each.accuracy for each in rows if each.plan == row.plan and each.sequential == row.sequential
        }
        assert row.accuracy_mean == own[row.healed]
        same = [each for each in measured if each.blocks_removed == row.blocks_removed]
        assert row.loss == min(each.loss for each in same), "the least of all plans of that size, in all fits"
        assert row.accuracy_healed is None or row.accuracy_healed in [each.accuracy for each in rows if each.healed]
        again = {each.plan for each in same if each.healed}
        leading = sorted((each.loss, each.plan) for each in first.values() if each.blocks_removed == row.blocks_removed)
        assert again == {plan for _, plan in leading[:3] if not re.match(r"\w+-11", plan)}
    plan = next(row.plan for row in found if row.healed)
    kept = {path.name for path in Path("found").glob("healed-*")}
    final = [Variant(Plan.parse(row.plan), 40, healed=True) for row in rows if row.healed]
    assert kept == {heal._file(key) for each in final for key in each.healed_blocks(12)}
    assert toast("export", "found", f"plan={plan}", "out=model", "images=16")[0] == 0
    before = {path: path.read_bytes() for path in Path("found").glob("*.csv")}
    Path("found/front.csv").unlink()
    assert toast("search", *words, "search.refits=3", "hydra.run.dir=found")[0] == 0
    assert {path: path.read_bytes() for path in Path("found").glob("*.csv")} == before


def test_a_search_has_no_room_to_heal(toast, monkeypatch: pytest.MonkeyPatch):
    """Its maps are fitted before anything is healed, and the room for that is looked at then."""
    words = ["data.fit_images=40", "data.train_images=200", "data.test_images=48", "device=cpu", "precision=fp32"]
    words += ["search.blocks=2", "search.beam=1", "search.rounds=1", "search.halves=false", "search.baselines=[]"]
    monkeypatch.setattr(Originals, "bytes", lambda *_: 10**18)
    status, _, err = toast("search", *words, "fit.heal=true", "hydra.run.dir=found")
    assert (status, "The latents of fit.heal=true need" in err, "make room" in err) == (1, True, True), err
    assert Path("found/search.csv").is_file(), "what was measured is kept"


def test_a_dry_run_counts_latents_and_healed_blocks(toast):
    def disk(*words: str) -> float:
        said = re.search(r"disk (\S+) (\S+) of", toast("run", "dry=true", *WORDS[:-1], "spans=[2-6]", *words)[1])
        return float(said[1]) * {"kB": 1e3, "MB": 1e6}[said[2]]

    latent = 4 * 17 * 64
    originals, places = (
        1 + 2 * 5,
        5 + 1,
    )  # one whole latent, the targets of ten branches; one place for each block and one
    healed = 5 * 4 * (64 * 64 + 64 * 256 + 2 * 64)
    expected = 40 * latent * (originals + places) + healed
    assert disk("fit.heal=true") == pytest.approx(expected, rel=0.1)
    assert disk() < expected / 10


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fit.heal=maybe"], "fit.heal=maybe"),
        (["translator=mlp"], "fit.heal=true needs a translator in closed form, and mlp is trained"),
    ],
)
def test_what_cannot_be_healed(words: list[str], told: str, toast):
    status, _, err = toast("run", *WORDS, "spans=[2-9]", *words)
    assert (status, told in err) == (1, True), err
