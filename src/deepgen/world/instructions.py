"""Wordings of edits."""

import random

from deepgen.world.captions import article, background_words, finish, noun
from deepgen.world.plans import Item
from deepgen.world.scenes import Background, Object, Scene
from deepgen.world.wordings import POSITION_WORDS, RELATION_WORDS

ANYWHERE = "insert anywhere"

TEMPLATES: dict[str, tuple[str, ...]] = {
    "add": (
        "add {new} {at}",
        "put {new} {at}",
        "place {new} {at}",
        "insert {new} {at}",
        "draw {new} {at}",
        "{at}, add {new}",
        "I want {new} {at}",
        "there should be {new} {at}",
    ),
    "remove": (
        "remove {x}",
        "delete {x}",
        "take {x} away",
        "erase {x}",
        "get rid of {x}",
        "{x} should disappear",
        "take away {x}",
        "the same picture without {x}",
    ),
    "replace": (
        "replace {x} with {new}",
        "turn {x} into {new}",
        "change {x} to {new}",
        "swap {x} for {new}",
        "put {new} in place of {x}",
        "make {x} {new}",
        "instead of {x} show {new}",
    ),
    "recolour": (
        "make {x} {colour}",
        "colour {x} {colour}",
        "paint {x} {colour}",
        "turn {x} {colour}",
        "change the colour of {x} to {colour}",
        "{x} should be {colour}",
        "recolour {x} to {colour}",
    ),
    "move": (
        "move {x} {to}",
        "shift {x} {to}",
        "bring {x} {to}",
        "put {x} {at}",
        "place {x} {at}",
        "{x} should be {at}",
        "I want {x} {at}",
    ),
    "bigger": (
        "make {x} bigger",
        "enlarge {x}",
        "make {x} larger",
        "{x} should be bigger",
        "scale {x} up",
        "increase the size of {x}",
        "grow {x}",
    ),
    "smaller": (
        "make {x} smaller",
        "shrink {x}",
        "reduce the size of {x}",
        "{x} should be smaller",
        "scale {x} down",
        "make {x} littler",
        "decrease the size of {x}",
    ),
    "background": (
        "change the background to {ground}",
        "put it on {ground}",
        "make the background {ground}",
        "replace the background with {ground}",
        "use {ground}",
        "set everything on {ground}",
        "give it {ground}",
    ),
    "plain background": (
        "make the background {colour}",
        "change the background to {colour}",
        "turn the background {colour}",
        "paint the background {colour}",
        "{colour} background please",
        "the background should be {colour}",
        "put everything on {ground}",
        "set the background to {colour}",
    ),
    "style": (
        "make it {style}",
        "turn this into {style} style",
        "change the style to {style}",
        "draw it in {style}",
        "redraw the picture in {style} style",
        "convert it to {style} style",
        "I want this in {style} style",
    ),
    "insert": (
        "put {thing} into {second} {at}",
        "add {thing} to {second}, {at}",
        "place {thing} {at} in {second}",
        "insert {thing} into {second}, {at}",
        "take {thing} and put it {at} in {second}",
        "copy {thing} into {second} {at}",
        "{second} with {thing} {at}",
        "I want {thing} in {second}, {at}",
        "{thing} should be {at} in {second}",
    ),
    ANYWHERE: (
        "put {thing} into {second}",
        "add {thing} to {second}",
        "place {thing} in {second}",
        "insert {thing} into {second}",
        "take {thing} and put it in {second}",
        "copy {thing} into {second}",
        "{second} with {thing}",
        "I want {thing} in {second}",
        "{thing} should be in {second}",
    ),
}

_PICTURES = (
    ("picture 1", "picture 2"),
    ("image 1", "image 2"),
    ("the first picture", "the second picture"),
    ("the first image", "the second image"),
    ("picture one", "picture two"),
)


def instruction(rng: random.Random, template: str, names: dict[str, str]) -> str:
    """A template filled in, with or without a capital letter and a full stop."""
    return finish(rng, template.format_map(names))


def reference(rng: random.Random, thing: Object, scene: Scene) -> str:
    """ "the dog" or "the red car": the colour always where the concept alone does not say which."""
    alone = sum(other.concept == thing.concept for other in scene.objects) == 1
    words = noun(rng, thing.concept)
    if thing.colour and (not alone or rng.random() < 0.6):
        words = f"{thing.colour} {words}"
    return f"the {words}"


def newcomer(rng: random.Random, item: Item) -> str:
    """ "a dog" or "a red car": something that is not in the picture yet."""
    words = noun(rng, item.concept)
    return article(f"{item.colour} {words}" if item.colour else words, item.concept)


def picture_names(rng: random.Random) -> dict[str, str]:
    """`thing`, "the object of picture 1", and `second`, "picture 2"."""
    first, second = rng.choice(_PICTURES)
    what, of = rng.choice(("the object", "the thing", "the item")), rng.choice(("of", "in", "from"))
    return {"thing": f"{what} {of} {first}", "second": second}


def at_position(rng: random.Random, position: str) -> dict[str, str]:
    """`at` and `to` for one of POSITIONS."""
    goal = "middle" if position == "centre" and rng.random() < 0.5 else position
    return {"at": rng.choice(POSITION_WORDS[position]), "to": f"to the {goal}"}


def at_relation(rng: random.Random, relation: str, anchor: str) -> dict[str, str]:
    """`at` and `to` for a place seen from another object."""
    words = f"{rng.choice(RELATION_WORDS[relation])} {anchor}"
    return {"at": words, "to": words}


def ground_names(rng: random.Random, background: Background) -> dict[str, str]:
    """`ground` and, for a plain background, `colour`."""
    return {"ground": background_words(rng, background), "colour": background.colours[0]}
