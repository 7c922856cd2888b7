"""The vision-language model as a reader: Qwen2.5-VL up to the last layer whose state is used.

The published code pads prompts on the left and runs the whole decoder, keeping all its states. Here rows are
filled on the right, where causality keeps the filler from every real token, and only what is used is run and
kept. The left pads of the published model are emulated afterwards by `with_pads`.
"""

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLModel

from deepgen.errors import ConfigError, InputError
from deepgen.model.prompts import IMAGE_PAD, Prompt, special_id, tokenize
from deepgen.model.vision import PIXELS_PER_TOKEN, vision_block, vision_embeds


def fused_layer_indices(depth: int, count: int) -> list[int]:
    """Which hidden states are joined, deepest first: every (depth // count)-th, counted down from depth − 1.

    Index i is the state after i decoder layers, so depth 36 and count 6 give 35, 29, 23, 17, 11, 5.

    Raises:
        ConfigError: the rule does not give exactly `count` states.
    """
    stride = depth // count if count > 0 else 0
    chosen = list(range(depth - 1, 0, -stride))[:count] if stride else []
    if len(chosen) != count or count < 1:
        raise ConfigError(f"a VLM of {depth} layers does not give {count} fused layers; choose fewer")
    return chosen


def feed_forward(layer: Any, hidden: Tensor) -> Tensor:
    """The half of a decoder layer that looks at one token alone."""
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


class FusedVLM(nn.Module):
    """Reads prompts and pictures; gives the decoder states that the bridge joins.

    Args:
        model: transformers' Qwen2.5-VL without a language head.
        tokenizer: its tokenizer, with Qwen's special tokens.
        fused_layers: states to join on channels; 0 for the final normalised hidden state alone.
    """

    def __init__(
        self, model: Qwen2_5_VLModel, tokenizer: PreTrainedTokenizerBase, fused_layers: int = 6
    ) -> None:
        super().__init__()
        text = model.language_model
        if model.config._attn_implementation == "eager":
            # Layers get no mask here: SDPA then takes the causal kernel, the eager function attends to all.
            model.set_attn_implementation("sdpa")
        self.model = model
        self.tokenizer = tokenizer
        for layer in text.layers:
            # A method, so that sharding can gather the layer's weights around it as around `forward`.
            layer.feed_forward = MethodType(feed_forward, layer)
        self.fused_layers = fused_layers
        self.vision_block: Callable[..., Tensor] = vision_block
        depth = len(text.layers)
        self.indices = fused_layer_indices(depth, fused_layers) if fused_layers else [depth]
        if tokenizer.pad_token_id is None:
            raise ConfigError("the VLM's tokenizer names no pad token; Qwen2.5-VL's is <|endoftext|>")

    @property
    def hidden_size(self) -> int:
        """Width of one decoder state."""
        return self.model.language_model.config.hidden_size

    @property
    def fused_size(self) -> int:
        """Width n·D of the joined states."""
        return self.hidden_size * len(self.indices)

    @property
    def device(self) -> torch.device:
        return self.model.language_model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.language_model.embed_tokens.weight.dtype

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt made by `deepgen.model.prompts`."""
        return tokenize(self.tokenizer, prompt)

    def image_embeds(self, pixels: Tensor) -> Tensor:
        """Embeddings [B, H/32, W/32, D] of pictures [B, 3, H, W] in [−1, 1] of one size.

        Raises:
            InputError: H or W is not a multiple of 32.
        """
        rows, columns = (side // PIXELS_PER_TOKEN for side in pixels.shape[-2:])
        if pixels.shape[-2] % PIXELS_PER_TOKEN or pixels.shape[-1] % PIXELS_PER_TOKEN:
            raise InputError(
                f"picture sides {tuple(pixels.shape[-2:])} are not multiples of {PIXELS_PER_TOKEN}"
            )
        # fp32 until the patches are embedded: pixels lose up to 1/256 in bf16.
        return vision_embeds(self.model.visual, pixels.float(), self.vision_block).unflatten(
            1, (rows, columns)
        )

    def hidden(
        self,
        token_ids: Sequence[Sequence[int]],
        image_embeds: Sequence[Sequence[Tensor]],
        think_tokens: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Run the decoder over prompts, each followed by the think tokens.

        Args:
            token_ids: of each sample, its image pads included.
            image_embeds: for each sample its pictures' embeddings [h, w, D], in order of appearance.
            think_tokens: [Q, D]; gradients flow to them (and into the VLM where its parameters want them).

        Returns:
            Joined states [B, Lmax, n·D], filled on the right with rows that mean nothing, and the lengths
            (prompt + Q) of each sample, int64 [B] on the CPU.

        Raises:
            InputError: a prompt's image pads do not match its pictures.
        """
        ids, grids = self._check(token_ids, image_embeds)
        queries = think_tokens.shape[0]
        lengths = torch.tensor([len(row) + queries for row in ids])
        padded = torch.full((len(ids), int(lengths.max())), self.tokenizer.pad_token_id)
        for i, row in enumerate(ids):
            padded[i, : len(row)] = torch.tensor(row)
        embeds = self._embed(padded, lengths, [e for row in image_embeds for e in row], think_tokens)
        positions = self._positions(padded, lengths, grids).to(self.device, non_blocking=True)
        return self.decode(embeds, positions), lengths

    def _check(
        self, token_ids: Sequence[Sequence[int]], image_embeds: Sequence[Sequence[Tensor]]
    ) -> tuple[list[list[int]], Tensor | None]:
        """The ids as lists and the grids [pictures, 3] in patches (None without pictures)."""
        image_id = special_id(self.tokenizer, IMAGE_PAD)
        merge = self.model.config.vision_config.spatial_merge_size
        grids = []
        for i, (row, embeds) in enumerate(zip(token_ids, image_embeds, strict=True)):
            pads, expected = list(row).count(image_id), sum(e.shape[0] * e.shape[1] for e in embeds)
            if pads != expected:
                raise InputError(f"sample {i} has {pads} image tokens but its pictures give {expected}")
            grids += [(1, e.shape[0] * merge, e.shape[1] * merge) for e in embeds]
        return [list(row) for row in token_ids], torch.tensor(grids) if grids else None

    def _embed(
        self, padded: Tensor, lengths: Tensor, pictures: Sequence[Tensor], think_tokens: Tensor
    ) -> Tensor:
        """Input embeddings [B, Lmax, D]: tokens, pictures over their pads, think tokens behind."""
        batch, size = padded.shape
        queries = think_tokens.shape[0]
        embeds = self.model.language_model.embed_tokens(padded.to(self.device, non_blocking=True)).flatten(
            0, 1
        )
        if pictures:
            places = (padded.flatten() == special_id(self.tokenizer, IMAGE_PAD)).nonzero().squeeze(1)
            values = torch.cat([p.flatten(0, 1) for p in pictures]).to(embeds)
            embeds = embeds.index_copy(0, places.to(self.device, non_blocking=True), values)
        starts = torch.arange(batch) * size + lengths - queries
        places = (starts[:, None] + torch.arange(queries)).flatten().to(self.device, non_blocking=True)
        values = think_tokens.to(embeds).expand(batch, -1, -1).flatten(0, 1)
        return embeds.index_copy(0, places, values).view(batch, size, -1)

    def _positions(self, padded: Tensor, lengths: Tensor, grids: Tensor | None) -> Tensor:
        """Rotary positions [3, B, Lmax]; the think tokens go on where the prompt's text stops.

        Computed here because transformers 5 falls back to plain positions without a word when a picture's
        token types are not given.
        """
        kinds = (padded == special_id(self.tokenizer, IMAGE_PAD)).int()
        real = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        positions, _ = self.model.get_rope_index(
            padded, mm_token_type_ids=kinds, image_grid_thw=grids, attention_mask=real
        )
        return positions

    def decode(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """Joined states [B, L, n·D] of input embeddings [B, L, D] at rotary positions [3, B, L], causally."""
        text = self.model.language_model
        rotary = text.rotary_emb(hidden, positions)
        kept: dict[int, Tensor] = {}
        for index, layer in enumerate(text.layers[: max(self.indices)], start=1):
            hidden = layer(hidden, attention_mask=None, position_embeddings=rotary)
            if index in self.indices:
                kept[index] = hidden
        return self._join(kept)

    def _join(self, kept: dict[int, Tensor]) -> Tensor:
        if not self.fused_layers:
            return self.model.language_model.norm(kept[self.indices[0]])
        return torch.cat([kept[index] for index in self.indices], dim=-1)

    def pad_row(self, token_id: int) -> Tensor:
        """The joined state [n·D] of a left pad in the published model; `token_id` is the tokenizer's pad token.

        There the attention output at pads is zero, so a pad's state is its embedding through the feed-forward
        branches alone: one vector, whatever stands around it.
        """
        text = self.model.language_model
        pad = torch.tensor([token_id], device=self.device)
        hidden = text.embed_tokens(pad)
        kept: dict[int, Tensor] = {}
        for index, layer in enumerate(text.layers[: max(self.indices)], start=1):
            hidden = layer.feed_forward(hidden)
            if index in self.indices:
                kept[index] = hidden
        return self._join(kept)[0]


def with_pads(fused: Tensor, lengths: Tensor, pads: Tensor, pad_row: Tensor) -> tuple[Tensor, Tensor]:
    """Put pads[b] copies of pad_row in front of each sample.

    Args:
        fused: [B, L, C], filled on the right.
        lengths: real rows of each sample, int64 [B] on the CPU.
        pads: rows to put in front, int64 [B] on the CPU.
        pad_row: [C].

    Returns:
        [B, max(lengths + pads), C], filled on the right, and lengths + pads.
    """
    total = lengths + pads
    places = torch.arange(int(total.max())) - pads[:, None]
    source = places.clamp(0, fused.shape[1] - 1).to(fused.device)
    shifted = fused.gather(1, source[..., None].expand(-1, -1, fused.shape[-1]))
    front = (places < 0).to(fused.device)[..., None]
    return torch.where(front, pad_row.to(fused), shifted), total
