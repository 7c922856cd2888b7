"""Captions: many wordings of what a plan asks for, and one exact wording of what a scene shows."""

import random
from collections import Counter
from dataclasses import replace

from deepgen.world.concepts import CONCEPTS, PREDICATES
from deepgen.world.plans import Item, Plan
from deepgen.world.scenes import (
    INVERSE,
    POSITIONS,
    Background,
    Object,
    Scene,
    position_of,
    relation_of,
    size_word,
)
from deepgen.world.wordings import (
    BEFORE,
    NUMBERS,
    PHRASES,
    POSITION_WORDS,
    RELATION_WORDS,
    SENTENCES,
    SIZE_WORDS,
    STYLED_AFTER,
    STYLED_BEFORE,
    SYNONYM_SHARE,
)


def shape_of(plan: Plan) -> str:
    """The set of templates that words the plan."""
    if plan.lettering:
        return "word and one" if plan.items else "word"
    if plan.predicate:
        return "reasoning"
    if plan.category == "counting":
        return "counting" if plan.items[0].count > 1 else "counting one"
    if len(plan.items) == 2:
        return "two" if plan.relation else "and"
    return plan.category if plan.category in ("colours", "position") else "one"


def choose_template(rng: random.Random, plan: Plan) -> int:
    """The number of a wording: phrases first, then sentences."""
    shape = shape_of(plan)
    return rng.randrange(len(PHRASES[shape]) + len(SENTENCES[shape]))


def key_of(plan: Plan, template: int) -> str:
    """What decides the split: all that the prompt asks for, and its wording up to an article."""
    shape = shape_of(plan)
    wording = (*PHRASES[shape], *SENTENCES[shape])[template].replace("{noun}", "{a}")
    return f"{plan.key()}|{wording}"


def caption(rng: random.Random, plan: Plan, template: int) -> str:
    """The plan in words by one of its templates; synonyms, style, background, capital and full stop as
    drawn."""
    shape = shape_of(plan)
    phrases = PHRASES[shape]
    is_phrase = template < len(phrases)
    text = phrases[template] if is_phrase else SENTENCES[shape][template - len(phrases)]
    style = plan.style if "style" in plan.mentions else None
    chance = rng.random()
    adjective = style if chance < 0.4 and shape not in ("reasoning", "word") else None
    text = _fill(rng, plan, text, adjective)
    before = ""
    if style and not adjective and is_phrase and chance < 0.7:
        before = rng.choice(STYLED_BEFORE[style])
    elif is_phrase and not style and rng.random() < 0.2:
        before = rng.choice(BEFORE)
    after = rng.choice(STYLED_AFTER).format(style) if style and not adjective and not before else ""
    if "background" in plan.mentions:
        ground = background_words(rng, plan.background)
        if is_phrase and not before and rng.random() < 0.12:
            before = f"on {ground}, "
        elif is_phrase and rng.random() < 0.12 and before:
            after += f", on {ground}"
        else:
            after = (
                _grounded(rng, plan.background, ground) + after
                if rng.random() < 0.7
                else after + f", {ground}"
            )
    text = before + text + after
    return finish(rng, text.replace("3d", "3D") if rng.random() < 0.15 else text)


def finish(rng: random.Random, text: str) -> str:
    """A capital letter at the start and a full stop at the end, or not, as people type."""
    if rng.random() < 0.4:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.3 else text


def noun(rng: random.Random, concept: str, plural: bool = False) -> str:
    """The concept's name or, one time in four, a synonym."""
    entry = CONCEPTS[concept]
    if entry.synonyms and rng.random() < SYNONYM_SHARE:
        name = rng.choice(entry.synonyms)
        return plural_of(name) if plural else name
    return entry.plural if plural else entry.name


def plural_of(name: str) -> str:
    """English plural of a regular noun."""
    if name.endswith(("s", "x", "z", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


def article(words: str, concept: str | None = None) -> str:
    """`words` with "a" or "an"; "a pair of" before things whose name is a plural, such as scissors."""
    if concept is not None and is_pair(concept):
        return words if words.split()[-1] in ("one", "single") else f"a pair of {words}"
    first = words.lower()
    vowel = first[0] in "aeiou" and not first.startswith(("uni", "uku", "use", "eu", "one"))
    return f"{'an' if vowel else 'a'} {words}"


def is_pair(concept: str) -> bool:
    """Whether the name is a plural already: scissors, glasses."""
    entry = CONCEPTS[concept]
    return entry.plural == entry.name and entry.name.endswith("s") and not entry.name.endswith(("ss", "us"))


def bare(rng: random.Random, item: Item, adjective: str | None = None, plural: bool = False) -> str:
    """The item without an article: size, style, colour, name."""
    size = rng.choice(SIZE_WORDS[item.size]) if item.size else None
    words = (size, adjective, item.colour, noun(rng, item.concept, plural))
    return " ".join(word for word in words if word)


def background_words(rng: random.Random, background: Background) -> str:
    """A background as a noun phrase with article, in one of several wordings."""
    first, *rest = background.colours
    if background.kind == "plain":
        return article(f"{'plain ' if rng.random() < 0.2 else ''}{first} background")
    second = rest[0]
    if background.kind == "checker":
        forms = ("{} and {} checkered background", "{} and {} checkerboard", "checkerboard of {} and {}")
        return article(rng.choice(forms).format(first, second))
    forms = ("background fading from {} to {}", "gradient from {} to {}", "{} to {} gradient")
    way = " from left to right" if background.direction == "horizontal" else ""
    if not way and rng.random() < 0.25:
        way = " from top to bottom"
    return article(rng.choice(forms).format(first, second) + way)


def _grounded(rng: random.Random, background: Background, ground: str) -> str:
    if background.kind == "plain" and rng.random() < 0.15:
        return f" on {background.colours[0]}"
    return rng.choice((" on ", " on ", " against ", " in front of ")) + ground


def _fill(rng: random.Random, plan: Plan, text: str, adjective: str | None) -> str:
    names: dict[str, str] = {}
    if plan.predicate:
        names |= _reasoning_names(rng, plan)
    elif plan.items:
        names |= _item_names(rng, plan, adjective)
    if plan.relation:
        names["rel"] = rng.choice(RELATION_WORDS[plan.relation])
    if plan.position:
        names["at"] = rng.choice(POSITION_WORDS[plan.position])
        if rng.random() < 0.2:
            names["at"] += " of the picture"
    if plan.lettering:
        names["w"] = f'"{plan.lettering.text}"'
        if "word_colour" in plan.mentions:
            names["w"] += f" in {plan.lettering.colour}{rng.choice((' letters', ''))}"
        if plan.lettering.place:
            names["place"] = rng.choice(RELATION_WORDS[plan.lettering.place])
            names["other"] = rng.choice(RELATION_WORDS[INVERSE[plan.lettering.place]])
    return text.format_map(names)


def _item_names(rng: random.Random, plan: Plan, adjective: str | None) -> dict[str, str]:
    first = plan.items[0]
    words = bare(rng, first, adjective)
    names = {"noun": words, "a": article(words, first.concept), "the_a": f"the {words}"}
    if first.colour:
        plain = bare(rng, Item(first.concept), adjective)
        names |= {"plain": article(plain, first.concept), "the_plain": f"the {plain}", "colour": first.colour}
    if plan.category == "counting":
        names["n"] = str(first.count) if rng.random() < 0.2 else NUMBERS[first.count]
        names["nouns"] = bare(rng, first, adjective, plural=True)
        if is_pair(first.concept):
            names["nouns"] = f"pairs of {names['nouns']}"
            names["noun"] = f"pair of {words}"
    if len(plan.items) == 2:
        second = plan.items[1]
        words = bare(rng, second, adjective)
        names |= {"b": article(words, second.concept), "the_b": f"the {words}"}
    return names


def _reasoning_names(rng: random.Random, plan: Plan) -> dict[str, str]:
    assert plan.predicate is not None and plan.wrong is not None
    choices = [plan.items[0].concept, plan.wrong]
    rng.shuffle(choices)
    x, y = (article(noun(rng, name), name) for name in choices)
    predicate = PREDICATES[plan.predicate]
    return {
        "fact": predicate.text,
        "ask": predicate.question[0].lower() + predicate.question[1:],
        "x": x,
        "y": y,
    }


def with_natural_colours(scene: Scene) -> Scene:
    """The same scene with the colour that things have by themselves written out, where that has a name."""
    objects = (
        replace(thing, colour=thing.colour or CONCEPTS[thing.concept].natural) for thing in scene.objects
    )
    return replace(scene, objects=tuple(objects))


def canonical_caption(scene: Scene) -> str:
    """Everything the scene shows in one fixed wording.

    Example: `a red car left of a dog on a plain white background in 3d style`. Equal scenes up to small
    shifts of their objects have equal captions. Objects are named once, counted if equal, with their
    relation if two, with their place in the 3 by 3 grid otherwise. Colours are said whenever they are plain
    to see.
    """
    scene = with_natural_colours(scene)
    parts = []
    if scene.objects:
        parts.append(objects_words(scene))
    for word in scene.words:
        place = ""
        if scene.objects:
            place = " above it" if word.y < scene.objects[0].y else " below it"
        parts.append(f'the word "{word.text}" in {word.colour}{place}')
    what = " and ".join(parts) or "nothing"
    style = f" in {scene.style} style" if scene.objects else ""  # letters alone look alike in every style
    return f"{what} on {ground_words(scene.background)}{style}"


def objects_words(scene: Scene) -> str:
    """The objects part of the canonical caption."""
    groups = Counter((thing.concept, thing.colour) for thing in scene.objects)
    if len(groups) == 1 and len(scene.objects) > 1:
        ((concept, colour), count) = next(iter(groups.items()))
        plural = CONCEPTS[concept].plural
        pairs = "pairs of " if is_pair(concept) else ""
        return " ".join(word for word in (NUMBERS[count], colour, pairs + plural) if word)
    if len(scene.objects) == 2:
        first, second = sorted(scene.objects, key=lambda thing: thing.centre)
        relation = relation_of(first, second, scene)
        if relation == "below":
            first, second, relation = second, first, "above"
        if relation:
            bigger = _compared(first, second)
            return f"{named(first, bigger[0])} {relation} {named(second, bigger[1])}"
    if len(scene.objects) == 1:
        return _at(scene.objects[0], scene, size_word(scene.objects[0], scene))
    ordered = sorted(scene.objects, key=lambda thing: POSITIONS.index(position_of(thing, scene)))
    words = [_at(thing, scene) for thing in ordered]
    return ", ".join(words[:-1]) + " and " + words[-1]


def _at(thing: Object, scene: Scene, size: str | None = None) -> str:
    return f"{named(thing, size)} {POSITION_WORDS[position_of(thing, scene)][0]}"


def _compared(first: Object, second: Object) -> tuple[str | None, str | None]:
    if first.size >= 1.3 * second.size:
        return "big", "small"
    if second.size >= 1.3 * first.size:
        return "small", "big"
    return None, None


def named(thing: Object, size: str | None = None) -> str:
    """The object with article, size and colour, by the concept's own name."""
    words = " ".join(word for word in (size, thing.colour, CONCEPTS[thing.concept].name) if word)
    return article(words, thing.concept)


def ground_words(background: Background) -> str:
    """The background part of the canonical caption."""
    first, *rest = background.colours
    if background.kind == "plain":
        return article(f"plain {first} background")
    if background.kind == "checker":
        return f"a checkerboard of {first} and {rest[0]}"
    way = "left to right" if background.direction == "horizontal" else "top to bottom"
    return f"a gradient from {first} to {rest[0]} from {way}"
