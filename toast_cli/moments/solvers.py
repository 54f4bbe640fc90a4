"""Least squares from moments: exact, with a penalty, and as LAPACK's truncating driver does it. All in float64.

Shapes: D width of the source, E of the target.
"""

import torch
from torch import Tensor

from toast_cli.moments.pair import PairMoments


def least_squares(xx: Tensor, xy: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    """W (D, E) with xx W = xy, and the rank used, for xx = XᵀX (D, D) and xy = XᵀY (D, E) in float64.

    Columns of X are first scaled to unit length, W = S (S xx S)⁺ S xy with S = diag(xx)^(−1/2), so that a few massive
    activations do not hide the rest; if there are several solutions, S⁻¹ W has the smallest norm. They are solved by
    Cholesky or, if its pivots show that X is rank-deficient to within the rounding of ``dtype`` (the precision X was
    computed in), by an eigendecomposition that keeps the eigenvalues above D·max(eps², eps_64)·λ_max. Smaller directions
    are rounding noise, which a map would amplify.
    """
    scale = torch.where(xx.diagonal() > 0, xx.diagonal(), 1.0).rsqrt()  # (D,)
    correlation = scale[:, None] * xx * scale  # (D, D)
    target = scale[:, None] * xy  # (D, E)
    tolerance = rounding_share(len(xx), dtype)
    factor, failed = torch.linalg.cholesky_ex(correlation)
    if not failed and factor.diagonal().square().min() > tolerance * len(xx):
        return scale[:, None] * torch.cholesky_solve(target, factor), len(xx)
    values, vectors = torch.linalg.eigh(correlation)
    kept = values > tolerance * values[-1].clamp(min=0)
    vectors = vectors[:, kept]
    return scale[:, None] * (vectors @ ((vectors.T @ target) / values[kept, None])), int(kept.sum())


def rounding_share(width: int, dtype: torch.dtype) -> float:
    """D·max(eps², eps_64): the share of the largest eigenvalue of correlations (D, D), D = ``width``, below which a direction
    is rounding noise of ``dtype``, the precision that the rows were computed in."""
    return width * max(torch.finfo(dtype).eps ** 2, torch.finfo(torch.float64).eps)


def gelsy(moments: PairMoments) -> tuple[Tensor, int]:
    """W (D, D) and its rank, as LAPACK's ``gelsy`` gives them at ``torch.linalg.lstsq``'s default cutoff, eps · max(n, D).

    The result depends on the stacked tokens X only through XᵀX: the routine reduces X by pivoted QR, stops where the
    condition number of the reduced part reaches 1/(eps·max(n, D)), and solves there. So it is run on a square root of XᵀX here.
    """
    values, vectors = torch.linalg.eigh(moments.xx)
    root = values.clamp(min=0).sqrt()  # (D,)
    kept = root > root[-1] * torch.finfo(torch.float64).eps ** 0.5
    source = root[kept, None] * vectors[:, kept].T  # (K, D), sourceᵀ source = xx
    target = (vectors[:, kept].T @ moments.xy) / root[kept, None]  # (K, D), sourceᵀ target = xy
    cutoff = torch.finfo(moments.dtype).eps * max(moments.count, len(moments.xx))
    found = torch.linalg.lstsq(source, target, rcond=cutoff, driver="gelsy")
    return found.solution.clone(), int(found.rank)


def ridge(moments: PairMoments, strengths: list[float]) -> list[Tensor]:
    """W (D, E) for each λ: (S xx S + λ n 1) S⁻¹ W = S xy on centred sums, S = 1/σ; by Cholesky or, if a λ is too small
    for that, by an eigendecomposition."""
    centred = moments.centred()
    variance = centred.xx.diagonal() / moments.count
    scale = torch.where(variance > 0, variance, 1.0).rsqrt()  # (D,)
    correlation = scale[:, None] * centred.xx * scale / moments.count
    target = scale[:, None] * centred.xy / moments.count  # (D, E)
    return [scale[:, None] * _lifted(correlation, target, strength) for strength in strengths]


def _lifted(matrix: Tensor, target: Tensor, lift: float) -> Tensor:
    """The solution (D, E) of (``matrix`` + ``lift`` 1) X = ``target`` for a positive semidefinite matrix (D, D)."""
    factor, failed = torch.linalg.cholesky_ex(matrix + lift * torch.eye(len(matrix)).to(matrix))
    if not failed:
        return torch.cholesky_solve(target, factor)
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ ((vectors.T @ target) / (values.clamp(min=0) + lift)[:, None])
