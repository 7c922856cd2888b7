"""Which width and height a picture gets: multiples of 32, near the area its checkpoint was trained on."""

import itertools
import math
import re
from typing import Literal, get_args

from deepgen.errors import InputError

MULTIPLE = 32  # 8 (VAE) x 2 (patch) x 2: the ViT's 28/32 resize must give whole merged patches (28 = 14 x 2)
MAX_ASPECT = 8.0
MAX_SIDE = 4096

Size = tuple[int, int]
"""(width, height) in pixels."""

Resize = Literal["aspect", "square", "area", "none"]
"""How a reference picture reaches the model, and which size an edit has where none is asked for.

aspect: at the target's area with its own aspect ratio; the target follows the first reference. Ours.
square: squashed to the target's size, and the target is square. How published editing results were made.
area: at the checkpoint's area, each side rounded up to 32, each picture for itself. How training saw pictures.
none: as it is; sides must be multiples of 32.
"""


def nearest_multiple(side: float) -> int:
    """The multiple of 32 nearest to `side`, within [32, 4096]; half-way goes up."""
    return max(math.floor(min(side, MAX_SIDE) / MULTIPLE + 0.5), 1) * MULTIPLE


def check_size(width: int, height: int) -> None:
    """Raise InputError, with the nearest size that works, unless the model can draw `width` x `height`."""
    for name, side in (("width", width), ("height", height)):
        if isinstance(side, bool) or not isinstance(side, int):
            raise InputError(f"{name} must be a whole number of pixels, got {side!r}")
    near_width, near_height = nearest_multiple(width), nearest_multiple(height)
    if (near_width, near_height) != (width, height):
        raise InputError(
            f"size {width}x{height}: sides must be multiples of {MULTIPLE} from {MULTIPLE} to {MAX_SIDE}; "
            f"the nearest is {near_width}x{near_height}"
        )
    check_aspect(width, height, "size")


def check_aspect(width: int, height: int, name: str) -> None:
    """Raise InputError when one side is more than 8 times the other."""
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{name} {width}x{height} is longer than {MAX_ASPECT:.0f}:1; crop or pad it")


def check_resize(resize: str) -> None:
    """Raise InputError for an unknown way of resizing."""
    if resize not in get_args(Resize):
        raise InputError(f"resize is {resize!r}; it must be one of {', '.join(get_args(Resize))}")


def parse_size(text: str) -> Size:
    """(width, height) of `320x192` or `256`. Raises InputError."""
    match = re.fullmatch(r"([0-9]{1,9})(?:[xX×]([0-9]{1,9}))?", text.strip())
    if match is None:
        raise InputError(f"size {text!r} must be WIDTHxHEIGHT or one number, such as 320x192 or 256")
    return int(match[1]), int(match[2] or match[1])


def plan_size(width: int, height: int, area: int) -> Size:
    """(width, height), multiples of 32, for a picture of `width` x `height` at about `area` pixels.

    A size that the model can draw as it is (multiples of 32, area within a third of `area`) is kept, so that
    an edit of the model's own picture lines up pixel for pixel; planning twice changes nothing more.
    """
    whole = width % MULTIPLE == 0 and height % MULTIPLE == 0
    if whole and 0.75 * area <= width * height <= area / 0.75:
        return width, height
    return _on_grid(width / height, area)


def _on_grid(aspect: float, area: int) -> Size:
    """The size on the grid that is nearest to an aspect (width over height) and an area; never beyond 8:1.

    Of the sizes around the ideal one, that with the least |log of the aspect's error| + |log of the area's| / 2:
    the aspect counts double because it is what a viewer notices.
    """
    ideal = math.sqrt(area * aspect)
    sides = [
        {nearest_multiple(side + step) for step in (-MULTIPLE / 2, 0, MULTIPLE / 2)}
        for side in (ideal, area / ideal)
    ]

    def error(size: Size) -> float:
        width, height = size
        return abs(math.log(width / height / aspect)) + 0.5 * abs(math.log(width * height / area))

    allowed = [(w, h) for w, h in itertools.product(*sides) if max(w, h) <= MAX_ASPECT * min(w, h)]
    if allowed:
        return min(allowed, key=error)
    # An area so small that one side would be less than 32.
    longest = int(MAX_ASPECT) * MULTIPLE
    return min(nearest_multiple(ideal), longest), min(nearest_multiple(area / ideal), longest)


def _rounded_up(size: Size, area: int) -> Size:
    """The published training's size: scaled to the area, then each side up to the next multiple of 32."""
    ratio = math.sqrt(area) / math.sqrt(size[0] * size[1])
    width, height = (math.ceil(side * ratio / MULTIPLE) * MULTIPLE for side in size)
    return width, height


def _unchanged(size: Size) -> Size:
    if size[0] % MULTIPLE or size[1] % MULTIPLE:
        raise InputError(
            f"a reference of {size[0]}x{size[1]} cannot stay as it is: sides must be multiples of {MULTIPLE}; "
            'choose another resize than "none"'
        )
    return size


def plan_target(first: Size | None, area: int, resize: Resize) -> Size:
    """The size to draw where none is asked for, from the first reference's size, if there is one.

    Raises InputError like `plan_reference`.
    """
    if first is None or resize == "square":
        side = nearest_multiple(math.sqrt(area))
        return side, side
    if resize == "area":
        return _rounded_up(first, area)
    return _unchanged(first) if resize == "none" else plan_size(*first, area)


def plan_reference(size: Size, target: Size, area: int, resize: Resize = "aspect") -> Size:
    """(width, height) at which a reference of `size` is read for a picture of the `target` size.

    With "aspect", a shape that differs from the target's only by what rounding to 32 does takes the target's
    own size, so that an edit lines up with its source; any other keeps its own shape, at the target's area.

    Args:
        area: the checkpoint's.

    Raises:
        InputError: resize is "none" and a side is not a multiple of 32.
    """
    if resize == "square":
        return target
    if resize == "area":
        return _rounded_up(size, area)
    if resize == "none":
        return _unchanged(size)
    drawn, aspect = target[0] * target[1], size[0] / size[1]
    ideal = math.sqrt(drawn * aspect)
    if abs(ideal - target[0]) <= MULTIPLE and abs(drawn / ideal - target[1]) <= MULTIPLE:
        return target
    return _on_grid(aspect, drawn)
