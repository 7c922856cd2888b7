"""The colour names of the world and the recolouring of one sprite, in HSV."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Colour:
    """What a colour name means: hue in degrees [0, 360), typical saturation and value in [0, 1]."""

    hue: float
    saturation: float
    value: float


COLOURS: dict[str, Colour] = {
    "red": Colour(0, 0.86, 0.90),
    "orange": Colour(27, 0.93, 1.00),
    "yellow": Colour(52, 0.88, 1.00),
    "green": Colour(130, 0.75, 0.70),
    "blue": Colour(216, 0.85, 0.93),
    "purple": Colour(275, 0.72, 0.75),
    "pink": Colour(330, 0.45, 1.00),
}

# Pixels this close to the dominant hue belong to the object's own colour; farther ones (the windows of a
# car, the leaf of an apple) keep theirs, with a linear transition between the two limits.
_INSIDE, _OUTSIDE = 45.0, 65.0
# Paler pixels than this are highlights and metal: they have no hue worth moving.
_PALE, _SATURATED = 0.10, 0.22
# How much of the drawing's own variation of hue (3d shading) survives: enough to look drawn, not enough
# to leave the colour's name.
_KEPT_HUE = 0.3


def rgb_to_hsv(rgb: Floats) -> tuple[Floats, Floats, Floats]:
    """RGB [..., 3] in [0, 1] -> hue in degrees, saturation and value in [0, 1], each [...]."""
    red, green, blue = (np.ascontiguousarray(rgb[..., channel]) for channel in range(3))
    value = np.maximum(np.maximum(red, green), blue)  # ten times faster than a maximum along the last axis
    chroma = value - np.minimum(np.minimum(red, green), blue)
    safe = np.where(chroma > 0, chroma, 1.0)
    hue = np.where(
        value == red,
        ((green - blue) / safe) % 6,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    saturation = np.where(value > 0, chroma / np.where(value > 0, value, 1.0), 0.0)
    return np.where(chroma > 0, hue * 60, 0.0), saturation, value


def hsv_to_rgb(hue: Floats, saturation: Floats, value: Floats) -> Floats:
    """Inverse of `rgb_to_hsv`: [...] three times -> RGB [..., 3] in [0, 1]."""
    offsets = np.array([5.0, 3.0, 1.0], dtype=np.float32)
    k = (offsets + (hue / 60)[..., None]) % 6
    ramp = np.clip(np.minimum(k, 4 - k), 0, 1)
    return value[..., None] * (1 - saturation[..., None] * ramp)


def hue_distance(hue: Floats, other: float) -> Floats:
    """Signed difference hue − other, in degrees, in [−180, 180)."""
    return (hue - other + 180) % 360 - 180


def dominant_hue(picture: NDArray[np.uint8]) -> float | None:
    """The hue (degrees) most of an RGBA picture's saturated area has; None for a grey one."""
    rgb = picture[..., :3].astype(np.float32) / np.float32(255)
    return _dominant(picture, *rgb_to_hsv(rgb))


def _dominant(picture: NDArray[np.uint8], hue: Floats, saturation: Floats, value: Floats) -> float | None:
    weight = saturation * value * (picture[..., 3] / 255) * (saturation > _SATURATED)
    if weight.sum() < 0.01 * max(1.0, float((picture[..., 3] > 0).sum())):
        return None
    counts, _ = np.histogram(hue, bins=72, range=(0, 360), weights=weight)
    # A window of 25 degrees: the peak of a broad hue wins over a narrow spike.
    smooth = np.convolve(np.concatenate([counts[-2:], counts, counts[:2]]), np.ones(5), mode="valid")
    peak = float(smooth.argmax()) * 5 + 2.5
    near = (np.abs(hue_distance(hue, peak)) < 20) * weight
    return float((peak + (near * hue_distance(hue, peak)).sum() / near.sum()) % 360)


def nearest_colour(hue: float) -> str:
    """The name whose hue is nearest to `hue`, in degrees."""
    away = {name: float(hue_distance(np.asarray(hue), colour.hue)) for name, colour in COLOURS.items()}
    return min(away, key=lambda name: abs(away[name]))


def recolour(picture: NDArray[np.uint8], colour: str) -> NDArray[np.uint8]:
    """The sprite with the parts of its dominant hue in another colour.

    picture: uint8 [H, W, 4], not premultiplied. colour: a key of `COLOURS`. Saturation and value are scaled
    so that the medians of the moved parts are those of the target; a grey picture comes back unchanged.
    """
    target = COLOURS[colour]
    rgb = picture[..., :3].astype(np.float32) / np.float32(255)
    hue, saturation, value = rgb_to_hsv(rgb)
    hue_from = _dominant(picture, hue, saturation, value)
    if hue_from is None:
        return picture.copy()
    away = hue_distance(hue, hue_from)
    moved = np.clip((_OUTSIDE - np.abs(away)) / (_OUTSIDE - _INSIDE), 0, 1)
    moved = moved * np.clip((saturation - _PALE) / (_SATURATED - _PALE), 0, 1)
    own = (moved > 0.5) & (picture[..., 3] > 128)
    if not own.any():
        return picture.copy()
    new = hsv_to_rgb(
        (target.hue + _KEPT_HUE * np.clip(away, -30, 30)) % 360,
        np.clip(saturation * (target.saturation / float(np.median(saturation[own]))), 0, 1),
        np.clip(value * (target.value / float(np.median(value[own]))), 0, 1),
    )
    mixed = rgb + moved[..., None] * (new - rgb)
    out = picture.copy()
    out[..., :3] = np.round(mixed * 255).clip(0, 255)
    return out
