"""The throw-away reader of nano's base stage: it stands where VLM and bridge will stand.

The published transformer was a trained text-to-image model with text encoders of its own before it met the VLM (paper,
section 2). nano's becomes one the same way: with this small encoder, which alignment replaces and nobody keeps.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from deepgen.train.conditioner import PromptBatch


class CaptionReader(ModelMixin, ConfigMixin):
    """Token ids → the transformer's context and pooled vector, reading in both directions.

    Args:
        vocab_size: of the VLM's tokenizer, whose ids it reads.
        context_dim: width of the context, and of the encoder.
        pooled_dim: width of the pooled vector.
        num_layers: of the encoder.
        num_heads: of its attention.
        most_tokens: longest prompt.
    """

    @register_to_config
    def __init__(
        self,
        vocab_size: int,
        context_dim: int = 160,
        pooled_dim: int = 160,
        num_layers: int = 4,
        num_heads: int = 5,
        most_tokens: int = 256,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, context_dim)
        self.places = nn.Embedding(most_tokens, context_dim)
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=0.5)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                context_dim, num_heads, 4 * context_dim, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(context_dim)
        self.pool = nn.Linear(context_dim, pooled_dim)

    def forward(self, prompts: PromptBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Returns context [B, L, Dc], lengths [B], pooled [B, Dp], as `Conditioner` does; pictures are not read."""
        ids, lengths = prompts.ids, prompts.lengths
        index = torch.arange(ids.shape[1], device=ids.device)
        filler = index >= lengths[:, None]
        states = self.tokens(ids) + self.places(index)
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=filler)
        states = self.norm(states)
        read = (~filler)[..., None].to(states.dtype)
        return states, lengths, self.pool((states * read).sum(1) / read.sum(1))
