"""Prompts in a static shape: the frozen VLM and the trained bridge as one differentiable, compilable step.

The pipeline reads any prompts (`DeepGenModel.condition`); training reads batches of one length and picture size
whose vision embeddings are made already. Same numbers (tested).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepgen.model.bridge import Bridge
from deepgen.model.vlm import FusedVLM
from deepgen.train.vlm import picture_places, place_pictures


@dataclass
class PromptBatch:
    """Prompts on the device: `ids` [B, L] right-filled, `lengths` [B]; for edits `vision` [B, P, n, D], the embeddings
    of each sample's P pictures in `rows` rows."""

    ids: Tensor
    lengths: Tensor
    vision: Tensor | None = None
    rows: int = 0


class Conditioner(nn.Module):
    """Prompts → context, its lengths and the pooled vector. Gradients reach the bridge and its think tokens."""

    def __init__(self, vlm: FusedVLM, bridge: Bridge, compiled: bool) -> None:
        super().__init__()
        self.vlm, self.bridge = vlm, bridge
        self.image_id: int = vlm.model.config.image_token_id
        self._places: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        if compiled:
            for layer in vlm.model.language_model.layers:
                layer.compile(dynamic=False)
            bridge.compile(dynamic=False)

    def forward(self, prompts: PromptBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Returns context [B, L + Q, Dc], lengths [B], pooled [B, Dp]; causality keeps the filler out."""
        lengths = prompts.lengths + self.bridge.config.num_queries
        context, pooled = self.bridge(self.vlm.decode(*self.embed(prompts)), lengths, packed=False)
        return context, lengths, pooled

    def embed(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Token embeddings [B, L + Q, D], pictures and think tokens in place, and rotary positions [3, B, L + Q]."""
        queries = self.bridge.meta_queries
        embeds = self.vlm.model.language_model.embed_tokens(F.pad(prompts.ids, (0, len(queries))))
        batch, total, width = embeds.shape
        places = prompts.lengths[:, None] + torch.arange(len(queries), device=embeds.device)
        # Scattered: the gradient of an index into the think tokens adds row after row, a quarter of a step's time.
        thinking = queries.to(embeds.dtype).expand(batch, -1, -1)
        embeds = embeds.scatter(1, places[..., None].expand(-1, -1, width), thinking)
        index = torch.arange(total, device=embeds.device)
        if prompts.vision is None:
            return embeds, index.expand(3, batch, -1)
        shape = (total, *prompts.vision.shape[1:3], prompts.rows)
        if shape not in self._places:  # one template: looked for once, as looking waits for the device
            tokens = prompts.vision.shape[2]
            self._places[shape] = picture_places(prompts.ids, self.image_id, total, tokens, prompts.rows)
        return place_pictures(embeds, prompts.vision, *self._places[shape])


def drop_prompts(ids: Tensor, lengths: Tensor, empty: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Replaces a random `share` of the rows by the template around an empty text (`empty`, its ids)."""
    dropped = torch.rand(len(ids), device=ids.device) < share
    blank = F.pad(empty, (0, ids.shape[1] - len(empty)))
    return torch.where(dropped[:, None], blank, ids), torch.where(dropped, len(empty), lengths)
