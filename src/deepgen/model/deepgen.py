"""The whole model: VLM, bridge, diffusion transformer and VAE as one module."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from deepgen.errors import ConfigError, InputError
from deepgen.model import vae as latent_space
from deepgen.model.bridge import Bridge
from deepgen.model.dit import DiT, Latents
from deepgen.model.prompts import Prompt, edit_prompt, text_to_image_prompt
from deepgen.model.vlm import FusedVLM, with_pads

Padding = Literal["none", "pair", "batch"]
"""How many pad rows the bridge sees in front of a prompt: none; up to the longer of a prompt and its own
negative prompt (a published single call); up to the longest prompt of all (a published batched call)."""


@dataclass(frozen=True)
class Conditioning:
    """What the diffusion transformer is conditioned on, one row a sample.

    Attributes:
        context: [B, T, Dc], filled on the right.
        lengths: real context rows of each sample, int64 [B] on the CPU.
        pooled: [B, Dp].
    """

    context: Tensor
    lengths: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, indices: Sequence[int]) -> "Conditioning":
        """The samples at these indices, in this order, without needless filler."""
        chosen = list(indices)
        lengths = self.lengths[chosen]
        return Conditioning(self.context[chosen, : int(lengths.max())], lengths, self.pooled[chosen])

    @staticmethod
    def join(parts: Sequence["Conditioning"]) -> "Conditioning":
        """All rows of several conditionings."""
        size = max(part.context.shape[1] for part in parts)
        contexts = [nn.functional.pad(p.context, (0, 0, 0, size - p.context.shape[1])) for p in parts]
        return Conditioning(
            torch.cat(contexts), torch.cat([p.lengths for p in parts]), torch.cat([p.pooled for p in parts])
        )


@dataclass(frozen=True)
class FusedBatch:
    """What the bridge reads: fused states [B, L, n·D] filled on the right; lengths int64 [B] on the CPU."""

    states: Tensor
    lengths: Tensor


class DeepGenModel(nn.Module):
    """Holds the four networks and the few computations that need more than one of them.

    Raises:
        ConfigError: the widths of neighbouring networks do not fit.
    """

    def __init__(self, vlm: FusedVLM, bridge: Bridge, dit: DiT, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vlm, self.bridge, self.dit, self.vae = vlm, bridge, dit, vae
        fits = {
            "bridge input and VLM states": (bridge.projector_1.in_features, vlm.fused_size),
            "think tokens and VLM": (bridge.meta_queries.shape[1], vlm.hidden_size),
            "bridge context and transformer": (bridge.config.context_dim, dit.config.joint_attention_dim),
            "bridge pooled and transformer": (bridge.config.pooled_dim, dit.config.pooled_projection_dim),
            "VAE and transformer channels": (vae.config.latent_channels, dit.config.in_channels),
        }
        for what, (one, other) in fits.items():
            if one != other:
                raise ConfigError(f"widths of {what} do not fit: {one} and {other}")

    @property
    def device(self) -> torch.device:
        return self.dit.device

    @property
    def latent_scale(self) -> int:
        """Pixels a latent pixel is wide."""
        return latent_space.downsampling(self.vae)

    def condition(
        self,
        prompts: Sequence[str],
        references: Sequence[Sequence[Tensor]] | None = None,
        padding: Padding = "none",
        negatives: Sequence[str] | None = None,
        encode_negatives: bool = True,
    ) -> Conditioning:
        """Encode requests: rows of the prompts, then rows of the negative prompts.

        Args:
            prompts: text or edit instruction of each sample.
            references: for each sample its source pictures [3, H, W] in [−1, 1], sides multiples of 32.
                Samples with pictures use the edit template, the others the text-to-image one.
            padding: see `Padding`. "pair" and "batch" count the negative prompts' lengths.
            negatives: negative prompt of each sample, encoded with the same pictures.
            encode_negatives: False for rows of the prompts only; the negatives then only decide the padding.

        Raises:
            InputError: counts disagree, or a picture has a wrong size.
            ConfigError: unknown padding.
        """
        fused = self.fuse(prompts, references, padding, negatives, encode_negatives)
        context, pooled = self.bridge(fused.states, fused.lengths)
        return Conditioning(context, fused.lengths, pooled)

    def fuse(
        self,
        prompts: Sequence[str],
        references: Sequence[Sequence[Tensor]] | None = None,
        padding: Padding = "none",
        negatives: Sequence[str] | None = None,
        encode_negatives: bool = True,
        embeds: list[list[Tensor]] | None = None,
    ) -> FusedBatch:
        """The VLM's part of `condition`, with the pads in place; same arguments, and the pictures' embeddings
        [H/32, W/32, D] where they are known already."""
        references = references if references is not None else [[] for _ in prompts]
        if len(references) != len(prompts) or (negatives is not None and len(negatives) != len(prompts)):
            raise InputError("prompts, references and negative prompts must have one entry a sample each")
        positive = [self.vlm.tokenize(build_prompt(t, r)) for t, r in zip(prompts, references, strict=True)]
        negative = [
            self.vlm.tokenize(build_prompt(t, r)) for t, r in zip(negatives or [], references, strict=False)
        ]
        pads = front_pads([len(x) for x in positive], [len(x) for x in negative], padding)
        if embeds is None:
            embeds = self.embed_references(references)
        ids, pictures = positive, embeds
        if negative and encode_negatives:
            ids, pictures = positive + negative, embeds + embeds
        think = self.bridge.think_tokens(self.vlm.dtype)
        states, lengths = self.vlm.hidden(ids, pictures, think)
        counts = torch.tensor(pads[: len(ids)])
        if counts.any():
            states, lengths = with_pads(
                states, lengths, counts, self.vlm.pad_row(self.vlm.tokenizer.pad_token_id)
            )
        return FusedBatch(states, lengths)

    def embed_references(self, references: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """VLM embeddings of all pictures, those of one size in one call."""
        by_shape: dict[torch.Size, list[tuple[int, int]]] = {}
        for i, row in enumerate(references):
            for j, picture in enumerate(row):
                by_shape.setdefault(picture.shape, []).append((i, j))
        done: dict[tuple[int, int], Tensor] = {}
        for places in by_shape.values():
            batch = torch.stack([references[i][j] for i, j in places]).to(self.vlm.device, non_blocking=True)
            done.update(zip(places, self.vlm.image_embeds(batch), strict=True))
        return [[done[i, j] for j in range(len(row))] for i, row in enumerate(references)]

    def velocity(
        self,
        latents: Latents,
        timestep: Tensor,
        conditioning: Conditioning,
        references: Sequence[Sequence[Tensor]] | None = None,
    ) -> Tensor | list[Tensor]:
        """Velocity of noisy latents, computed in the transformer's dtype and returned in fp32.

        Args:
            latents: [B, C, h, w], or a list of [C, h, w] of any sizes.
            timestep: [B] in [0, 1000].
            conditioning: B rows.
            references: for each sample its clean reference latents [C, h, w].
        """
        dtype, device = self.dit.dtype, self.dit.device

        def cast(x: Tensor) -> Tensor:
            return x.to(device, dtype, non_blocking=True)

        result = self.dit(
            cast(latents) if isinstance(latents, Tensor) else [cast(x) for x in latents],
            timestep=timestep.to(device, non_blocking=True),
            encoder_hidden_states=cast(conditioning.context),
            pooled_projections=cast(conditioning.pooled),
            encoder_lengths=conditioning.lengths,
            reference_hidden_states=None
            if references is None
            else [[cast(x) for x in r] for r in references],
        )
        return result.float() if isinstance(result, Tensor) else [x.float() for x in result]

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised latents [B, C, h, w] fp32, at the mode, of pixels [B, 3, H, W] in [−1, 1]."""
        return latent_space.encode_mode(self.vae, pixels.to(self.vae.device, non_blocking=True)).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] fp32, nominally in [−1, 1], of normalised latents [B, C, h, w]."""
        return latent_space.decode(self.vae, latents.to(self.vae.device)).float()


def build_prompt(text: str, references: Sequence[Tensor]) -> Prompt:
    """The edit template where there are pictures [3, H, W], else the text-to-image template."""
    if not references:
        return text_to_image_prompt(text)
    return edit_prompt(text, [(p.shape[-2] // 32) * (p.shape[-1] // 32) for p in references])


def front_pads(positive: Sequence[int], negative: Sequence[int], padding: Padding) -> list[int]:
    """Pad rows in front of each prompt, then of each negative prompt, from their token counts."""
    if padding not in get_args(Padding):
        raise ConfigError(f"padding is {padding!r}; it must be one of {', '.join(get_args(Padding))}")
    counts = [*positive, *negative]
    if padding == "none":
        return [0] * len(counts)
    if padding == "batch":
        goals = [max(counts)] * len(counts)
    else:
        pairs = [max(p, n) for p, n in zip(positive, negative or positive, strict=True)]
        goals = pairs + pairs[: len(negative)]
    return [goal - count for goal, count in zip(goals, counts, strict=True)]
