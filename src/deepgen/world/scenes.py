"""Scenes: what is in a picture of the world, as values.

Coordinates are whole pixels from the top left corner. A scene says everything that `draw` needs and
everything that a caption may state; it holds no pixels and no randomness, and goes to JSON and back
unchanged.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from deepgen.errors import DataError
from deepgen.world.sprites import STYLES
from deepgen.world.words import FONTS, WORD_HEIGHTS, text_size

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels; right and bottom are exclusive."""

RELATIONS = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
POSITIONS = (
    "top left corner",
    "top",
    "top right corner",
    "left side",
    "centre",
    "right side",
    "bottom left corner",
    "bottom",
    "bottom right corner",
)
"""The nine places of a 3 by 3 grid, row by row."""

SIZES = (44, 56, 68, 80, 96, 112, 132, 156, 184)
"""The sides in pixels that an object may have, so that scaled sprites can be kept."""

SQUARE = (256, 256)
OBLONG = ((192, 320), (320, 192), (224, 288), (288, 224))
"""Width and height of the pictures that are not square."""

PALETTE: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (24, 24, 28),
    "grey": (136, 138, 142),
    "light grey": (212, 214, 218),
    "dark grey": (72, 74, 80),
    "red": (222, 48, 48),
    "orange": (250, 146, 36),
    "yellow": (252, 216, 52),
    "green": (56, 168, 84),
    "blue": (48, 104, 220),
    "purple": (140, 72, 196),
    "pink": (250, 130, 178),
    "brown": (134, 88, 52),
    "beige": (236, 220, 188),
    "light blue": (176, 214, 250),
    "light green": (190, 234, 190),
    "light yellow": (255, 244, 180),
    "light purple": (216, 196, 246),
    "light pink": (255, 214, 226),
    "dark blue": (24, 40, 104),
    "dark green": (20, 84, 52),
}
"""Named background and letter colours, sRGB."""

BACKGROUND_KINDS = ("plain", "gradient", "checker")
DIRECTIONS = ("vertical", "horizontal")
CHECKER_CELL = 32


@dataclass(frozen=True, slots=True)
class Object:
    """One sprite: `x`, `y` is the top left corner of its square of `size` pixels."""

    concept: str
    x: int
    y: int
    size: int
    colour: str | None = None

    @property
    def box(self) -> Box:
        return (self.x, self.y, self.x + self.size, self.y + self.size)

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x + self.size / 2, self.y + self.size / 2)


@dataclass(frozen=True, slots=True)
class Background:
    """`plain` has one colour; `gradient` fades from the first (top or left) to the second; `checker` has
    two."""

    kind: str = "plain"
    colours: tuple[str, ...] = ("white",)
    direction: str = "vertical"


@dataclass(frozen=True, slots=True)
class Word:
    """Letters in the picture: `x`, `y` is the top left corner of their ink, `height` that of a capital
    letter."""

    text: str
    x: int
    y: int
    height: int
    font: str = "plain"
    colour: str = "black"

    @property
    def box(self) -> Box:
        width, height = text_size(self.text, self.height, self.font)
        return (self.x, self.y, self.x + width, self.y + height)


@dataclass(frozen=True, slots=True)
class Scene:
    """A whole picture. Later objects are drawn over earlier ones, words over all."""

    width: int
    height: int
    style: str
    background: Background = field(default_factory=Background)
    objects: tuple[Object, ...] = ()
    words: tuple[Word, ...] = ()

    @property
    def things(self) -> tuple["Object | Word", ...]:
        """Objects and words in drawing order."""
        return (*self.objects, *self.words)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of numbers, strings and lists for `json.dump`; `from_json` gives an equal scene
        back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Scene":
        """Raises DataError, naming the field, where the data is no scene."""
        try:
            background = data["background"]
            scene = cls(
                width=data["width"],
                height=data["height"],
                style=data["style"],
                background=Background(**{**background, "colours": tuple(background["colours"])}),
                objects=tuple(Object(**item) for item in data["objects"]),
                words=tuple(Word(**item) for item in data["words"]),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"a scene's JSON lacks or misnames a field: {error}") from error
        check(scene)
        return scene


def check(scene: Scene) -> None:
    """Raises DataError where a name is unknown or something lies outside the picture."""
    background = scene.background
    if scene.style not in STYLES:
        raise DataError(f"unknown style {scene.style!r}; choose from {', '.join(STYLES)}")
    if background.kind not in BACKGROUND_KINDS or background.direction not in DIRECTIONS:
        raise DataError(f"unknown background {background.kind!r} ({background.direction!r})")
    if len(background.colours) != (1 if background.kind == "plain" else 2):
        raise DataError(f"a {background.kind} background cannot have {len(background.colours)} colours")
    for colour in (*background.colours, *(word.colour for word in scene.words)):
        if colour not in PALETTE:
            raise DataError(f"unknown colour {colour!r}; choose from {', '.join(PALETTE)}")
    for word in scene.words:
        if word.font not in FONTS or word.height < min(WORD_HEIGHTS):
            raise DataError(
                f"word {word.text!r}: unknown font {word.font!r} or height {word.height} too small"
            )
    for thing in scene.things:
        left, top, right, bottom = thing.box
        if left < 0 or top < 0 or right > scene.width or bottom > scene.height:
            raise DataError(f"{thing} lies outside the {scene.width}x{scene.height} picture")


def relation_of(first: Object, second: Object, scene: Scene, least: float = 0.2) -> str | None:
    """Where `first` is, seen from `second`; None where no relation is clear.

    Clear: the centres differ along one axis by at least `least` of the picture's side and by less than
    half as much (again as a share of the side) along the other.
    """
    dx = (first.centre[0] - second.centre[0]) / scene.width
    dy = (first.centre[1] - second.centre[1]) / scene.height
    if abs(dx) >= least and abs(dy) < abs(dx) / 2:
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= least and abs(dx) < abs(dy) / 2:
        return "above" if dy < 0 else "below"
    return None


def position_of(thing: Object, scene: Scene) -> str:
    """The cell of the 3 by 3 grid nearest to the object's centre, by name; cells meet at 0.38 and 0.62."""
    column, row = (
        0 if share < 0.38 else 2 if share > 0.62 else 1
        for share in (thing.centre[0] / scene.width, thing.centre[1] / scene.height)
    )
    return POSITIONS[3 * row + column]


def size_word(thing: Object, scene: Scene) -> str | None:
    """`big` from 70% of the shorter side on, `small` up to 30%, None between."""
    share = thing.size / min(scene.width, scene.height)
    return "big" if share >= 0.7 else "small" if share <= 0.30 else None


def overlap(first: Box, second: Box, gap: int = 0) -> bool:
    """Whether two boxes come nearer to each other than `gap` pixels on both axes."""
    return (
        first[0] < second[2] + gap
        and second[0] < first[2] + gap
        and first[1] < second[3] + gap
        and second[1] < first[3] + gap
    )


def contrast(first: str, second: str) -> float:
    """Distance of two named colours in sRGB, 0 to 442."""
    return math.dist(PALETTE[first], PALETTE[second])


def family(colour: str) -> str:
    """`light blue` and `dark blue` are both `blue`."""
    return colour.removeprefix("light ").removeprefix("dark ")
