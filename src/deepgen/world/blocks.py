"""What the small networks that look at pictures of the world are made of: detector, reader, dual encoder."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepgen.errors import InputError

SIDE_MULTIPLE = 32


def conv_unit(inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    """Convolution, batch normalisation, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(inplace=True),
    )


class Bottleneck(nn.Module):
    """x + 1×1 → 3×3 → 1×1: most of a dense block's effect at a third of its parameters."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        last = nn.BatchNorm2d(width)
        nn.init.zeros_(last.weight)  # a new block is the identity
        self.body = nn.Sequential(
            conv_unit(width, inner, 1),
            conv_unit(inner, inner, 3),
            nn.Conv2d(inner, width, 1, bias=False),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.body(x))


def network_input(pictures: Tensor, dtype: torch.dtype) -> Tensor:
    """Pictures as a network of these takes them, in [−2, 2].

    pictures: uint8 [B, 3, H, W], or floats in [0, 1]; sides multiples of 32. Raises InputError for other shapes.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise InputError(f"pictures must be [B, 3, H, W], got {list(pictures.shape)}")
    if pictures.shape[2] % SIDE_MULTIPLE or pictures.shape[3] % SIDE_MULTIPLE:
        raise InputError(f"pictures need sides in {SIDE_MULTIPLE}s, got {list(pictures.shape[2:])}")
    if pictures.dtype == torch.uint8:
        pictures = pictures.to(dtype) / 255
    return pictures.to(dtype) * 4 - 2
