"""One attention function for full and ragged batches, driven by lengths instead of dense masks.

The published code builds a [B, 1, N, N] mask in every layer, which rules the fast kernels out. Here a batch
without lengths runs plain scaled dot-product attention; a ragged one runs the variable-length kernel where
there is one (CUDA, half precision, eager), a masking by extra channels in compiled training, and otherwise masks
keys only, with [B, 1, 1, N].
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

FILLER_CHANNEL = -2048.0


class Packing(NamedTuple):
    """Where the real tokens of a [B, N] batch are: flat places [T], cumulative int32 [B + 1], longest row."""

    places: Tensor
    cumulative: Tensor
    longest: int


class Layout(NamedTuple):
    """Which tokens of a ragged batch are real; made once a forward pass and shared by its layers."""

    mask: Tensor
    """bool [B, 1, 1, N], True at real tokens."""
    packing: Packing | None


def valid_tokens(lengths: Tensor, size: int) -> Tensor:
    """bool [B, size]: True at the first lengths[b] positions of each row."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def known_full(lengths: Tensor | None, size: int) -> bool:
    """Whether it is known without waiting for a device that every row has `size` tokens."""
    return lengths is None or (lengths.device.type == "cpu" and bool((lengths == size).all()))


def ragged_layout(
    parts: Sequence[tuple[int, Tensor | None]], like: Tensor, packed: bool = True
) -> Layout | None:
    """The layout of a sequence joined from parts, each filled on the right; None when every part is full.

    Args:
        parts: (size, lengths) of each part, in order; lengths int [B], or None where all rows are full.
        like: a tensor [B, ...] with the device and dtype that attention will run in.
        packed: whether the variable-length kernel may run; packing waits for the device, and its shapes change.
    """
    if all(lengths is None for _, lengths in parts):
        return None
    batch = like.shape[0]
    home = next(lengths.device for _, lengths in parts if lengths is not None)
    valid = torch.cat(
        [
            torch.ones(batch, size, dtype=torch.bool, device=home)
            if lengths is None
            else valid_tokens(lengths.to(home), size)
            for size, lengths in parts
        ],
        dim=1,
    )
    mask = valid[:, None, None, :].to(like.device, non_blocking=True)
    if not packed or torch.compiler.is_compiling() or not _half_on_cuda(like):
        return Layout(mask, None)
    counts = valid.sum(1)
    cumulative = F.pad(counts.cumsum(0), (1, 0)).to(like.device, torch.int32, non_blocking=True)
    places = valid.flatten().nonzero().squeeze(1).to(like.device, non_blocking=True)
    return Layout(mask, Packing(places, cumulative, int(counts.max())))


def _half_on_cuda(like: Tensor) -> bool:
    return like.is_cuda and like.dtype in (torch.float16, torch.bfloat16)


def attention(query: Tensor, key: Tensor, value: Tensor, layout: Layout | None = None) -> Tensor:
    """Non-causal attention over the real tokens of each row.

    Args:
        query, key, value: [B, heads, N, head_dim].
        layout: from `ragged_layout`; None when every token is real.

    Returns:
        [B, heads, N, head_dim]; the values at filler positions are finite and meaningless.
    """
    if layout is None:
        return F.scaled_dot_product_attention(query, key, value)
    if layout.packing is None and _half_on_cuda(query):
        return masked_by_channels(query, key, value, layout.mask)
    if layout.packing is None or query.shape[-1] % 8:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=layout.mask)
    return _packed(query, key, value, layout.packing)


def masked_by_channels(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention to the keys where mask [B, 1, 1, N] holds, by a kernel that takes no mask.

    Eight more channels, the least that fast kernels take, hold 1 in queries and a large negative number in filler
    keys: their weight is 0 to the last bit.
    """
    width = query.shape[-1]
    low = torch.where(mask, 0.0, FILLER_CHANNEL).to(key.dtype).mT.expand(*key.shape[:-1], 8)
    query, value = F.pad(query, (0, 8), value=1.0), F.pad(value, (0, 8))
    out = F.scaled_dot_product_attention(query, torch.cat((key, low), dim=-1), value, scale=width**-0.5)
    return out[..., :width]


def _packed(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
    batch, heads, size, width = query.shape

    def pack(x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(batch * size, heads, width).index_select(0, packing.places)

    rows, longest = packing.cumulative, packing.longest
    out: Tensor = varlen_attn(pack(query), pack(key), pack(value), rows, rows, longest, longest)  # type: ignore[assignment]
    full = out.new_zeros(batch * size, heads, width).index_copy(0, packing.places, out)
    return full.view(batch, size, heads, width).transpose(1, 2)
