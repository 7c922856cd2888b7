"""The parts of the diffusion transformer, named as diffusers names them inside SD3Transformer2DModel."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepgen.errors import InputError
from deepgen.model.attention import Layout, attention

NORM_EPS = 1e-6


def sincos_table(side: int, base: int, width: int) -> Tensor:
    """Fixed 2-D sine-cosine positions [side·side, width] fp32, row by row (DiT, Peebles and Xie 2023).

    Coordinates run from 0 to base over the table; the first half of the channels encodes the column, the
    second the row, each as [sin | cos] of width / 4 frequencies 10000^(−4k/width).
    """
    coordinates = torch.arange(side, dtype=torch.float32) / (side / base)
    quarter = width // 4
    frequencies = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.outer(coordinates.double(), frequencies)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1).float()
    columns = axis[None, :, :].expand(side, side, -1)
    rows = axis[:, None, :].expand(side, side, -1)
    return torch.cat([columns, rows], dim=-1).reshape(side * side, width)


class PatchEmbedding(nn.Module):
    """Patches of a latent as tokens, plus the centre of a fixed position table (stored in checkpoints)."""

    pos_embed: Tensor

    def __init__(self, sample_size: int, patch_size: int, channels: int, width: int, table_side: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.table_side = table_side
        self.proj = nn.Conv2d(channels, width, kernel_size=patch_size, stride=patch_size)
        table = sincos_table(table_side, sample_size // patch_size, width)
        self.register_buffer("pos_embed", table[None], persistent=True)

    def positions(self, rows: int, columns: int) -> Tensor:
        """[rows·columns, D]: the centred crop; a picture of any size shares its centre with all others."""
        if max(rows, columns) > self.table_side:
            raise InputError(
                f"a latent of {rows}x{columns} patches is larger than the model's position table "
                f"({self.table_side}x{self.table_side}); use a smaller picture"
            )
        top, left = (self.table_side - rows) // 2, (self.table_side - columns) // 2
        table = self.pos_embed.view(self.table_side, self.table_side, -1)
        return table[top : top + rows, left : left + columns].reshape(rows * columns, -1)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, n, D] tokens of latents [B, C, H, W]."""
        height, width = latents.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise InputError(f"latent sides {height}x{width} are not multiples of {self.patch_size}")
        tokens = self.proj(latents).flatten(2).transpose(1, 2)
        positions = self.positions(height // self.patch_size, width // self.patch_size)
        return (tokens + positions).to(latents.dtype)


class TwoLayer(nn.Module):
    """Linear, SiLU, Linear."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class TimeTextEmbedding(nn.Module):
    """The vector [B, D] that modulates every block: timestep plus pooled condition."""

    frequencies = 256

    def __init__(self, width: int, pooled: int) -> None:
        super().__init__()
        self.timestep_embedder = TwoLayer(self.frequencies, width)
        self.text_embedder = TwoLayer(pooled, width)

    def forward(self, timestep: Tensor, pooled: Tensor) -> Tensor:
        half = self.frequencies // 2
        steps = torch.arange(half, dtype=torch.float32, device=timestep.device)
        angles = timestep.float()[:, None] * torch.exp(-math.log(10000) * steps / half)
        # Computed in fp32 whatever the model's dtype: 1000 distinct timesteps do not fit bf16.
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(pooled.dtype)
        return self.timestep_embedder(waves) + self.text_embedder(pooled)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift with shift, scale [B, D] over the tokens of x [B, N, D]."""
    return x * (1 + scale[:, None]) + shift[:, None]


def plain_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


class AdaptiveNorm(nn.Module):
    """`chunks` vectors [B, D] from the condition; the block knows which one shifts, scales or gates."""

    def __init__(self, width: int, chunks: int) -> None:
        super().__init__()
        self.chunks = chunks
        self.linear = nn.Linear(width, chunks * width)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(condition)).chunk(self.chunks, dim=1)


class AdaptiveOutputNorm(AdaptiveNorm):
    """Layer norm whose scale and shift (in this order) come from the condition."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        scale, shift = super().forward(condition)
        return modulate(plain_norm(x), shift, scale)


class GeluProjection(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """Four times wider GELU layer; `net.1` is diffusers' dropout, which has no weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [GeluProjection(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)]
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class SelfAttention(nn.Module):
    """Attention of picture tokens with normalised queries and keys."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = (self._head_norm(width, qk_norm) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def _head_norm(self, width: int, qk_norm: bool) -> nn.Module:
        return nn.RMSNorm(width // self.heads, eps=NORM_EPS) if qk_norm else nn.Identity()

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _merge(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)

    def _qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (self._split(layer(x)) for layer in (self.to_q, self.to_k, self.to_v))
        return self.norm_q(query), self.norm_k(key), value

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        return self.to_out[0](self._merge(attention(*self._qkv(x), layout)))


class JointAttention(SelfAttention):
    """Attention over [picture | context] with weights of their own for each of the two streams."""

    def __init__(self, width: int, heads: int, qk_norm: bool, last: bool) -> None:
        super().__init__(width, heads, qk_norm)
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(width, width) for _ in range(3))
        self.norm_added_q, self.norm_added_k = (self._head_norm(width, qk_norm) for _ in range(2))
        self.to_add_out = None if last else nn.Linear(width, width)

    def forward(  # type: ignore[override]
        self, x: Tensor, context: Tensor, layout: Layout | None
    ) -> tuple[Tensor, Tensor | None]:
        added = (self._split(layer(context)) for layer in (self.add_q_proj, self.add_k_proj, self.add_v_proj))
        add_q, add_k, add_v = added
        query, key, value = self._qkv(x)
        query = torch.cat([query, self.norm_added_q(add_q)], dim=2)
        key = torch.cat([key, self.norm_added_k(add_k)], dim=2)
        joined = self._merge(attention(query, key, torch.cat([value, add_v], dim=2), layout))
        size = x.shape[1]
        context_out = None if self.to_add_out is None else self.to_add_out(joined[:, size:])
        return self.to_out[0](joined[:, :size]), context_out


class JointBlock(nn.Module):
    """One MMDiT block: joint attention, an optional second attention over the picture, two feed-forwards."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool, dual: bool, last: bool) -> None:
        super().__init__()
        self.norm1 = AdaptiveNorm(width, 9 if dual else 6)
        self.norm1_context = AdaptiveNorm(width, 2 if last else 6)
        self.attn = JointAttention(width, heads, qk_norm, last)
        self.attn2 = SelfAttention(width, heads, qk_norm) if dual else None
        self.ff = FeedForward(width)
        self.ff_context = None if last else FeedForward(width)

    def forward(
        self, x: Tensor, context: Tensor, condition: Tensor, joint: Layout | None, pictures: Layout | None
    ) -> tuple[Tensor, Tensor]:
        """Next picture tokens [B, N, D] and context [B, T, D]; the last block leaves its context as it is."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate, *second = self.norm1(condition)
        normed = plain_norm(x)
        modulation = self.norm1_context(condition)
        if self.ff_context is None:
            context_scale, context_shift = modulation
        else:
            context_shift, context_scale = modulation[:2]
        context_in = modulate(plain_norm(context), context_shift, context_scale)
        picture_out, context_out = self.attn(modulate(normed, shift, scale), context_in, joint)
        x = x + gate[:, None] * picture_out
        if self.attn2 is not None:
            shift2, scale2, gate2 = second
            x = x + gate2[:, None] * self.attn2(modulate(normed, shift2, scale2), pictures)
        x = x + ff_gate[:, None] * self.ff(modulate(plain_norm(x), ff_shift, ff_scale))
        if self.ff_context is None or context_out is None:
            return x, context
        _, _, context_gate, cff_shift, cff_scale, cff_gate = modulation
        context = context + context_gate[:, None] * context_out
        context_in = modulate(plain_norm(context), cff_shift, cff_scale)
        return x, context + cff_gate[:, None] * self.ff_context(context_in)
