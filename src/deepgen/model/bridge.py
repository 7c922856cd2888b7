"""The bridge from the VLM to the diffusion transformer: think tokens, a small encoder, two heads.

Stacked channel bridging (DeepGen 1.0): several decoder layers' states are joined on channels, projected,
encoded without positions or causality, and read as a sequence and as one pooled vector.
"""

import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from deepgen.errors import ConfigError
from deepgen.model.attention import Layout, attention, known_full, ragged_layout, valid_tokens

NORM_EPS = 1e-6


class BridgeAttention(nn.Module):
    """Bidirectional self-attention without positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attention(query, key, value, layout).transpose(1, 2).flatten(2))


class BridgeFeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class BridgeLayer(nn.Module):
    """Pre-norm encoder layer."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.self_attn = BridgeAttention(width, heads)
        self.layer_norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = BridgeFeedForward(width, inner)
        self.layer_norm2 = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), layout)
        return x + self.mlp(self.layer_norm2(x))


class BridgeEncoder(nn.Module):
    """The stack of layers; no norm follows the last one."""

    def __init__(self, width: int, inner: int, heads: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BridgeLayer(width, inner, heads) for _ in range(depth))

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, layout)
        return x


class Bridge(ModelMixin, ConfigMixin):
    """Turns fused VLM states into what conditions the diffusion transformer.

    Args:
        vlm_hidden_size: width of the VLM's decoder.
        num_fused_layers: decoder states joined on channels; 0 for the last hidden state alone.
        hidden_size, intermediate_size, num_layers, num_heads: of the encoder.
        num_queries: think tokens.
        pooled_dim, context_dim: widths of the two outputs.
    """

    _no_split_modules = ("BridgeLayer",)
    ZERO_INITIALISED = ("projector_2.weight", "projector_3.weight")
    """Weights that are zero in a new model, as the published recipe has it: the DiT starts unconditioned."""

    @register_to_config
    def __init__(
        self,
        vlm_hidden_size: int = 2048,
        num_fused_layers: int = 6,
        hidden_size: int = 2048,
        intermediate_size: int = 11946,
        num_layers: int = 6,
        num_heads: int = 32,
        num_queries: int = 128,
        pooled_dim: int = 2048,
        context_dim: int = 4096,
    ) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ConfigError(f"bridge hidden_size {hidden_size} is not a multiple of num_heads {num_heads}")
        self.meta_queries = nn.Parameter(torch.empty(num_queries, vlm_hidden_size))
        self.connector = BridgeEncoder(hidden_size, intermediate_size, num_heads, num_layers)
        self.projector_1 = nn.Linear(vlm_hidden_size * max(num_fused_layers, 1), hidden_size)
        self.projector_2 = nn.Linear(hidden_size, pooled_dim)
        self.projector_3 = nn.Linear(hidden_size, context_dim)
        nn.init.normal_(self.meta_queries, std=1 / math.sqrt(self.meta_queries.shape[1]))
        for head in (self.projector_2, self.projector_3):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def think_tokens(self, dtype: torch.dtype) -> Tensor:
        """The learned embeddings [num_queries, vlm_hidden_size] that end each VLM sequence, in this dtype.

        A copy, so that it outlives the sharded parameter when this is registered as an FSDP forward method. (FSDP
        on a GPU refuses forward methods without an argument, so this one and `FusedVLM.pad_row` take theirs.)
        """
        return self.meta_queries.to(dtype, copy=True)

    def forward(
        self, fused: Tensor, lengths: Tensor | None = None, packed: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Context [B, L, context_dim] and pooled [B, pooled_dim].

        Args:
            fused: [B, L, n·D] from `FusedVLM.hidden`, filled on the right.
            lengths: real rows of each sample, int [B]; None when all L are. Filler is neither attended to nor
                pooled.
            packed: whether the variable-length kernel may run (its shapes are not static).
        """
        size = fused.shape[1]
        if known_full(lengths, size):
            lengths = None
        x = self.projector_1(fused)
        x = self.connector(x, ragged_layout([(size, lengths)], x, packed))
        if lengths is None:
            mean = x.mean(1)
        else:
            lengths = lengths.to(x.device)
            mean = (x * valid_tokens(lengths, size)[..., None]).sum(1) / lengths[:, None].to(x.dtype)
        return self.projector_3(x), self.projector_2(mean)
