"""Maps that see the image: in the walk, in runs and searches, beside other maps."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import SMALL, pixels, tiny
from tests.models.families import FAMILIES
from tests.models.test_families import features, relative
from toast_cli import compress
from toast_cli.layers import blank_context, leading
from toast_cli.models.backbone import Backbone
from toast_cli.plans import Map, Plan, Span, parse_plans
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.runs.searched import Found
from toast_cli.stages import fit as fitting
from toast_cli.stages import forecast as forecasting
from toast_cli.stages import probe
from toast_cli.stages.job import Job
from toast_cli.stages.walk import Encoder, latents
from toast_cli.surgery import shorten
from toast_cli.translators import Context
from toast_cli.translators.sums import Sums, Wanted

WORDS = [word for word in SMALL if not word.startswith("spans")]


def context_maps(backbone: Backbone, spans: list[Span]) -> dict[Span, nn.Module]:
    """The map of every span, fitted to random images."""
    wanted = {span: Wanted(span.start, span.end, Context([1e-2])) for span in spans}
    sums = Sums(wanted.values(), backbone.prefix_tokens, backbone.tokens)
    sums.update(np.arange(40), latents(backbone, pixels(40)))
    return {
        span: sums.fitted(each.translator, sums.of(each, backbone.width)).to_module() for span, each in wanted.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_walk_is_the_shortened_model(family: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Context, "_chosen", lambda self, groups: [1e-2] * len(groups))  # none is the affine map
    name, options = FAMILIES[family]
    backbone, images = tiny(name, **options), pixels()
    plans = parse_plans(["stem-0", "0-2", "1-2", "0-1+1-2", "stem-1"], backbone.depth)
    maps = context_maps(backbone, sorted({span for plan in plans for span in plan.spans}))
    walked = Encoder(backbone, plans, maps)(images)
    with torch.inference_mode():
        for number, plan in enumerate(plans):
            for folded in (True, False):
                short = features(shorten(backbone, plan, maps, folded), backbone, images)
                assert relative(walked[:, number], short) < 1e-5
    assert (relative(walked[:, 1:], walked[:, :1]) > 1e-3).item()


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_the_layer_is_its_formula_for_all_tokens_and_for_the_first(prefix: int):
    module = blank_context(prefix, 16).double()
    latent = torch.randn(3, 9, 16, dtype=torch.float64)
    mean = latent[:, prefix:].mean(1)
    for token in range(9):
        group = 1 if prefix and token >= prefix else 0
        own, context = module.own[group], module.context[group]
        expected = latent[:, token] @ own.weight.T + mean @ context.weight.T + context.bias
        assert torch.allclose(module(latent)[:, token], expected)
    for rows in (1, 2, 5, 7, 9):
        assert torch.allclose(leading(module, latent, rows), module(latent)[:, :rows])
    assert torch.equal(leading(nn.Identity(), latent, 2), latent[:, :2])


def test_the_mean_of_many_large_patches_fits_half_precision():
    module = blank_context(1, 4).half()
    assert torch.isfinite(module(torch.full((1, 1025, 4), 1000.0, dtype=torch.float16))).all()


def fit_of(toast, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Job, dict[Map, nn.Module]]:
    kept = {}
    score = probe.score
    monkeypatch.setattr(
        probe,
        "score",
        lambda job, fitted, maps, *how: (kept.update(job=job, maps=maps), score(job, fitted, maps, *how)),
    )
    status, _, err = toast("run", *WORDS, *words, "precision=fp32")
    assert status == 0, err
    return kept["job"], kept["maps"]


def test_a_run_says_so_and_no_setting_changes_its_groups(toast, tmp_path):
    assert toast("run", *SMALL, "translator=context", "hydra.run.dir=here")[0] == 0
    rows = read_csv(tmp_path / "here" / "results.csv", Row)
    assert {(row.translator, row.tokens, row.solver) for row in rows} == {("context", "split", "exact")}
    assert toast("run", *SMALL, "translator=affine", "hydra.run.dir=affine")[0] == 0
    for one, other in zip(read_csv(tmp_path / "affine" / "results.csv", Row)[1:], rows[1:], strict=True):
        assert other.fit_r2 >= one.fit_r2 - 1e-6
        assert other.params > one.params
    status, _, err = toast("run", *SMALL, "translator=context", "translator.tokens=shared")
    assert (status, err.count("\n")) == (1, 1)
    assert "tokens" in err


def test_flops_count_the_mean_once_an_image(toast, tmp_path):
    assert toast("run", *SMALL[:3], "device=cpu", "spans=[9-11]", "translator=context", "hydra.run.dir=context")[0] == 0
    assert toast("run", *SMALL[:3], "device=cpu", "spans=[9-11]", "translator=linear", "hydra.run.dir=linear")[0] == 0
    context, linear = (read_csv(tmp_path / name / "results.csv", Row)[1] for name in ("context", "linear"))
    width = 64
    assert round(1e9 * (context.gflops - linear.gflops)) == 2 * 2 * width**2, "two groups, each one product an image"
    assert context.params - linear.params == 3 * width**2 + 2 * width


def test_plans_mix_it_with_others(toast, tmp_path, monkeypatch):
    job, maps = fit_of(toast, monkeypatch, "spans=[2-3:identity+9-11:context,9-11,9-11:context]", "translator=linear")
    assert [row.tokens for row in read_csv(job.folder / "results.csv", Row)] == ["shared"] * 4
    for translator in ("linear", "context"):
        _, alone = fit_of(toast, monkeypatch, "spans=[9-11]", f"translator={translator}")
        mixed = maps[Map(Span(9, 11, "" if translator == "linear" else translator), 40)]
        latent = torch.randn(2, job.backbone.tokens, job.backbone.width)
        assert torch.allclose(mixed(latent), alone[Map(Span(9, 11), 40)](latent), atol=1e-3)
    job, maps = fit_of(toast, monkeypatch, "spans=[2-3:linear+9-11]", "translator=context")
    assert isinstance(maps[Map(Span(2, 3, "linear"), 40)], nn.Linear), "one map for all tokens"


@pytest.mark.parametrize("tokens", ["split", pytest.param("per_position", marks=pytest.mark.slow)])
def test_it_stands_beside_maps_of_other_groups(toast, tmp_path, monkeypatch, tokens: str):
    words = ["spans=[9-11,4-5:context]", "translator=affine", f"translator.tokens={tokens}"]
    _, maps = fit_of(toast, monkeypatch, *words)
    assert type(maps[Map(Span(4, 5, "context"), 40)]).__name__ == "Context"
    _, alone = fit_of(toast, monkeypatch, *words[1:], "spans=[9-11]")
    latent = torch.randn(2, 17, 64)
    for key, module in alone.items():
        assert (maps[key](latent) - module(latent)).norm() < 1e-3 * module(latent).norm()


def test_a_sequential_fit_sees_the_mean_of_what_the_first_map_produces(toast, monkeypatch):
    words = ["spans=[0-1:context+3-5]", "translator=context", "fit.sequential=true"]
    job, maps = fit_of(toast, monkeypatch, *words)
    first, second = Map(Span(0, 1, "context"), 40), Map(Span(3, 5), 40, Plan.parse("0-1:context"))
    with torch.inference_mode():
        pixels = torch.cat([batch.pixels for batch in job.batches(job.data.fit[0], 64)])
        whole, extras = job.backbone.stem(pixels)
        short = whole = job.backbone.block(0, whole, extras)
        short = maps[first](short)
        for i in range(1, 6):
            whole = job.backbone.block(i, whole, extras)
            short = job.backbone.block(i, short, extras) if i in (2, 3) else short
    wanted = Wanted(0, 1, job.translator)
    sums = Sums([wanted], job.backbone.prefix_tokens, job.backbone.tokens)
    sums.update(np.arange(40), {0: short, 1: whole})
    expected = sums.fitted(job.translator, sums.of(wanted, 64)).to_module()(short)
    assert relative(maps[second](short), expected).item() < 1e-3


def test_it_goes_on_from_stored_maps(toast, tmp_path, monkeypatch):
    assert toast("run", *SMALL, "translator=context", "hydra.run.dir=whole")[0] == 0

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("toast_cli.stages.encode.encode", killed)
    assert toast("run", *SMALL, "translator=context", "hydra.run.dir=here")[0] == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fitting, "_from_one_pass", lambda *_: pytest.fail("the maps are on disk"))
    assert toast("run", *SMALL, "translator=context", "hydra.run.dir=here")[0] == 0
    assert (tmp_path / "here" / "results.csv").read_text() == (tmp_path / "whole" / "results.csv").read_text()


def test_a_search_takes_it_beside_its_own(toast, tmp_path):
    words = [
        *WORDS,
        "search.beside=[context]",
        "search.blocks=2",
        "search.images=40",
        "search.rounds=1",
        "search.beam=1",
    ]
    status, _, err = toast("search", *words, "hydra.run.dir=here")
    assert status == 0, err
    assert read_csv(tmp_path / "here" / "front.csv", Found)
    assert ":context" in (tmp_path / "here" / "search.csv").read_text()


def test_similarity_of_plans(toast, tmp_path):
    words = [*WORDS, "spans=[9-11]", "translator=context", "hydra.run.dir=here"]
    status, _, err = toast("similarity", *words)
    assert status == 0, err
    assert "context" in (tmp_path / "here" / "similarity.csv").read_text()


def test_a_dry_run_foretells_its_memory(toast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        forecasting, "resident", lambda: 0
    )  # what other tests left in this process hides the difference

    def memory(translator: str) -> float:
        status, out, err = toast("run", *WORDS, "spans=all", f"translator={translator}", "dry=true")
        assert status == 0, err
        number, unit = out.split("memory ")[1].split()[:2]
        return float(number) * {"kB": 1e-3, "MB": 1.0, "GB": 1e3}[unit]

    assert memory("context") > 1.1 * memory("affine")


@pytest.mark.parametrize("family", ["class token", "average pooling, no class token", "rotary embeddings, DINOv3"])
def test_in_memory(family: str):
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    images = backbone.normalise(pixels(40))
    found = {}

    def seen(i: int):
        return lambda module, arguments, output: found.update({i: output})

    short = compress(backbone.vit, "0-1:context", images)
    assert type(short.blocks[1].map).__name__ == "Context"
    with torch.no_grad():
        handles = [backbone.blocks[i].register_forward_hook(seen(i)) for i in (0, 1)]
        backbone.vit(images)
        for handle in handles:
            handle.remove()
        wanted = Wanted(0, 1, Context([1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]))
        sums = Sums([wanted], backbone.prefix_tokens, backbone.tokens)
        sums.update(np.arange(40), found)
        expected: Tensor = sums.fitted(wanted.translator, sums.of(wanted, backbone.width)).to_module()(found[0])
        assert relative(short.blocks[1](found[0]), expected).item() < 1e-4
