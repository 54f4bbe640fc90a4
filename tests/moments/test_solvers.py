"""Least squares, exact or as torch.linalg.lstsq cuts off on CPUs, on latents of full rank or less."""

import pytest
import torch

from tests.moments.conftest import pair, some_latents
from toast_cli.moments.solvers import least_squares
from toast_cli.translators import Linear


def test_rank_deficient_latents_are_cut_at_their_rank():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 9, 3, generator=generator) @ torch.randn(3, 8, generator=generator)
    y = torch.randn(50, 9, 8, generator=generator)
    translator = Linear().fit(pair(x, y))
    assert translator.rank_ == 3
    rows, target = x.flatten(0, 1).double(), y.flatten(0, 1).double()
    best = rows @ torch.linalg.lstsq(rows, target, rcond=1e-6, driver="gelsd").solution
    ours = rows @ translator.weight_.double()
    assert ((ours - best).norm() / best.norm()).item() < 1e-4
    assert translator.weight_.abs().max() < 10, "noise directions must not be used"


def test_both_branches_of_the_solver_agree(monkeypatch: pytest.MonkeyPatch):
    moments = pair(*some_latents(torch.float64))
    cholesky, rank = least_squares(moments.xx, moments.xy, torch.float64)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda a: (a, torch.tensor(1)))
    eigen, same = least_squares(moments.xx, moments.xy, torch.float64)
    assert rank == same == 8
    assert torch.allclose(cholesky, eigen, rtol=1e-8)


def test_gelsy_is_what_lstsq_does_in_fp32_on_cpus():
    """Directions of 1e-1 to 1e-4 of the largest on 20 000 rows: the default driver's cutoff, eps times rows, is 2.4e-3."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    x = (torch.randn(20_000, 16, generator=generator) * torch.logspace(0, -4, 16)) @ turn
    y = x @ torch.randn(16, 16, generator=generator) * 10 + torch.randn(20_000, 16, generator=generator)
    theirs = torch.linalg.lstsq(x, y)
    ours = Linear(solver="gelsy").fit(pair(x[:, None], y[:, None]))
    assert abs(ours.rank_ - int(theirs.rank)) <= 2, (
        "where exactly it cuts differs between the LAPACKs that torch comes with"
    )
    assert max(ours.rank_, int(theirs.rank)) < 16
    if ours.rank_ == int(theirs.rank):
        assert ((x @ ours.weight_ - x @ theirs.solution).norm() / (x @ theirs.solution).norm()).item() < 1e-3
    exact = Linear().fit(pair(x[:, None], y[:, None]))
    assert exact.rank_ == 16
    assert exact.r2_ > ours.r2_
