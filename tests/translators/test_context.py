"""The map that sees the image, against least squares on stacked tokens."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.translators.conftest import rows
from toast_cli.errors import ToastError
from toast_cli.plans import Map, Span
from toast_cli.translators import Affine, Context, Identity, Linear, Ridge
from toast_cli.translators.base import ClosedForm, FittedMap
from toast_cli.translators.named import by_name
from toast_cli.translators.pieces import cut
from toast_cli.translators.stored import encoded, load
from toast_cli.translators.sums import Sums, Wanted, held_apart

GRID = [1e-4, 1e-2, 1.0, 100.0]


def latents(
    images: int = 60, prefix: int = 2, noise: float = 0.1, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """X and Y (N, 9, 6): y depends on the token and on the mean of its image's patches, and otherwise for prefix tokens."""
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = some(images, 9, 6) * torch.logspace(-1, 2, 6) + some(images, 1, 6)
    x[:, 0, 3] -= 300
    mean = x[:, prefix:].mean(1, keepdim=True)
    y = x @ some(6, 6) + mean @ some(6, 6) + noise * some(images, 9, 6) + 4
    y[:, :prefix] += mean @ some(6, 6) + 0.2 * x[:, :prefix] @ some(6, 6) + some(6)
    return x.to(dtype), y.to(dtype)


def fit(translator: ClosedForm, x: Tensor, y: Tensor, prefix: int, batch: int = 25) -> FittedMap:
    """As a run fits it: a few images at a time."""
    wanted = Wanted(0, 1, translator)
    sums = Sums([wanted], prefix, x.shape[1])
    for first in range(0, len(x), batch):
        chosen = slice(first, first + batch)
        sums.update(np.arange(len(x))[chosen], {0: x[chosen], 1: y[chosen]})
    return sums.fitted(translator, sums.of(wanted, x.shape[2]))


def by_hand(x: Tensor, y: Tensor, prefix: int, strengths: list[float], at: Tensor) -> np.ndarray:
    """The map fitted to x and y, at latents ``at``: an affine fit to all tokens, then scikit-learn's ridge to what it leaves."""
    from sklearn.linear_model import LinearRegression
    from sklearn.linear_model import Ridge as Theirs

    affine = LinearRegression().fit(rows(x).numpy(), rows(y).numpy())
    found = affine.predict(rows(at).numpy()).reshape(at.shape)
    groups = [slice(0, prefix), slice(prefix, None)] if prefix else [slice(0, None)]
    for group, strength in zip(groups, strengths, strict=True):
        if strength == math.inf:
            continue
        seen, wanted = (
            rows(
                torch.cat([side[:, group], side[:, prefix:].mean(1, keepdim=True).expand_as(side[:, group])], 2)
            ).numpy()
            for side in (x, at)
        )
        left = rows(y[:, group]).numpy() - affine.predict(rows(x[:, group]).numpy())
        scale = seen.std(0)
        theirs = Theirs(alpha=strength * len(seen)).fit(seen / scale, left)
        found[:, group] += theirs.predict(wanted / scale).reshape(found[:, group].shape)
    return found


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("strength", GRID)
def test_it_is_ridge_on_what_the_affine_map_leaves(prefix: int, strength: float, monkeypatch: pytest.MonkeyPatch):
    x, y = latents(prefix=prefix)
    count = 1 + bool(prefix)
    monkeypatch.setattr(Context, "_chosen", lambda self, groups: [strength] * count)
    found = fit(Context(GRID), x, y, prefix)
    expected = by_hand(x, y, prefix, [strength] * count, x)
    assert np.allclose(found.to_module()(x).numpy(), expected, atol=1e-7)
    error = ((y.numpy() - expected) ** 2).sum()
    assert found.error_ == pytest.approx(error, rel=1e-6)
    assert found.r2_ == pytest.approx(1 - error / (rows(y) - rows(y).mean(0)).square().sum().item(), rel=1e-9)


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("noise", [0.1, 30.0])
def test_strengths_are_chosen_on_held_out_images_and_there_it_is_never_worse_than_affine(prefix: int, noise: float):
    x, y = latents(images=30, prefix=prefix, noise=noise)
    apart = torch.from_numpy(held_apart(np.arange(30), 0.2))
    found = fit(Context(GRID), x, y, prefix)
    groups = [slice(0, prefix), slice(prefix, None)] if prefix else [slice(0, None)]
    candidates = [math.inf, *GRID]
    errors = np.array([
        [
            ((by_hand(x[~apart], y[~apart], prefix, [each] * len(groups), x[apart]) - y[apart].numpy())[:, group] ** 2).sum()
            for each in candidates
        ]
        for group in groups
    ])  # fmt: skip
    assert found.strengths_.tolist() == [candidates[i] for i in errors.argmin(1)]
    assert errors.min(1).sum() <= errors[:, 0].sum(), "the first is the affine map"
    if noise < 1:
        assert errors.min(1).sum() < 0.5 * errors[:, 0].sum(), "it sees what the affine map does not"
    assert np.allclose(found.to_module()(x).numpy(), by_hand(x, y, prefix, found.strengths_.tolist(), x), atol=1e-6)


def test_where_the_image_says_nothing_it_is_the_affine_map():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 40, 9, 6, generator=generator, dtype=torch.float64)
    found, affine = fit(Context([1e-4, 1e-2]), x, y, 1), fit(Affine(), x, y, 1)
    assert found.strengths_.tolist() == [math.inf] * 2
    assert torch.allclose(found.to_module()(x), affine.to_module()(x), atol=1e-12)
    assert found.error_ == pytest.approx(affine.error_)
    assert not found.contexts_.any()


def test_with_too_few_images_to_hold_any_out_it_is_the_affine_map():
    x, y = latents(images=4)
    found, affine = fit(Context(GRID), x, y, 2), fit(Affine(), x, y, 2)
    assert found.strengths_.tolist() == [math.inf] * 2
    assert torch.allclose(found.to_module()(x), affine.to_module()(x), atol=1e-8)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_sums_in_single_precision_are_those_of_the_stacked_tokens(prefix: int):
    """Also where products are taken of whitened rows: there are enough images to choose a basis for the means too."""
    x, y = latents(images=400, prefix=prefix, dtype=torch.float32)
    x[..., 1] = x[..., 0] + 1e-3 * x[..., 1]  # early latents hardly vary in some directions
    single, double = (
        fit(Context([1e-6]), x.to(kind), y.to(kind), prefix, 100) for kind in (torch.float32, torch.float64)
    )
    assert (single.strengths_ < math.inf).all()
    wanted = double.to_module()(x.double())
    assert ((single.to_module().double()(x.double()) - wanted).norm() / wanted.norm()).item() < 1e-5


@pytest.mark.parametrize("tokens", ["shared", "split", "per_position"])
def test_beside_it_other_translators_are_what_they_are_alone(tokens: str):
    x, y = latents()
    alone = fit(Linear(tokens=tokens), x, y, 2)
    kinds = {"linear": Linear(tokens=tokens), "context": Context(GRID), "identity": Identity(tokens=tokens)}
    wanted = {name: Wanted(0, 1, each) for name, each in kinds.items()}
    sums = Sums(wanted.values(), 2, 9)
    sums.update(np.arange(len(x)), {0: x, 1: y})
    found = {name: sums.fitted(each.translator, sums.of(each, 6)) for name, each in wanted.items()}
    assert torch.allclose(found["linear"].to_module()(x), alone.to_module()(x), atol=1e-8)
    assert found["linear"].error_ == pytest.approx(alone.error_)
    context = fit(Context(GRID), x, y, 2)
    assert found["context"].strengths_.tolist() == context.strengths_.tolist()
    assert torch.allclose(found["context"].to_module()(x), context.to_module()(x), atol=1e-8)


def test_pieces_are_what_all_groups_are_made_of():
    assert cut([slice(0, 9)]) == [slice(0, 9)]
    assert cut([slice(0, 9), slice(0, 2), slice(2, 9)]) == [slice(0, 2), slice(2, 9)]
    assert cut([slice(0, None), slice(0, 2), slice(2, None)]) == [slice(0, 2), slice(2, None)]
    assert cut([slice(0, None)]) == [slice(0, None)]


def test_it_reads_back_with_infinite_strengths(tmp_path):
    x, y = latents(images=4, dtype=torch.float32)
    found = fit(Context(GRID), x, y, 2)
    (tmp_path / "t.safetensors").write_bytes(encoded({Map(Span(-1, 2), 4): found}))
    (again,) = load(tmp_path / "t.safetensors", lambda key, learned: Context(GRID).restore(learned)).values()
    assert torch.equal(again.to_module()(x), found.to_module()(x))
    assert again.strengths_.tolist() == [math.inf] * 2
    assert (again.prefix_, again.rank_) == (2, 6)


def test_settings():
    for strengths in ([], "1", [0.0], [True], 1.0):
        with pytest.raises(ToastError, match=r"translator.strengths=.* cannot be used: give a list of numbers above 0"):
            Context(strengths)
    assert by_name("context", tokens="per_position").tokens == "split", "its grouping is its own"
    assert isinstance(by_name("ridge", tokens="split"), Ridge)
