"""Qwen2.5-VL's vision tower on a batch of equally sized pictures.

transformers runs this tower picture by picture and window by window (one attention call a window with SDPA).
Pictures of one size share their windows, so here windows of one size are one call for a whole batch. Patches stand in
transformers' order, window by window: so the sums come out the same to the last bit on a CPU, which matters because
thirty-six decoder layers make a thousand of a rounding here (tested).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
ROPE_THETA = 10000.0
PIXELS_PER_TOKEN = 32
"""Side of the square of original pixels that one VLM token stands for."""


def resize_for_vision(pixels: Tensor, token_side: int = 28) -> Tensor:
    """Pictures [B, 3, H, W] in [-1, 1], H and W multiples of 32 → CLIP-normalised [B, 3, 28H/32, 28W/32].

    Bilinear without antialiasing, as published, in place of Qwen's own bicubic processor.
    """
    ratio = token_side / PIXELS_PER_TOKEN
    small = F.interpolate(pixels, scale_factor=ratio, mode="bilinear", align_corners=False)
    mean = torch.tensor(CLIP_MEAN, dtype=pixels.dtype, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(CLIP_STD, dtype=pixels.dtype, device=pixels.device).view(1, 3, 1, 1)
    return ((small + 1) / 2 - mean) / std


@dataclass(frozen=True)
class Grid:
    """Where the patches of a picture stand, in the order in which the tower reads them.

    Attributes:
        row, column: of each patch, [n].
        windows: places in that order of the patches of each window, those of one size together: [count, size] each.
        back: from the patches one after another as `windows` has them to this order, [n].
        reading: from this order of merged tokens to that by rows of the picture, [n / merge²].
    """

    row: Tensor
    column: Tensor
    windows: tuple[Tensor, ...]
    back: Tensor
    reading: Tensor

    def to(self, device: torch.device) -> "Grid":
        """The same on a device, without waiting for it."""

        def move(places: Tensor) -> Tensor:
            return places.to(device, non_blocking=True)

        windows = tuple(move(places) for places in self.windows)
        return Grid(move(self.row), move(self.column), windows, move(self.back), move(self.reading))


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept for all later calls, of which some want gradients
def patch_grid(rows: int, columns: int, merge: int, window: int) -> Grid:
    """The grid of rows x columns patches: window by window, in each its blocks of merge x merge by rows.

    Args:
        rows, columns: multiples of merge.
        window: side of a window in patches, a multiple of merge; those at the right and lower edge may be smaller.
    """
    index = torch.arange(rows * columns).view(rows // merge, merge, columns // merge, merge)
    index = index.transpose(1, 2).flatten()
    name = (index // columns // window) * columns + index % columns // window
    order = name.argsort(stable=True)
    index, (_, counts) = index[order], name[order].unique_consecutive(return_counts=True)
    starts = counts.cumsum(0) - counts
    windows = tuple(starts[counts == size][:, None] + torch.arange(size) for size in counts.unique().tolist())
    places = torch.cat([places.flatten() for places in windows])
    return Grid(
        index // columns,
        index % columns,
        windows,
        places.argsort(),
        order.view(-1, merge * merge)[:, 0].argsort(),
    )


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    return (x.float() * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


def _embed_patches(visual: Any, x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Patch embeddings [B, n, D] in merge order; a still picture is `temporal_patch_size` equal frames."""
    config = visual.config
    patch, weight = config.patch_size, visual.patch_embed.proj.weight
    batch, channels, height, width = x.shape
    tiles = x.view(batch, channels, height // patch, patch, width // patch, patch).permute(0, 2, 4, 1, 3, 5)
    tiles = tiles[:, row, column].unsqueeze(3).expand(-1, -1, -1, config.temporal_patch_size, -1, -1)
    if weight.device.type == "cpu":
        return visual.patch_embed(tiles.flatten(0, 1)).unflatten(0, (batch, -1))
    # The same sums, in another order: accelerators are slow at the convolution.
    return F.linear(tiles.flatten(2).to(weight.dtype), weight.flatten(1))


def vision_block(
    block: Any,
    hidden: Tensor,
    cos: Tensor,
    sin: Tensor,
    windows: Sequence[Tensor] = (),
    back: Tensor | None = None,
) -> Tensor:
    """One block on patches [B, n, D].

    Args:
        block: of the tower.
        hidden: patches in the order of `patch_grid`.
        cos, sin: [n, head_dim].
        windows, back: `Grid.windows` and `Grid.back` where attention stays within windows; left out where it is full.
    """
    batch, size, width = hidden.shape
    query, key, value = (
        block.attn.qkv(block.norm1(hidden))
        .view(batch, size, 3, -1, cos.shape[-1])
        .permute(2, 0, 3, 1, 4)
        .unbind(0)
    )
    query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
    if back is None:
        attended = F.scaled_dot_product_attention(query, key, value)
    else:
        attended = torch.cat([_within(query, key, value, places) for places in windows], dim=2)[:, :, back]
    hidden = hidden + block.attn.proj(attended.transpose(1, 2).reshape(batch, size, width))
    return hidden + block.mlp(block.norm2(hidden))


def _within(query: Tensor, key: Tensor, value: Tensor, places: Tensor) -> Tensor:
    """Attention [B, heads, count · size, d] of windows of one size, each within itself; places [count, size]."""
    query, key, value = (x[:, :, places].transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value)
    return attended.unflatten(0, (-1, len(places))).transpose(1, 2).flatten(2, 3)


def vision_embeds(visual: Any, pixels: Tensor, run: Callable[..., Tensor] = vision_block) -> Tensor:
    """Pictures [B, 3, H, W] in [-1, 1] (one size, H and W multiples of 32) → embeddings [B, HW/1024, D].

    Args:
        visual: a transformers `Qwen2_5_VisionTransformerPretrainedModel`.
        pixels: best in fp32: they are resized and normalised in their own dtype.
        run: `vision_block`, or what computes the same.
    """
    config = visual.config
    patch, merge = config.patch_size, config.spatial_merge_size
    x = resize_for_vision(pixels, patch * merge)
    batch, _, height, width = x.shape
    rows, columns = height // patch, width // patch
    grid = patch_grid(rows, columns, merge, config.window_size // patch)
    grid = grid.to(x.device)
    row, column = grid.row, grid.column
    hidden = _embed_patches(visual, x, row, column)

    head_dim = config.hidden_size // config.num_heads
    frequencies = ROPE_THETA ** -(
        torch.arange(0, head_dim // 2, 2, dtype=torch.float32, device=x.device) / (head_dim // 2)
    )
    angles = torch.cat((row[:, None] * frequencies, column[:, None] * frequencies), dim=-1)
    angles = torch.cat((angles, angles), dim=-1)
    cos, sin = angles.cos(), angles.sin()

    for index, block in enumerate(visual.blocks):
        within = () if index in config.fullatt_block_indexes else (grid.windows, grid.back)
        hidden = run(block, hidden, cos, sin, *within)
    merged = visual.merger.ln_q(hidden).reshape(batch, -1, config.hidden_size * merge * merge)
    return visual.merger.mlp(merged)[:, grid.reading]
