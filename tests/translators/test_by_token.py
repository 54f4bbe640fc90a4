import pytest
import torch

from toast_cli.errors import ToastError
from toast_cli.moments import Moments, PairMoments
from toast_cli.translators.by_token import groups_of, joined, restored
from toast_cli.translators.closed_form import Affine, Linear


def test_tokens_are_grouped_as_asked():
    assert groups_of("shared", 1, 5) == [slice(0, 5)]
    assert groups_of("split", 2, 5) == [slice(0, 2), slice(2, 5)]
    assert groups_of("split", 0, 5) == [slice(0, 5)], "no prefix tokens, nothing to split"
    assert groups_of("per_position", 1, 3) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    with pytest.raises(ToastError, match="translator.tokens=splt is not known .did you mean split"):
        groups_of("splt", 1, 5)


def moments_of(x: torch.Tensor, y: torch.Tensor, groups: list[slice]) -> list[PairMoments]:
    found = []
    for group in groups:
        moments = Moments([(0, 1)])
        moments.update({0: x[:, group], 1: y[:, group]})
        found.append(moments.pair(0, 1))
    return found


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """The first of four tokens obeys another map than the rest."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, 6, generator=generator, dtype=torch.float64)
    maps = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    return x, torch.cat([x[:, :1] @ maps[0], x[:, 1:] @ maps[1]], 1)


def test_each_group_has_its_own_map(pair):
    x, y = pair
    groups = groups_of("split", 1, 4)
    fitted = [Linear(tokens="split").fit(moments) for moments in moments_of(x, y, groups)]
    split = joined(fitted, groups, (y - y.mean((0, 1))).square().sum().item())
    assert torch.allclose(split.to_module()(x), y, atol=1e-9)
    assert split.r2_ == pytest.approx(1)
    shared = Linear().fit(moments_of(x, y, [slice(None)])[0])
    assert shared.r2_ < 0.9


def test_r2_counts_all_tokens_together(pair):
    x, y = pair
    y = y + torch.randn(50, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    groups = groups_of("per_position", 1, 4)
    variation = (y - y.mean((0, 1))).square().sum().item()
    translator = joined([Affine().fit(moments) for moments in moments_of(x, y, groups)], groups, variation)
    error = (y - translator.to_module()(x)).square().sum().item()
    assert translator.r2_ == pytest.approx(1 - error / variation, abs=1e-9)


def test_the_module_takes_the_leading_tokens_alone(pair):
    x, y = pair
    groups = groups_of("split", 2, 4)
    module = joined([Linear().fit(moments) for moments in moments_of(x, y, groups)], groups, 1.0).to_module()
    for count in (1, 2, 3):
        assert torch.allclose(module(x[:, :count]), module(x)[:, :count])


def test_saved_reads_back(pair):
    x, y = pair
    groups = groups_of("per_position", 1, 4)
    fitted = joined([Affine().fit(moments) for moments in moments_of(x, y, groups)], groups, 1.0)
    again = restored(Affine(), groups, fitted.learned())
    assert torch.equal(again.to_module()(x), fitted.to_module()(x))
    assert (again.r2_, again.rank_, again.error_) == (fitted.r2_, fitted.rank_, fitted.error_)
