"""Classifier-free guidance (Ho and Salimans 2022)."""

from torch import Tensor


def guide(negative: Tensor, positive: Tensor, scale: float | Tensor) -> Tensor:
    """negative + scale·(positive − negative); any shapes that broadcast, in the inputs' dtype.

    scale 1 gives the positive velocity, 0 the negative one.
    """
    return negative + scale * (positive - negative)
