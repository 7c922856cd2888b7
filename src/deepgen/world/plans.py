"""Plans: what a picture shall show, before it has places and words.

A plan is drawn first; the caption states (some of) it and the layout gives it pixels, so that what a
prompt asks for and what its picture shows cannot differ.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from deepgen.errors import InputError
from deepgen.world.concepts import CONCEPTS, PREDICATES, holds, is_unseen
from deepgen.world.scenes import (
    INVERSE,
    OBLONG,
    PALETTE,
    POSITIONS,
    RELATIONS,
    SQUARE,
    STYLES,
    Background,
    contrast,
    family,
)
from deepgen.world.words import FONTS, sample_word

SPLITS = ("train", "test")
WEIGHTS = {
    "single": 22,
    "two": 16,
    "counting": 27,
    "colours": 9,
    "position": 8,
    "binding": 7,
    "background": 7,
    "size": 3,
    "words": 17,
    "reasoning_seen": 6,
    "reasoning_unseen": 0,
}
"""The categories and how often each is drawn. `reasoning_unseen` is only in the test split, by name."""
CATEGORIES = tuple(WEIGHTS)

NAMES = tuple(CONCEPTS)
COLOURABLE = tuple(name for name in NAMES if CONCEPTS[name].colours)
SHORT_NAMES = tuple(name for name in NAMES if name.isascii() and name.isalpha() and 2 <= len(name) <= 8)

_PASTEL = ("light blue", "light green", "light yellow", "light purple", "light pink", "light grey", "beige")
_BOLD = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "dark blue", "black")
_LETTER_COLOURS = ("black", "red", "blue", "green", "purple", "orange", "brown", "white", "pink", "dark blue")
_ALIKE = (
    *({"red", other} for other in ("pink", "orange", "brown")),
    *({"yellow", other} for other in ("orange", "beige", "brown")),
    *({"purple", other} for other in ("blue", "pink")),
    {"orange", "brown"},
)


@dataclass(frozen=True, slots=True)
class Item:
    """`count` equal things; `size` is "big", "small" or None where the size does not matter."""

    concept: str
    colour: str | None = None
    count: int = 1
    size: str | None = None


@dataclass(frozen=True, slots=True)
class Lettering:
    """A word to write, how, and where it stands seen from the object ("above", "below"), if there is one."""

    text: str
    font: str
    colour: str
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """`mentions` says which of the plan's parts the prompt must state: objects, count, colour, relation,
    position, size, background, style, word, word_colour."""

    category: str
    width: int
    height: int
    style: str
    background: Background
    mentions: frozenset[str]
    items: tuple[Item, ...] = ()
    relation: str | None = None
    position: str | None = None
    lettering: Lettering | None = None
    predicate: str | None = None
    wrong: str | None = None

    def key(self) -> str:
        """Equal for plans whose prompts ask for the same; the wording is no part of it."""
        relation, items = self.relation, self.items
        if relation in ("right of", "below"):
            relation, items = INVERSE[relation], items[::-1]
        parts = [repr([(i.concept, i.colour, i.count, i.size) for i in items]), relation]
        parts += [self.position, self.predicate, self.wrong]
        if "background" in self.mentions:
            parts.append(repr((self.background.kind, self.background.colours, self.background.direction)))
        if "style" in self.mentions:
            parts.append(self.style)
        if self.lettering:
            parts += [self.lettering.text.lower(), self.lettering.place]
        if self.lettering and "word_colour" in self.mentions:
            parts.append(self.lettering.colour)
        return "|".join(str(part) for part in parts)


def make_plan(rng: random.Random, category: str, split: str) -> Plan:
    """A plan of one of CATEGORIES; raises InputError for an unknown one, or an unseen fact asked for
    training."""
    if category not in _MAKERS:
        raise InputError(f"unknown category {category!r}; choose from {', '.join(CATEGORIES)}")
    if category == "reasoning_unseen" and split != "test":
        raise InputError(
            "reasoning_unseen exists only in the test split: its facts are never trained on pictures"
        )
    width, height = sample_canvas(rng)
    mentions = {"objects"}
    if rng.random() < 0.5:
        mentions.add("style")
    if category == "background" or rng.random() < 0.22:
        mentions.add("background")
    plan = Plan(
        category,
        width,
        height,
        style=sample_style(rng, "style" in mentions),
        background=Background(),
        mentions=frozenset(mentions),
    )
    plan = _MAKERS[category](rng, plan)
    plan = replace(plan, background=background_for(rng, plan.items, "background" in plan.mentions))
    return _with_letters(rng, plan) if category == "words" else plan


def sample_canvas(rng: random.Random) -> tuple[int, int]:
    """Width and height: one picture in five is not square."""
    return rng.choice(OBLONG) if rng.random() < 0.2 else SQUARE


def sample_style(rng: random.Random, mentioned: bool) -> str:
    """Any style where the prompt names it, else mostly the first."""
    return STYLES[0] if not mentioned and rng.random() < 0.6 else rng.choice(STYLES)


def sample_background(rng: random.Random, mentioned: bool, avoid: tuple[str, ...] = ()) -> Background:
    """Any kind and colour where the prompt names it; otherwise one plain colour, mostly white or pale.

    Never a colour in which an object of one of the colours `avoid` would drown.
    """
    while True:
        if mentioned:
            background = _named_background(rng)
        else:
            chance = rng.random()
            shades = ("white",) if chance < 0.3 else _PASTEL if chance < 0.9 else _BOLD
            background = Background("plain", (rng.choice(shades),))
        if not any(drowns(colour, shade) for colour in avoid for shade in background.colours):
            return background


def background_for(rng: random.Random, items: Sequence[Item], mentioned: bool) -> Background:
    """A background on which the items are seen; an unmentioned one keeps off their natural colours too."""
    colours = (item.colour or (None if mentioned else CONCEPTS[item.concept].natural) for item in items)
    return sample_background(rng, mentioned, tuple(colour for colour in colours if colour))


def _named_background(rng: random.Random) -> Background:
    chance = rng.random()
    names = tuple(PALETTE)
    if chance < 0.6:
        return Background("plain", (rng.choice(names),))
    while True:
        first, second = rng.choice(names), rng.choice(names)
        if family(first) != family(second) and contrast(first, second) > 90:
            break
    if chance < 0.82:
        return Background("gradient", (first, second), "vertical" if rng.random() < 0.6 else "horizontal")
    return Background("checker", (first, second))


def drowns(colour: str, shade: str) -> bool:
    if shade.startswith("light ") and colour not in ("white", "grey"):
        return False
    return family(colour) == family(shade) or {colour, family(shade)} in _ALIKE


def recolourable(rng: random.Random) -> Item:
    """A thing in one of the colours that make sense for it."""
    name = rng.choice(COLOURABLE)
    return Item(name, rng.choice(CONCEPTS[name].colours))


def other_name(rng: random.Random, *taken: str) -> str:
    """A concept that is not among those taken."""
    while True:
        name = rng.choice(NAMES)
        if name not in taken:
            return name


def _add(plan: Plan, *mentions: str) -> frozenset[str]:
    return plan.mentions | set(mentions)


def _single(rng: random.Random, plan: Plan) -> Plan:
    return replace(plan, items=(Item(rng.choice(NAMES)),))


def _two(rng: random.Random, plan: Plan) -> Plan:
    first = rng.choice(NAMES)
    items = (Item(first), Item(other_name(rng, first)))
    return replace(plan, items=items, relation=rng.choice(RELATIONS), mentions=_add(plan, "relation"))


def _counting(rng: random.Random, plan: Plan) -> Plan:
    count = rng.choices((1, 2, 3, 4, 5), (4, 24, 24, 24, 24))[0]
    return replace(plan, items=(Item(rng.choice(NAMES), count=count),), mentions=_add(plan, "count"))


def _colours(rng: random.Random, plan: Plan) -> Plan:
    return replace(plan, items=(recolourable(rng),), mentions=_add(plan, "colour"))


def _position(rng: random.Random, plan: Plan) -> Plan:
    return replace(
        plan,
        items=(Item(rng.choice(NAMES)),),
        position=rng.choice(POSITIONS),
        mentions=_add(plan, "position"),
    )


def _binding(rng: random.Random, plan: Plan) -> Plan:
    first = recolourable(rng)
    while True:
        second = recolourable(rng)
        if second.concept != first.concept and second.colour != first.colour:
            break
    if rng.random() < 0.4:
        return replace(plan, items=(first, second), mentions=_add(plan, "colour"))
    relation = rng.choice(RELATIONS)
    return replace(plan, items=(first, second), relation=relation, mentions=_add(plan, "colour", "relation"))


def _size(rng: random.Random, plan: Plan) -> Plan:
    first = Item(rng.choice(NAMES), size=rng.choice(("big", "small")))
    if rng.random() < 0.55:
        return replace(plan, items=(first,), mentions=_add(plan, "size"))
    second = Item(other_name(rng, first.concept), size="small" if first.size == "big" else "big")
    return replace(plan, items=(first, second), mentions=_add(plan, "size"))


def _words(rng: random.Random, plan: Plan) -> Plan:
    if rng.random() < 0.55:
        return replace(plan, mentions=(plan.mentions - {"objects", "style"}) | {"word"})
    return replace(plan, items=(Item(rng.choice(NAMES)),), mentions=_add(plan, "word"))


def _with_letters(rng: random.Random, plan: Plan) -> Plan:
    shades = plan.background.colours
    colours = [name for name in _LETTER_COLOURS if all(contrast(name, shade) >= 150 for shade in shades)]
    if not colours:  # two far colours leave no letter colour that stands out on both
        return _with_letters(
            rng, replace(plan, background=sample_background(rng, "background" in plan.mentions))
        )
    colour = colours[0] if rng.random() < 0.4 else rng.choice(colours)
    mentions = plan.mentions | {"word_colour"} if rng.random() < 0.3 else plan.mentions
    place = rng.choice(("above", "below")) if plan.items else None
    text = sample_word(rng, SHORT_NAMES)
    return replace(plan, lettering=Lettering(text, rng.choice(FONTS), colour, place), mentions=mentions)


def _reasoning(unseen: bool) -> Callable[[random.Random, Plan], Plan]:
    def make(rng: random.Random, plan: Plan) -> Plan:
        predicate = rng.choice(PREDICATE_IDS)
        right = rng.choice(KNOWN[predicate, True, unseen])
        wrong = rng.choice(KNOWN[predicate, False, unseen])
        return replace(plan, items=(Item(right),), predicate=predicate, wrong=wrong)

    return make


def _known() -> dict[tuple[str, bool, bool], tuple[str, ...]]:
    return {
        (predicate, truth, unseen): tuple(
            name for name in NAMES if holds(name, predicate) is truth and is_unseen(name, predicate) is unseen
        )
        for predicate in PREDICATES
        for truth in (True, False)
        for unseen in (True, False)
    }


KNOWN = _known()
"""The concepts for (predicate, whether it holds, whether it is kept from picture and edit training)."""
PREDICATE_IDS = tuple(
    predicate
    for predicate in PREDICATES
    if all(KNOWN[predicate, truth, unseen] for truth in (True, False) for unseen in (True, False))
)

_MAKERS: dict[str, Callable[[random.Random, Plan], Plan]] = {
    "single": _single,
    "two": _two,
    "counting": _counting,
    "colours": _colours,
    "position": _position,
    "binding": _binding,
    "background": _single,
    "size": _size,
    "words": _words,
    "reasoning_seen": _reasoning(False),
    "reasoning_unseen": _reasoning(True),
}
