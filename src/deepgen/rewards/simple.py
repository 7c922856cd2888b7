"""Rewards that need no model: for tests, and to see that a run does what it is told."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from deepgen.rewards.protocol import Kind, Picture, RewardInput, Score


@dataclass(frozen=True)
class MeanBrightness:
    """Mean of all values of a picture over 255, in [0, 1]."""

    name: str = "mean_brightness"
    kind: Kind = "pointwise"

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        return [Score.of(float(one.picture.mean()) / 255) for one in batch]


@dataclass(frozen=True)
class JpegSize:
    """Thousands of bytes of a picture as JPEG of a quality (as PIL counts it)."""

    name: str = "jpeg_size"
    quality: int = 95
    kind: Kind = "pointwise"

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        return [Score.of(len(jpeg(one.picture, self.quality)) / 1000) for one in batch]


def jpeg(picture: Picture, quality: int) -> bytes:
    """A picture, uint8 [H, W, 3], as the bytes of a JPEG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return file.getvalue()
