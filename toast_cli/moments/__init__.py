"""Streamed second moments of latents, and least squares from them."""

from toast_cli.moments.pair import PairMoments
from toast_cli.moments.streamed import Moments

__all__ = ["Moments", "PairMoments"]
