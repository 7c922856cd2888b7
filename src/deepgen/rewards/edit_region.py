"""Whether an edit left alone what it should: the part of the source that its known target does not change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepgen.rewards.protocol import Kind, Picture, RewardInput, Score

SAME = 4
"""Difference (of 255) of blurred source and target, in any channel, up to which a place counts as untouched."""
BLUR, MARGIN = 5, 8
"""Side in pixels of the box blur, and by how much the untouched region is made smaller on every side."""
SHARPNESS = 200.0
SHAPE_TOLERANCE = 0.05


@dataclass(frozen=True)
class EditRegion:
    """exp(−200·MSE) of the result against the source, values in [0, 1], inside the untouched region; in (0, 1].

    0.82 at 30 dB, 0.53 at 25 dB. No value without a source and a target, where the target changes everything, and for
    a result of another shape. Of several references the last is the source. Source and target are brought to the
    result's size first.
    """

    name: str = "edit_region"
    kind: Kind = "pointwise"

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        return [region_score(one) for one in batch]


def region_score(one: RewardInput) -> Score:
    """The value of one edit; see EditRegion."""
    if not one.references or one.target is None:
        return Score(None, "the edit has no source, or no known target")
    source, target = one.references[-1], one.target
    for other in (source, target):
        if abs(math.log(_aspect(other) / _aspect(one.picture))) > SHAPE_TOLERANCE:
            return Score(None, f"shape {other.shape[:2]} is not that of the result, {one.picture.shape[:2]}")
    before, after = (_resized(picture, one.picture.shape) for picture in (source, target))
    mask = untouched(before, after)
    if not mask.any():
        return Score(None, "the target leaves nothing of the source as it was")
    difference = (one.picture[mask].astype(np.float64) - before[mask]) / 255
    return Score.of(math.exp(-SHARPNESS * float(np.square(difference).mean())))


def untouched(source: Picture, target: Picture) -> NDArray[np.bool_]:
    """Where a target leaves its source alone: both uint8 [H, W, 3] → [H, W].

    The border of the picture is no border of the region: nothing beyond it was changed.
    """
    # Whole numbers: a difference of exactly SAME must not depend on rounding.
    difference = np.abs(_blurred(source) - _blurred(target)).max(axis=2, keepdims=True)
    changed = np.asarray(difference > SAME * BLUR**2, dtype=np.int64)
    # Eroding the untouched by a square is summing the changed over it: any hit within reach touches.
    return _box_sums(changed, MARGIN)[..., 0] == 0


def _blurred(picture: Picture) -> NDArray[np.int64]:
    """BLUR² times the mean around each place; the picture's edge goes on beyond it."""
    reach = BLUR // 2
    padded = np.pad(picture.astype(np.int64), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    return _box_sums(padded, reach)[reach:-reach, reach:-reach]


def _box_sums(values: NDArray[np.int64], reach: int) -> NDArray[np.int64]:
    """Sums over squares of 2·reach + 1 around each place of [H, W, C]; nothing lies outside."""
    side = 2 * reach + 1
    for axis in (0, 1):
        pad = [(0, 0)] * 3
        pad[axis] = (reach + 1, reach)
        sums = np.cumsum(np.pad(values, pad), axis=axis)
        count = sums.shape[axis] - side
        values = sums.take(range(side, side + count), axis) - sums.take(range(count), axis)
    return values


def _resized(picture: Picture, shape: tuple[int, ...]) -> Picture:
    if picture.shape == shape:
        return picture
    return np.asarray(Image.fromarray(picture).resize((shape[1], shape[0]), Image.Resampling.LANCZOS))


def _aspect(picture: Picture) -> float:
    return picture.shape[1] / picture.shape[0]
