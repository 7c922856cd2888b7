"""Layouts: places and sizes for what a plan asks for.

Objects stand on cells of simple patterns, moved by a few pixels, so that boxes never overlap, relations and
positions are never in doubt, and a small model can learn where things go.
"""

import random
from dataclasses import dataclass

from deepgen.world.plans import Item, Plan
from deepgen.world.scenes import POSITIONS, SIZES, Object, Scene, Word
from deepgen.world.words import WORD_HEIGHTS, text_size

MARGIN = 4


@dataclass(frozen=True, slots=True)
class Pattern:
    """Cell centres and the sides of a cell, all as shares of the picture."""

    centres: tuple[tuple[float, float], ...]
    cell: tuple[float, float]

    def turned(self) -> "Pattern":
        """The same with x and y exchanged."""
        return Pattern(tuple((y, x) for x, y in self.centres), self.cell[::-1])

    def largest(self, width: int, height: int) -> int:
        """The largest of SIZES that fits a cell, at least the smallest one."""
        side = min(self.cell[0] * width, self.cell[1] * height)
        return max((size for size in SIZES if size <= side), default=SIZES[0])


_ROW_2 = Pattern(((0.27, 0.5), (0.73, 0.5)), (0.45, 0.9))
_ROW_3 = Pattern(((0.18, 0.5), (0.5, 0.5), (0.82, 0.5)), (0.32, 0.9))
_ROW_4 = Pattern(((0.14, 0.5), (0.38, 0.5), (0.62, 0.5), (0.86, 0.5)), (0.235, 0.9))
_TRIANGLE = Pattern(((0.5, 0.27), (0.26, 0.73), (0.74, 0.73)), (0.45, 0.45))
_UPSIDE_DOWN = Pattern(((0.26, 0.27), (0.74, 0.27), (0.5, 0.73)), (0.45, 0.45))
_FOUR = Pattern(((0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)), (0.45, 0.45))
_FIVE = Pattern(((0.2, 0.2), (0.8, 0.2), (0.5, 0.5), (0.2, 0.8), (0.8, 0.8)), (0.3, 0.3))
_THREE_TWO = Pattern(((0.18, 0.28), (0.5, 0.28), (0.82, 0.28), (0.33, 0.72), (0.67, 0.72)), (0.32, 0.43))
_TWO_THREE = Pattern(((0.33, 0.28), (0.67, 0.28), (0.18, 0.72), (0.5, 0.72), (0.82, 0.72)), (0.32, 0.43))
_DIAGONAL = Pattern(((0.28, 0.28), (0.72, 0.72)), (0.43, 0.43))
_OTHER_DIAGONAL = Pattern(((0.72, 0.28), (0.28, 0.72)), (0.43, 0.43))
_DIAMOND = Pattern(((0.5, 0.2), (0.2, 0.5), (0.8, 0.5), (0.5, 0.8)), (0.3, 0.3))
NINE = Pattern(tuple((x, y) for y in (0.2, 0.5, 0.8) for x in (0.2, 0.5, 0.8)), (0.3, 0.3))
"""The places named by POSITIONS, in their order."""

COUNTED: dict[int, tuple[Pattern, ...]] = {
    1: (Pattern(((0.5, 0.5),), (0.75, 0.75)),),
    2: (_ROW_2, _ROW_2, _ROW_2.turned(), _DIAGONAL, _OTHER_DIAGONAL),
    3: (_ROW_3, _ROW_3.turned(), _TRIANGLE, _UPSIDE_DOWN),
    4: (_FOUR, _FOUR, _DIAMOND, _ROW_4, _ROW_4.turned()),
    5: (_FIVE, _THREE_TWO, _TWO_THREE, _THREE_TWO.turned(), _TWO_THREE.turned()),
}


def lay_out(rng: random.Random, plan: Plan) -> Scene:
    """A scene that shows the plan. Objects come in the plan's order, those of a count one after another."""
    words: tuple[Word, ...] = ()
    if plan.lettering:
        objects, words = _with_word(rng, plan)
    elif plan.position:
        spot = NINE.centres[POSITIONS.index(plan.position)]
        objects = (place(rng, plan.items[0], spot, rng.choice((68, 80, 96)), plan),)
    elif len(plan.items) == 2:
        objects = pair(rng, plan, plan.items, plan.relation)
    elif plan.items[0].count > 1:
        objects = several(rng, plan)
    else:
        objects = (_one(rng, plan),)
    return Scene(plan.width, plan.height, plan.style, plan.background, objects, words)


def place(
    rng: random.Random, item: Item, spot: tuple[float, float], size: int, frame: Plan | Scene, jitter: int = 8
) -> Object:
    """One object of a size around a spot (shares of the frame), moved by up to `jitter` pixels, kept
    inside."""
    x, y = (
        min(max(round(share * side - size / 2) + rng.randint(-jitter, jitter), MARGIN), side - size - MARGIN)
        for share, side in zip(spot, (frame.width, frame.height), strict=True)
    )
    return Object(item.concept, x, y, size, item.colour)


def _one(rng: random.Random, plan: Plan) -> Object:
    item, short = plan.items[0], min(plan.width, plan.height)
    if item.size == "big":
        size = 184 if short >= 224 else 156
    elif item.size == "small":
        size = 56 if short < 256 or rng.random() < 0.5 else 68
    else:
        size = rng.choice((112, 132, 132, 156) if short >= 224 else (112, 132))
    return place(rng, item, (0.5, 0.5), size, plan, jitter=20)


def pair(
    rng: random.Random, frame: Plan | Scene, items: tuple[Item, ...], relation: str | None
) -> tuple[Object, ...]:
    """Two objects, the first one in the relation to the second; without a relation any, mostly side by
    side."""
    relation = relation or rng.choice(("left of", "left of", "right of", "right of", "above", "below"))
    upright = relation in ("above", "below")
    pattern = _ROW_2.turned() if upright else _ROW_2
    spots = pattern.centres if relation in ("left of", "above") else pattern.centres[::-1]
    largest = min(pattern.largest(frame.width, frame.height), 112)
    drift = rng.uniform(-0.07, 0.07)
    objects = []
    base = rng.choice([size for size in SIZES if 80 <= size <= largest] or [largest])
    for item, (x, y) in zip(items, spots, strict=True):
        size = {"big": largest, "small": 56 if largest > 80 else 44}.get(item.size or "", base)
        spot = (x + drift, y) if upright else (x, y + drift)
        slack = (frame.height if upright else frame.width) * 0.46 - size
        objects.append(place(rng, item, spot, size, frame, jitter=max(0, min(6, int(slack / 2)))))
    return tuple(objects)


def several(rng: random.Random, plan: Plan) -> tuple[Object, ...]:
    """The 2 to 5 equal objects of the plan's first item."""
    item = plan.items[0]
    fitting = [
        pattern
        for pattern in COUNTED[item.count]
        if pattern.largest(plan.width, plan.height) >= (56 if item.count > 3 else 68)
    ]
    pattern = rng.choice(fitting)
    largest = min(pattern.largest(plan.width, plan.height), 112 if item.count == 2 else 96)
    size = rng.choice([size for size in SIZES if size <= largest][-2:])
    return spread(rng, plan, (item,) * item.count, pattern, size)


def spread(
    rng: random.Random, frame: Plan | Scene, items: tuple[Item, ...], pattern: Pattern, size: int
) -> tuple[Object, ...]:
    """One object a cell of the pattern, in its order, all of one size, without overlap."""
    slack = min(pattern.cell[0] * frame.width, pattern.cell[1] * frame.height) - size
    jitter = max(0, min(8, int(slack / 2)))
    return tuple(
        place(rng, item, spot, size, frame, jitter)
        for item, spot in zip(items, pattern.centres[: len(items)], strict=True)
    )


def _with_word(rng: random.Random, plan: Plan) -> tuple[tuple[Object, ...], tuple[Word, ...]]:
    lettering = plan.lettering
    assert lettering is not None
    room = plan.width - 2 * 8
    fitting = [
        height for height in WORD_HEIGHTS if text_size(lettering.text, height, lettering.font)[0] <= room
    ]
    height = rng.choice(fitting[-2:] if not plan.items else fitting[-3:])
    width, tall = text_size(lettering.text, height, lettering.font)
    x = (plan.width - width) // 2 + _jitter(rng, (plan.width - width) // 2 - 8, 16)
    if not plan.items:
        y = (plan.height - tall) // 2 + _jitter(rng, (plan.height - tall) // 2 - 8, 30)
        objects: tuple[Object, ...] = ()
    else:
        size = rng.choice((96, 112, 132) if plan.height >= 224 else (80, 96))
        gap = (plan.height - tall - size) // 3
        first = gap + _jitter(rng, gap - 6, 8)
        if lettering.place == "above":
            y, top = first, first + tall + gap
        else:
            top, y = first, first + size + gap
        left = (plan.width - size) // 2 + rng.randint(-10, 10)
        objects = (Object(plan.items[0].concept, left, top, size, plan.items[0].colour),)
    return objects, (Word(lettering.text, x, y, height, lettering.font, lettering.colour),)


def _jitter(rng: random.Random, room: int, most: int) -> int:
    reach = max(0, min(room, most))
    return rng.randint(-reach, reach)
