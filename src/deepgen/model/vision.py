"""Qwen2.5-VL's vision tower on a batch of equally sized pictures.

transformers runs this tower picture by picture and window by window (one attention call a window with SDPA).
Pictures of one size share their windows, so here a batch is one call a block: windows become a mask, which
needs no reordering because attention has no order of its own. Same weights, same numbers (tested).
"""

from collections.abc import Callable
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


def _merge_order(rows: int, columns: int, merge: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of every patch in the order (block row, block column, row in block, column in block)."""
    grid = torch.stack(
        torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    )
    blocks = grid.view(2, rows // merge, merge, columns // merge, merge).permute(0, 1, 3, 2, 4)
    row, column = blocks.reshape(2, -1)
    return row, column


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
    return F.linear(tiles.flatten(2).to(weight.dtype), weight.flatten(1))


def vision_block(block: Any, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
    """One block on patches [B, n, D]; cos and sin [n, head_dim], mask True where attention goes, or None for all."""
    batch, size, width = hidden.shape
    query, key, value = (
        block.attn.qkv(block.norm1(hidden))
        .view(batch, size, 3, -1, cos.shape[-1])
        .permute(2, 0, 3, 1, 4)
        .unbind(0)
    )
    attended = F.scaled_dot_product_attention(_rotate(query, cos, sin), _rotate(key, cos, sin), value, mask)
    hidden = hidden + block.attn.proj(attended.transpose(1, 2).reshape(batch, size, width))
    return hidden + block.mlp(block.norm2(hidden))


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
    row, column = _merge_order(rows, columns, merge, x.device)
    hidden = _embed_patches(visual, x, row, column)

    head_dim = config.hidden_size // config.num_heads
    frequencies = ROPE_THETA ** -(
        torch.arange(0, head_dim // 2, 2, dtype=torch.float32, device=x.device) / (head_dim // 2)
    )
    angles = torch.cat((row[:, None] * frequencies, column[:, None] * frequencies), dim=-1)
    angles = torch.cat((angles, angles), dim=-1)
    cos, sin = angles.cos(), angles.sin()

    window = config.window_size // patch
    window_id = (row // window) * columns + column // window
    same_window = (window_id[:, None] == window_id[None, :])[None, None]

    for index, block in enumerate(visual.blocks):
        mask = None if index in config.fullatt_block_indexes else same_window
        hidden = run(block, hidden, cos, sin, mask)
    merged = visual.merger.ln_q(hidden).reshape(batch, -1, config.hidden_size * merge * merge)
    return visual.merger.mlp(merged)
