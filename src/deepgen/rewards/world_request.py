"""What a prompt of the picture world asks for, read back from its words.

A preference judge is given nothing but words and pictures, as any judge; so the world's one has to read. Prompts come
from the templates of `world.wordings`, and every name, number, colour and place in them is one of a known list.
"""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from deepgen.world.captions import plural_of
from deepgen.world.colours import COLOURS
from deepgen.world.concepts import CONCEPTS, PREDICATES, holds
from deepgen.world.layout import lay_out
from deepgen.world.plans import Item, Plan
from deepgen.world.sampling import Sample
from deepgen.world.scenes import PALETTE, SQUARE, Background
from deepgen.world.sprites import STYLES
from deepgen.world.wordings import NUMBERS, POSITION_WORDS, RELATION_WORDS, SIZE_WORDS

_ONE = {"a", "an", "single"}


@dataclass(frozen=True)
class _Named:
    """A thing in the text: where, and what stands before its name."""

    concept: str
    start: int
    end: int
    colour: str | None
    size: str | None
    count: int | None


def read_request(prompt: str, width: int = SQUARE[0], height: int = SQUARE[1]) -> Sample | None:
    """The prompt as a sample whose scene shows it, in a picture of that size; None where it names nothing known.

    `mentions` is what was understood, without words to be written: reading them is another reward's. Places that the
    prompt leaves open are made up, and judging does not look at them.
    """
    text = _without_quotes(prompt.lower().strip().rstrip(".!"))
    text, background = _take_background(text)
    text, style = _take_style(text)
    text, predicate = _take_predicate(text)
    things = _things(text)
    if predicate is not None:
        things = [thing for thing in things if holds(thing.concept, predicate)]
    names = list(dict.fromkeys(thing.concept for thing in things))
    if not names or len(names) > 2:
        return None
    relation, names = _relation(text, things, names) if len(names) == 2 else (None, names)
    items = tuple(_item(text, name, things) for name in names)
    position = _position(text) if len(items) == 1 and items[0].count == 1 and predicate is None else None
    mentions = {"objects"}
    mentions |= {"count"} if any(item.count > 1 for item in items) else set()
    mentions |= {"colour"} if any(item.colour for item in items) else set()
    mentions |= {"size"} if any(item.size for item in items) else set()
    mentions |= {"relation"} if relation else set()
    mentions |= {"position"} if position else set()
    mentions |= {"background"} if background else set()
    mentions |= {"style"} if style else set()
    plan = Plan(
        "request",
        width,
        height,
        style or STYLES[0],
        background or Background(),
        frozenset(mentions),
        items,
        relation,
        position,
    )
    scene = lay_out(random.Random(0), plan)
    return Sample("request", prompt, scene, plan.mentions, "train", plan.key())


def _without_quotes(text: str) -> str:
    """A word to be written is no thing; nor is the colour of its letters a thing's, nor its place."""
    places = "|".join(sorted({p for words in RELATION_WORDS.values() for p in words}, key=len, reverse=True))
    text = re.sub(rf'"[^"]*"(?: in (?:{_any(PALETTE)})\b(?: letters)?)?(?: (?:{places}) it\b)?', " ", text)
    return re.sub(r"\b(the )?(written )?(word|text|letters)\b", " ", text)


def _take_background(text: str) -> tuple[str, Background | None]:
    """The text without the words of its background, and that background."""
    for pattern, kind in _background_patterns():
        if match := pattern.search(text):
            colours = tuple(match.group(name) for name in ("first", "second") if name in pattern.groupindex)
            way = "horizontal" if "left to right" in match.group() else "vertical"
            return text[: match.start()] + " , " + text[match.end() :], Background(kind, colours, way)
    return text, None


@lru_cache(maxsize=1)
def _background_patterns() -> list[tuple[re.Pattern[str], str]]:
    first, second = f"(?P<first>{_any(PALETTE)})", f"(?P<second>{_any(PALETTE)})"
    start = r"(?:\b(?:on|against|in front of) )?(?:\b(?:a|an) )?"
    way = "(?: from (?:left to right|top to bottom))?"
    forms = (
        (rf"{first} and {second} (?:checkered background|checkerboard)", "checker"),
        (rf"checkerboard of {first} and {second}\b", "checker"),
        (rf"background fading from {first} to {second}\b{way}", "gradient"),
        (rf"gradient from {first} to {second}\b{way}", "gradient"),
        (rf"{first} to {second} gradient{way}", "gradient"),
        (rf"(?:plain )?{first} background", "plain"),
    )
    found = [(re.compile(start + form), kind) for form, kind in forms]
    return [*found, (re.compile(rf"\bon {first}(?=$| ,|,| in )"), "plain")]


def _take_style(text: str) -> tuple[str, str | None]:
    style = next((name for name in STYLES if re.search(rf"\b{name}\b", text)), None)
    return (re.sub(rf"\b{style}\b", " ", text), style) if style else (text, None)


def _take_predicate(text: str) -> tuple[str, str | None]:
    """Facts may name things themselves: "can be put on a pizza"."""
    for predicate in PREDICATES.values():
        for words in (predicate.question.lower(), predicate.text.lower()):
            if words in text:
                return text.replace(words, " , "), predicate.id
    return text, None


def _things(text: str) -> list[_Named]:
    names, pattern = _name_pattern()
    found = []
    for match in pattern.finditer(text):
        words = match.groupdict()
        number = words["count"]
        count = None if number is None or number in _ONE else _number(number)
        size = next((key for key, some in SIZE_WORDS.items() if words["size"] in some), None)
        name = names[words["name"]]
        found.append(_Named(name, match.start("name"), match.end("name"), words["colour"], size, count))
    return found


@lru_cache(maxsize=1)
def _name_pattern() -> tuple[dict[str, str], re.Pattern[str]]:
    """Concepts by each of their names, and what finds one with the words before it; longer names first."""
    names: dict[str, str] = {}
    for concept in CONCEPTS.values():
        for word in (concept.name, concept.plural, *concept.synonyms, *map(plural_of, concept.synonyms)):
            names.setdefault(word.lower(), concept.name)
    count = rf"(?:(?P<count>{_any((*NUMBERS, *map(str, range(1, 6))))}|an?|single)\s+)?(?:pairs? of\s+)?"
    size = rf"(?:(?P<size>{_any(word for words in SIZE_WORDS.values() for word in words)})\s+)?"
    colour = rf"(?:(?P<colour>{_any(COLOURS)})\s+)?"
    return names, re.compile(rf"\b{count}{size}{colour}(?P<name>{_any(names)})\b")


def _item(text: str, concept: str, things: Sequence[_Named]) -> Item:
    """All that is said of a concept, wherever it is named."""
    own = [thing for thing in things if thing.concept == concept]
    first = own[0]
    after = re.match(
        rf"(?: in| coloured| that is| is|,| and colour it) (?P<colour>{_any(COLOURS)})\b", text[first.end :]
    )
    colour = next((thing.colour for thing in own if thing.colour), after and after["colour"])
    of_them = re.match(rf", (?P<count>{_any((*NUMBERS, *map(str, range(1, 6))))}) of them", text[first.end :])
    count = next((thing.count for thing in own if thing.count), _number(of_them["count"]) if of_them else 1)
    return Item(concept, colour, count, next((thing.size for thing in own if thing.size), None))


def _relation(text: str, things: Sequence[_Named], names: list[str]) -> tuple[str | None, list[str]]:
    """The relation of two things and their names, first the one that stands there, then the one that is looked from."""
    for relation, match in _phrases(text, RELATION_WORDS):
        before = [thing.concept for thing in things if thing.end <= match.start()]
        after = [thing.concept for thing in things if thing.start >= match.end()]
        if not before:  # "left of B is A"
            return relation, after[1::-1]
        first = before[-1]
        other = after[0] if after and after[0] != first else next(name for name in names if name != first)
        return relation, [first, other]
    return None, names


def _position(text: str) -> str | None:
    return next((position for position, _ in _phrases(text, POSITION_WORDS)), None)


def _phrases(text: str, words: Mapping[str, tuple[str, ...]]) -> Iterable[tuple[str, re.Match[str]]]:
    """Meanings whose phrases stand in the text; longer phrases first, which may hold shorter ones."""
    pairs = {(phrase, meaning) for meaning, phrases in words.items() for phrase in phrases}
    for phrase, meaning in sorted(pairs, key=lambda pair: (-len(pair[0]), pair)):
        if match := re.search(rf"\b{phrase}\b", text):
            yield meaning, match


def _number(word: str) -> int:
    return int(word) if word.isdigit() else NUMBERS.index(word)


def _any(words: Iterable[str]) -> str:
    """An alternative of a regular expression; longer words first, so that "light blue" is not "light"."""
    return "|".join(re.escape(word) for word in sorted(set(words), key=lambda word: (-len(word), word)))
