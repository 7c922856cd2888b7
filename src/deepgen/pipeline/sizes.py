"""Which width and height a picture gets: multiples of 32, near the area its checkpoint was trained on."""

import math

from deepgen.errors import InputError

MULTIPLE = 32  # 8 (VAE) x 2 (patch) x 2: the ViT's 28/32 resize must give whole merged patches (28 = 14 x 2)
MAX_ASPECT = 8.0
MAX_SIDE = 4096


def nearest_multiple(side: float) -> int:
    """The multiple of 32 nearest to `side`, within [32, 4096]; half-way goes up."""
    return min(max(math.floor(side / MULTIPLE + 0.5), 1) * MULTIPLE, MAX_SIDE)


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


def plan_size(width: int, height: int, area: int) -> tuple[int, int]:
    """(width, height), multiples of 32, for a picture of `width` x `height` at about `area` pixels.

    A size that the model can draw as it is (multiples of 32, area within a third of `area`) is kept, so that
    an edit of the model's own picture lines up pixel for pixel; planning twice changes nothing more.
    """
    whole = width % MULTIPLE == 0 and height % MULTIPLE == 0
    if whole and 0.75 * area <= width * height <= area / 0.75:
        return width, height
    return _rounded(width / height, area)


def _rounded(aspect: float, area: int) -> tuple[int, int]:
    """The size on the grid nearest to an aspect (width over height) and an area; never beyond 8:1."""
    ideal = math.sqrt(area * aspect)
    width, height = nearest_multiple(ideal), nearest_multiple(area / ideal)
    longest = int(MAX_ASPECT) * min(width, height)
    return min(width, longest), min(height, longest)


def plan_reference(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """(width, height) at which a reference of `size` is read for a picture of the `target` size.

    At the target's area. A shape that differs from the target's only by what rounding to 32 does takes the
    target's own size, so that an edit lines up with its source; any other keeps its own shape.
    """
    area = target[0] * target[1]
    ideal = math.sqrt(area * size[0] / size[1])
    if abs(ideal - target[0]) <= MULTIPLE and abs(area / ideal - target[1]) <= MULTIPLE:
        return target
    return _rounded(size[0] / size[1], area)
