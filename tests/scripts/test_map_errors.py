"""scripts/map_errors.py against the same numbers computed from the rows themselves, and its tables on known losses."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import qr, svdvals

from tests.conftest import pixels, tiny
from toast_cli.moments import Moments
from toast_cli.plans import Map, Plan, Span
from toast_cli.stages.walk import Encoder, latents
from toast_cli.translators.closed_form import Affine, Linear

PATH = Path(__file__).parents[2] / "scripts" / "map_errors.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("map_errors", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def latent_pair(images: int = 60, tokens: int = 10, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """X^(s) and X^(e) (N, T, D) in float64 that agree more in some directions than in others, of very different sizes."""
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(images, tokens, width, dtype=torch.float64, generator=generator) for _ in range(2))
    mixing = torch.randn(width, width, dtype=torch.float64, generator=generator)
    y = x @ mixing + noise * torch.logspace(-1, 2, width, dtype=torch.float64) + 3
    return x, y * torch.logspace(0, 3, width, dtype=torch.float64)


def streamed(x: torch.Tensor, y: torch.Tensor):
    """The moments of latents (N, T, D), seen in batches of ten images."""
    moments = Moments([(0, 1)])
    for one, other in zip(x.split(10), y.split(10), strict=True):
        moments.update({0: one, 1: other})
    return moments.pair(0, 1)


def span_of(rows: torch.Tensor) -> np.ndarray:
    """Rows (N, T, D) -> an orthonormal basis (N T, rank) of its centred columns, by pivoted QR."""
    stacked = rows.flatten(0, 1).numpy()
    stacked = stacked - stacked.mean(0)
    q, r, _ = qr(stacked / np.maximum(np.linalg.norm(stacked, axis=0), 1e-300), mode="economic", pivoting=True)
    return q[:, np.abs(np.diag(r)) > 1e-9]


def test_the_canonical_bound_is_that_of_the_stacked_tokens(script):
    x, y = latent_pair()
    correlations = svdvals(span_of(x).T @ span_of(y))
    expected = 8 - np.square(correlations).sum()
    assert 1 < expected < 7  # neither alike nor unrelated
    assert script.canonical_bound(streamed(x, y)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("which", "rank"), [("source", 8), ("target", 6)])
def test_directions_in_which_nothing_varies_do_not_count(script, which: str, rank: int):
    x, y = latent_pair()
    flat = x if which == "source" else y
    flat[..., 3], flat[..., 5] = 2.0, flat[..., 0] - flat[..., 1]  # a constant, and a sum of others
    expected = rank - np.square(svdvals(span_of(x).T @ span_of(y))).sum()
    assert script.canonical_bound(streamed(x, y)) == pytest.approx(expected, rel=1e-7)


def test_the_bound_holds_for_the_best_map_and_no_scale_changes_it(script):
    x, y = latent_pair()
    pair = streamed(x, y)
    bound = script.canonical_bound(pair)
    assert 0 < 1 - Affine().fit(pair).r2_ < bound
    assert script.canonical_bound(streamed(x * 100 + 1, y.flip(2))) == pytest.approx(bound, rel=1e-9)
    assert script.canonical_bound(streamed(x, x @ torch.eye(8).double().flip(0) - 4)) == pytest.approx(0, abs=1e-9)


@pytest.fixture(scope="module")
def case(script):
    """A small model, its images, the maps of a span inside and of one at the end, and their guides."""
    backbone, images = tiny(), pixels(80)
    keys = [Map(Span(-1, 0), 80), Map(Span(0, 2), 80)]
    moments = Moments([(key.span.start, key.span.end) for key in keys])
    moments.update(latents(backbone, images))
    modules = {key: Linear().fit(moments.pair(key.span.start, key.span.end)).to_module() for key in keys}
    errors = script.Errors(backbone, {key: module.double() for key, module in modules.items()})
    for batch in images.split(32):
        errors.update(batch)
    return backbone, images, modules, {key: dict(zip(script.GUIDES[1:], errors.of(key), strict=True)) for key in keys}


def moved_shares(features: np.ndarray, moved: np.ndarray) -> tuple[float, float]:
    """The two guides from features (N, F) and how they move (N, F): by feature, and along the original's directions."""
    by_feature = moved.var(0) / features.var(0)
    covariance = np.cov(features.T, bias=True)
    lifted = covariance + 1e-3 * features.var(0).mean() * np.eye(len(covariance))
    root = np.linalg.inv(np.linalg.cholesky(lifted))  # M, with M lifted Mᵀ = 1
    return by_feature.mean(), np.square((moved - moved.mean(0)) @ root.T).mean()


def test_at_the_end_of_the_model_the_features_move_as_the_shortened_model_moves_them(case):
    backbone, images, modules, found = case
    key = Map(Span(0, 2), 80)
    encoder = Encoder(backbone, [Plan(), Plan((key.span,))], {key.span: copy.deepcopy(modules[key]).float()})
    features = encoder(images).double().numpy()
    expected = moved_shares(features[:, 0], features[:, 0] - features[:, 1])
    assert (found[key]["features"], found[key]["directions"]) == pytest.approx(expected, rel=1e-4)


def test_inside_the_model_what_is_left_goes_through_the_last_norm(case):
    backbone, images, modules, found = case
    key = Map(Span(-1, 0), 80)
    tokens = {layer: latent[:, 0].double() for layer, latent in latents(backbone, images).items()}
    left = tokens[0] - modules[key](tokens[-1])
    norm = backbone.vit.norm

    def normed(rows: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(rows, (32,), norm.weight.double(), norm.bias.double(), norm.eps)

    moved = normed(tokens[2]) - normed(tokens[2] - left)
    expected = moved_shares(normed(tokens[2]).numpy(), moved.detach().numpy())
    assert (found[key]["features"], found[key]["directions"]) == pytest.approx(expected, rel=1e-4)


def test_the_other_guides_look_at_the_tokens_they_name(case, script):
    backbone, images, modules, found = case
    for key in modules:
        layers = latents(backbone, images)
        x, y = (layers[layer].double() for layer in (key.span.start, key.span.end))
        left = (y - modules[key](x))[:, 0].detach().numpy()
        expected = (np.square(left).mean(0) / y[:, 0].numpy().var(0)).mean()
        assert found[key]["readout"] == pytest.approx(expected, rel=1e-6)
        rank = span_of(y).shape[1]
        bound = rank - np.square(svdvals(span_of(x).T @ span_of(y))).sum()
        assert found[key]["canonical"] == pytest.approx(bound, rel=1e-3)


def searched(script, folder: str, losses: dict[str, float], **settings: object):
    spans = {Span.parse(text): loss for text, loss in losses.items()}
    return script.Searched(Path(folder), settings, "linear", spans, {Span(0, 1)})


def test_ranks_by_size_and_kind(script):
    losses = {"0-1": 0.1, "1-2": 0.2, "2-3": 0.3, "0-1:identity": 0.4, "1-2:identity": 0.5, "2-3:identity": 0.6}
    losses |= {"0-2": 1.0, "1-3": 2.0, "2-4": 3.0}
    search = searched(script, "a", losses)
    found = {span: {"right": loss, "turned": -loss} for span, loss in search.losses.items()}
    found[Span(0, 1)]["turned"] = 0.0
    table = script.table(search, found)
    assert (table.loc["right"].iloc[:-1] == 1).all()
    assert table.loc["right", ("to be", "measured")] == pytest.approx(1 / 6)
    assert table.loc["turned", ("equal sizes", "identity")] == pytest.approx(-1)
    assert table.loc["turned", ("equal sizes", "linear")] == pytest.approx(-1)
    assert table.loc["turned", ("all spans", "linear")] == pytest.approx(-1)
    assert table.loc["turned", ("to be", "measured")] == 1
    assert list(table.columns.get_level_values(1)) == ["all", "linear", "identity"] * 2 + ["measured"]


def test_another_draw_is_the_next_search_with_the_same_settings(script):
    first, second, third = (searched(script, "a", {}, data={"seed": seed, "fit_images": 9}) for seed in (0, 1, 2))
    alone = searched(script, "a", {}, data={"seed": 1, "fit_images": 8})
    searches = [first, alone, second, third]
    assert [each.next_of(searches) for each in searches] == [second, None, third, first]


def test_a_finished_search_is_read(script, toast, tmp_path: Path, capsys: pytest.CaptureFixture):
    few = ["data.fit_images=40", "data.train_images=96", "data.test_images=48", "device=cpu", "search.images=50"]
    for seed in (0, 1):
        once = [f"data.seed={seed}", "search.blocks=2", "search.rounds=1", "search.beam=1"]
        assert toast("search", *few, *once, f"hydra.run.dir={tmp_path}/{seed}")[0] == 0
    searches = [script.Searched.read(tmp_path / str(seed)) for seed in (0, 1)]
    script.report(searches[0], searches[0].next_of(searches))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}/0: 180 single spans, data.seed=0"
    assert [line.split()[0] for line in lines[3:]] == [*script.GUIDES, "another"]
    assert len(lines[3].split()) == 8
