"""The diffusion transformer: SD3.5's MMDiT-X (Esser et al. 2024) that also reads clean reference latents.

Parameter and configuration names are those of diffusers' SD3Transformer2DModel: published files load as they
are. References are further picture tokens after the target's, each with the same centred position table.
"""

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from deepgen.errors import ConfigError, InputError
from deepgen.model.attention import known_full, ragged_layout
from deepgen.model.dit_blocks import (
    AdaptiveNorm,
    AdaptiveOutputNorm,
    JointBlock,
    PatchEmbedding,
    TimeTextEmbedding,
)

Latents = Tensor | Sequence[Tensor]
"""[B, C, H, W], or a list of [C, h, w] of any sizes."""


class DiT(ModelMixin, ConfigMixin):
    """Predicts the velocity of noisy latents from a timestep, a context sequence and a pooled vector.

    Args (names and defaults are diffusers'):
        sample_size: latent side that the position table is scaled to, in latent pixels.
        patch_size: side of a patch, in latent pixels.
        in_channels, out_channels: latent channels.
        num_layers: joint blocks; the last one only reads the context.
        attention_head_dim, num_attention_heads: their product is the width D.
        joint_attention_dim: width of the context that comes in.
        caption_projection_dim: width it is projected to; must equal D.
        pooled_projection_dim: width of the pooled vector.
        pos_embed_max_size: side of the position table, in patches.
        dual_attention_layers: blocks with a second attention over picture tokens only.
        qk_norm: "rms_norm" or None.
    """

    _no_split_modules = ("JointBlock",)
    ZERO_INITIALISED = (
        "*norm1.linear.weight",
        "*norm1_context.linear.weight",
        "norm_out.linear.weight",
        "proj_out.weight",
    )
    """Patterns of weights that are zero in a new model."""

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        patch_size: int = 2,
        in_channels: int = 16,
        num_layers: int = 18,
        attention_head_dim: int = 64,
        num_attention_heads: int = 18,
        joint_attention_dim: int = 4096,
        caption_projection_dim: int = 1152,
        pooled_projection_dim: int = 2048,
        out_channels: int = 16,
        pos_embed_max_size: int = 96,
        dual_attention_layers: Sequence[int] = (),
        qk_norm: str | None = None,
    ) -> None:
        super().__init__()
        width = num_attention_heads * attention_head_dim
        if caption_projection_dim != width:
            raise ConfigError(
                f"caption_projection_dim is {caption_projection_dim}; it must equal "
                f"num_attention_heads * attention_head_dim = {width}"
            )
        if qk_norm not in (None, "rms_norm"):
            raise ConfigError(f"qk_norm is {qk_norm!r}; only 'rms_norm' and null are known")
        self.patch_size = patch_size
        self.out_channels = out_channels
        self.pos_embed = PatchEmbedding(sample_size, patch_size, in_channels, width, pos_embed_max_size)
        self.time_text_embed = TimeTextEmbedding(width, pooled_projection_dim)
        self.context_embedder = nn.Linear(joint_attention_dim, caption_projection_dim)
        self.transformer_blocks = nn.ModuleList(
            JointBlock(
                width,
                num_attention_heads,
                qk_norm=qk_norm is not None,
                dual=i in dual_attention_layers,
                last=i == num_layers - 1,
            )
            for i in range(num_layers)
        )
        self.norm_out = AdaptiveOutputNorm(width)
        self.proj_out = nn.Linear(width, patch_size * patch_size * out_channels)
        self._initialise()

    def _initialise(self) -> None:
        """New models start as DiT's do (Peebles and Xie 2023): every block and the output begin at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, AdaptiveNorm):
                nn.init.zeros_(module.linear.weight)
        for embedder in (self.time_text_embed.timestep_embedder, self.time_text_embed.text_embedder):
            for linear in (embedder.linear_1, embedder.linear_2):
                nn.init.normal_(linear.weight, std=0.02)
        patches = self.pos_embed.proj
        nn.init.xavier_uniform_(patches.weight.view(patches.weight.shape[0], -1))
        nn.init.zeros_(self.proj_out.weight)

    def embed(self, latents: Tensor) -> Tensor:
        """Patch tokens with positions [B, n, D] of latents [B, C, H, W], row by row from the top left.

        Raises:
            InputError: a side is not a multiple of the patch size, or longer than the position table.
        """
        return self.pos_embed(latents)

    def forward_tokens(
        self,
        tokens: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        image_lengths: Tensor | None = None,
        encoder_lengths: Tensor | None = None,
        packed: bool = True,
        tap: list[Tensor] | None = None,
    ) -> Tensor:
        """The transformer proper: static shapes, no waiting for the device, so that it compiles whole.

        Args:
            tokens: [B, N, D] from `embed`, each row its target's tokens, its references', then filler.
            timestep: [B] in [0, 1000].
            encoder_hidden_states: context [B, T, joint_attention_dim], filled on the right.
            pooled_projections: [B, pooled_projection_dim].
            image_lengths: real tokens of each row, int [B]; None when all N are.
            encoder_lengths: real context tokens of each row, int [B]; None when all T are.
            packed: whether the variable-length kernel may run (its shapes are not static).
            tap: receives the picture tokens [B, N, D] behind the middle block, for losses on what they mean.

        Returns:
            Patch velocities [B, N, patch·patch·C]; the rows of references and filler mean nothing.
        """
        picture_part = (tokens.shape[1], image_lengths)
        pictures = ragged_layout([picture_part], tokens, packed)
        context_part = (encoder_hidden_states.shape[1], encoder_lengths)
        joint = ragged_layout([picture_part, context_part], tokens, packed)
        condition = self.time_text_embed(timestep, pooled_projections)
        context = self.context_embedder(encoder_hidden_states)
        for i, block in enumerate(self.transformer_blocks):
            tokens, context = block(tokens, context, condition, joint, pictures)
            if tap is not None and i == len(self.transformer_blocks) // 2:
                tap.append(tokens)
        return self.proj_out(self.norm_out(tokens, condition))

    def unpatchify(self, patches: Tensor, height: int, width: int) -> Tensor:
        """Latents [B, C, height, width] from their patch velocities [B, n, patch·patch·C]."""
        p, batch = self.patch_size, patches.shape[0]
        grid = patches.reshape(batch, height // p, width // p, p, p, self.out_channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, self.out_channels, height, width)

    def forward(
        self,
        hidden_states: Latents,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        encoder_lengths: Tensor | None = None,
        reference_hidden_states: Sequence[Sequence[Tensor]] | None = None,
    ) -> Tensor | list[Tensor]:
        """Velocity of each target: a tensor [B, C, H, W] for a tensor, a list of [C, h, w] for a list.

        Args:
            hidden_states: noisy targets, one size or many.
            timestep: [B] in [0, 1000].
            encoder_hidden_states: context [B, T, joint_attention_dim], filled on the right.
            pooled_projections: [B, pooled_projection_dim].
            encoder_lengths: real context tokens of each row, int [B] (best on the CPU: then a full batch is
                recognised for free); None when all T are.
            reference_hidden_states: for each sample its clean reference latents [C, h, w], of any number and
                size.

        Raises:
            InputError: counts disagree, or a size does not fit the patches or the position table.
        """
        targets = list(hidden_states)
        references = reference_hidden_states or [[] for _ in targets]
        if len(references) != len(targets):
            raise InputError(f"{len(targets)} targets but reference lists for {len(references)} samples")
        plain = isinstance(hidden_states, Tensor) and not any(len(r) for r in references)
        if plain:
            tokens, lengths = self.embed(hidden_states), None  # type: ignore[arg-type]
        else:
            tokens, lengths = self._embed_ragged(targets, references)
        if known_full(encoder_lengths, encoder_hidden_states.shape[1]):
            encoder_lengths = None
        patches = self.forward_tokens(
            tokens, timestep, encoder_hidden_states, pooled_projections, lengths, encoder_lengths
        )
        if isinstance(hidden_states, Tensor):
            height, width = hidden_states.shape[-2:]
            return self.unpatchify(patches[:, : self._token_count(targets[0])], height, width)
        return [
            self.unpatchify(patches[i : i + 1, : self._token_count(x)], *x.shape[-2:])[0]
            for i, x in enumerate(targets)
        ]

    def _token_count(self, latent: Tensor) -> int:
        return (latent.shape[-2] // self.patch_size) * (latent.shape[-1] // self.patch_size)

    def _embed_ragged(
        self, targets: Sequence[Tensor], references: Sequence[Sequence[Tensor]]
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens [B, N, D] of each sample's target and references, and their counts (None if all are N)."""
        pictures = [[target, *refs] for target, refs in zip(targets, references, strict=True)]
        by_shape: dict[torch.Size, list[tuple[int, int]]] = {}
        for i, row in enumerate(pictures):
            for j, picture in enumerate(row):
                by_shape.setdefault(picture.shape, []).append((i, j))
        embedded: dict[tuple[int, int], Tensor] = {}
        for places in by_shape.values():
            batch = self.embed(torch.stack([pictures[i][j] for i, j in places]))
            embedded.update(zip(places, batch, strict=True))
        rows = [torch.cat([embedded[i, j] for j in range(len(row))]) for i, row in enumerate(pictures)]
        counts = torch.tensor([len(row) for row in rows])
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return tokens, None if known_full(counts, tokens.shape[1]) else counts
