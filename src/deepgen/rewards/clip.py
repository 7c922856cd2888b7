"""CLIP similarity: how well a picture agrees with the words of its prompt."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from deepgen.rewards.protocol import Kind, RewardInput, Score
from deepgen.scorers.clip import Clip


class ClipReward:
    """The cosine in [−1, 1] between a picture's and its prompt's unit vectors (Radford et al. 2021, section 2.3); the
    prompt is cut off after 77 tokens, as published. Raises what Clip raises."""

    kind: Kind = "pointwise"

    def __init__(self, name: str, folder: Path, device: str, at_once: int) -> None:
        self.name = name
        self._clip = Clip(folder, device)
        self._at_once = at_once

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        prompts = list(dict.fromkeys(one.prompt for one in batch))
        vectors: dict[str, Tensor] = {}
        for start in range(0, len(prompts), self._at_once):
            part = prompts[start : start + self._at_once]
            vectors |= dict(zip(part, self._clip.texts(part), strict=True))
        scores: list[Score] = []
        for start in range(0, len(batch), self._at_once):
            some = batch[start : start + self._at_once]
            pictures = self._clip.pictures([Image.fromarray(one.picture) for one in some])
            for one, vector in zip(some, pictures, strict=True):
                scores.append(Score.of(float((vector @ vectors[one.prompt]).item())))
        return scores
