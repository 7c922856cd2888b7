"""A small CLIP of the picture world: pictures and captions as unit vectors that point the same way if they agree.

Trained like CLIP (Radford et al. 2021, section 2.3) with two differences that exact truth allows: a caption that is
true of another picture of the batch is no negative there, and every picture also meets its own caption with one
statement made false, as in NegCLIP (Yuksekgonul et al. 2023, section 4), because among random captions the things
alone decide and nothing else would be learned.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from deepgen.model.prompts import Prompt, tokenize
from deepgen.world.blocks import Bottleneck, conv_unit, network_input

PLACE_WAVES = 3
"""Sines and cosines of 1, 2 and 4 half turns over the picture tell a cell where it is."""


class DualEncoder(ModelMixin, ConfigMixin):
    """A picture tower and a text tower; at most 1.5 M parameters with nano's 2,048 tokens."""

    @register_to_config
    def __init__(
        self,
        vocab_size: int,
        most_tokens: int = 96,
        width: int = 128,
        widths: tuple[int, int, int, int] = (24, 48, 96, 144),
        picture_layers: int = 2,
        text_layers: int = 2,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        w2, w4, w8, w16 = widths
        self.picture_cells = nn.Sequential(
            conv_unit(3, w2, 3, 2),
            conv_unit(w2, w4, 3, 2),
            Bottleneck(w4, w4 // 2),
            conv_unit(w4, w8, 3, 2),
            *(Bottleneck(w8, w8 // 2) for _ in range(2)),
            conv_unit(w8, w16, 3, 2),
            *(Bottleneck(w16, w16 // 2) for _ in range(2)),
            nn.AvgPool2d(2),
            nn.Conv2d(w16, width, 1),
        )
        self.picture_places = nn.Linear(4 * PLACE_WAVES, width)
        self.picture_blocks = _encoder(width, num_heads, picture_layers)
        self.text_tokens = nn.Embedding(vocab_size, width)
        self.text_places = nn.Embedding(most_tokens, width)
        self.text_blocks = _encoder(width, num_heads, text_layers)
        self.picture_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width, bias=False))
        self.text_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width, bias=False))
        for table in (self.text_tokens, self.text_places):
            nn.init.normal_(table.weight, std=0.1)
        # CLIP's first temperature, 0.07
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def pictures(self, pictures: Tensor) -> Tensor:
        """Unit vectors [B, D], fp32, of `pictures`: uint8 [B, 3, H, W] or floats in [0, 1]; sides multiples of 32.

        Raises InputError for other shapes.
        """
        cells = self.picture_cells(network_input(pictures, self.dtype))
        places = self.picture_places(_places(cells.shape[2], cells.shape[3], cells.device).to(cells.dtype))
        states = self.picture_blocks(cells.flatten(2).movedim(1, 2) + places)
        return F.normalize(self.picture_head(states.mean(dim=1)).float(), dim=-1)

    def texts(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Unit vectors [B, D], fp32, of captions: ids int64 [B, L], filled on the right, and their lengths [B]."""
        index = torch.arange(ids.shape[1], device=ids.device)
        filler = index >= lengths[:, None]
        states = self.text_tokens(ids) + self.text_places(index)
        states = self.text_blocks(states, src_key_padding_mask=filler)
        read = (~filler)[..., None].to(states.dtype)
        mean = (states * read).sum(dim=1) / read.sum(dim=1)
        return F.normalize(self.text_head(mean).float(), dim=-1)

    def loss(self, pictures: Tensor, texts: Tensor, agrees: Tensor) -> Tensor:
        """Mean of both directions' cross-entropies, a scalar.

        pictures [B, D]; texts [B + N, D]: the captions in the pictures' order, then captions that are negatives only;
        agrees: bool [B, B + N], which caption is true of which picture. Besides its own, what is true is left out.
        """
        count = len(pictures)
        # At most 100, as in CLIP: beyond that a step can be too large.
        with torch.autocast(
            pictures.device.type, enabled=False
        ):  # bf16 would round scores up to 100 by a quarter
            scores = self.log_scale.exp().clamp(max=100) * pictures @ texts.T
        own = torch.eye(count, len(texts), dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(agrees & ~own, -torch.inf)
        order = torch.arange(count, device=scores.device)
        return (F.cross_entropy(scores, order) + F.cross_entropy(scores[:, :count].T, order)) / 2


def caption_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokens of captions, int64 [B, L] filled with zeros on the right, and their lengths [B]; without a template."""
    rows = [tokenize(tokenizer, Prompt((text,))) for text in texts]
    ids = torch.zeros(len(rows), max(1, *map(len, rows)), dtype=torch.long)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    return ids, torch.tensor([len(tokens) for tokens in rows])


def _encoder(width: int, heads: int, layers: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def _places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Where each cell is, as shares of the picture's sides: waves of y and x, [rows·columns, 4·PLACE_WAVES]."""
    y = (torch.arange(rows, device=device) + 0.5) / rows
    x = (torch.arange(columns, device=device) + 0.5) / columns
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)
    angles = places[..., None] * torch.pi * 2.0 ** torch.arange(PLACE_WAVES, device=device)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(1)
