"""The policy: velocities of rows of latents. Rollout, reference and training call the same functions.

Latents of pictures of any sizes are rows [B, M] of fp32, each picture's values flattened and filled up with zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepgen.flow.guidance import guide
from deepgen.flow.schedule import timestep_of
from deepgen.model.deepgen import Conditioning, DeepGenModel, Padding, build_prompt, front_pads
from deepgen.model.vlm import with_pads


@dataclass(frozen=True)
class Guidance:
    """scale 1 is none; the negative prompts are of text→image and of edits."""

    scale: float
    negative: str
    negative_edit: str

    @property
    def active(self) -> bool:
        return self.scale > 1

    def negative_of(self, references: Sequence[Tensor]) -> str:
        return self.negative_edit if references else self.negative


@dataclass(frozen=True)
class Encoded:
    """Prompts of some groups, ready for the transformer: rows of the prompts, and of their negatives if guided."""

    positive: Conditioning
    negative: Conditioning | None

    def rows(self, indices: Sequence[int]) -> "Encoded":
        """The groups at these indices, in this order."""
        negative = None if self.negative is None else self.negative.rows(indices)
        return Encoded(self.positive.rows(indices), negative)

    @staticmethod
    def join(parts: Sequence["Encoded"]) -> "Encoded":
        negatives = [part.negative for part in parts if part.negative is not None]
        return Encoded(
            Conditioning.join([part.positive for part in parts]),
            Conditioning.join(negatives) if negatives else None,
        )


def encode_prompts(
    model: DeepGenModel,
    texts: Sequence[str],
    references: Sequence[Sequence[Tensor]],
    padding: Padding,
    guidance: Guidance,
) -> Encoded:
    """What the transformer is told, by a row of calls that does not depend on the samples (sharded models need that).

    Padding is up to each prompt's own negative ("pair") or none: a prompt never depends on its neighbours.
    """
    negatives = [guidance.negative_of(row) for row in references]
    asked = [*texts, *negatives] if guidance.active else list(texts)
    pictures = [*references, *references] if guidance.active else list(references)
    fused = model.fuse(asked, pictures, "none")
    states, lengths = fused.states, fused.lengths
    if padding != "none":
        sizes, opposite = (
            [len(model.vlm.tokenize(build_prompt(t, r))) for t, r in zip(row, references, strict=True)]
            for row in (texts, negatives)
        )
        pads = torch.tensor(front_pads(sizes, opposite, "pair")[: len(asked)])
        states, lengths = with_pads(
            states, lengths, pads, model.vlm.pad_row(model.vlm.tokenizer.pad_token_id)
        )
    context, pooled = model.bridge(states, lengths)
    both = Conditioning(context, lengths, pooled)
    if not guidance.active:
        return Encoded(both, None)
    count = len(texts)
    return Encoded(both.rows(range(count)), both.rows(range(count, 2 * count)))


def velocity_rows(
    model: DeepGenModel,
    latents: Tensor,
    shapes: Sequence[torch.Size],
    sigma: Tensor,
    encoded: Encoded,
    references: Sequence[Sequence[Tensor]],
    scale: float,
) -> Tensor:
    """Velocities [B, M], fp32, guided where negatives are there: both sides then go through the network at once.

    Args:
        latents: [B, M].
        shapes: [C, h, w] of each row.
        sigma: noise levels [B].
        encoded: B rows.
        references: for each row its clean reference latents.
        scale: of guidance.
    """
    conditioning, time, rows, pictures = encoded.positive, timestep_of(sigma), latents, list(references)
    sizes = list(shapes)
    if encoded.negative is not None:
        conditioning = Conditioning.join([encoded.negative, conditioning])
        rows, time = torch.cat([rows, rows]), torch.cat([time, time])
        pictures, sizes = pictures * 2, sizes * 2
    given = pictures if any(len(row) for row in pictures) else None
    if len(set(sizes)) == 1:
        shaped = rows[:, : sizes[0].numel()].reshape(len(rows), *sizes[0])
        found = model.velocity(shaped, time, conditioning, given)
    else:
        views = [row[: size.numel()].view(size) for row, size in zip(rows, sizes, strict=True)]
        found = model.velocity(views, time, conditioning, given)
    flat = flatten(found, latents.shape[1])
    if encoded.negative is None:
        return flat
    against, towards = flat.chunk(2)
    return guide(against, towards, scale)


def flatten(pictures: Tensor | Sequence[Tensor], size: int) -> Tensor:
    """Latents [C, h, w] as rows [B, size], filled up with zeros."""
    if isinstance(pictures, Tensor) and pictures[0].numel() == size:
        return pictures.flatten(1)
    return torch.stack([torch.nn.functional.pad(x.flatten(), (0, size - x.numel())) for x in pictures])
