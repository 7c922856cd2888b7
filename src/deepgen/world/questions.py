"""Dialogues that teach the small VLM what its hidden states must carry: names, counts, places, bound
colours, word order, spelling, facts, and what an edit leads to."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deepgen.errors import InputError
from deepgen.world.captions import (
    article,
    canonical_caption,
    caption,
    choose_template,
    ground_words,
    is_pair,
    key_of,
    named,
    noun,
    objects_words,
    with_natural_colours,
)
from deepgen.world.concepts import CONCEPTS, PREDICATES, holds
from deepgen.world.layout import lay_out
from deepgen.world.plans import CATEGORIES, NAMES, SHORT_NAMES, make_plan
from deepgen.world.sampling import EditSample, Sample, draw_edit, draw_sample, split_of
from deepgen.world.scenes import INVERSE, Object, Scene, position_of, relation_of, size_word
from deepgen.world.wordings import NUMBERS, POSITION_WORDS, RELATION_WORDS
from deepgen.world.words import sample_word

DIALOGUE_WEIGHTS = {
    "describe": 22,
    "picture": 22,
    "caption": 20,
    "restate": 8,
    "spelling": 8,
    "facts": 8,
    "edit_picture": 7,
    "edit_caption": 5,
}
"""The kinds of dialogues and how often each is drawn."""
DIALOGUE_KINDS = tuple(DIALOGUE_WEIGHTS)
_COUNTS = (*NUMBERS, "six", "seven", "eight")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_WITH_SYNONYMS = tuple(name for name in NAMES if CONCEPTS[name].synonyms)
_CAPTION_CATEGORIES = tuple(name for name in CATEGORIES if not name.startswith("reasoning"))
_FACT_TRUTHS = {
    predicate: (
        [name for name in NAMES if holds(name, predicate) is True],
        [name for name in NAMES if holds(name, predicate) is False],
    )
    for predicate in PREDICATES
}

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One turn. `scene` is the picture that the question is about, None for text alone."""

    scene: Scene | None
    question: str
    answer: str
    kind: str


def sample_dialogue(
    rng: random.Random, split: str = "train", kinds: Sequence[str] | None = None, oblong: bool = True
) -> Dialogue:
    """One dialogue on samples of the split; `kinds` limits the draw to some of DIALOGUE_KINDS, all
    equally often.

    `oblong=False` draws only scenes of 256 by 256. Raises InputError for an unknown kind or split.
    """
    kind = rng.choice(kinds) if kinds else rng.choices(DIALOGUE_KINDS, tuple(DIALOGUE_WEIGHTS.values()))[0]
    if kind not in _MAKERS:
        raise InputError(f"unknown kind of dialogue {kind!r}; choose from {', '.join(DIALOGUE_KINDS)}")
    while True:
        scene, (question, answer) = _MAKERS[kind](rng, split)
        if oblong or scene is None or scene.width == scene.height:
            return Dialogue(scene, question, answer, kind)


def _describe(rng: random.Random, split: str) -> tuple[Scene, Pair]:
    scene = _scene(rng, split)
    ask = ("Describe the picture.", "What does the picture show?", "Caption this picture.")
    return scene, (rng.choice(ask), canonical_caption(scene))


def _scene(rng: random.Random, split: str) -> Scene:
    """A picture as of a prompt, or one in four times as before or after an edit."""
    if rng.random() < 0.75:
        return draw_sample(
            rng, split, (rng.choice(_CAPTION_CATEGORIES),) if rng.random() < 0.3 else None
        ).scene
    edit = draw_edit(rng, split)
    return edit.source if rng.random() < 0.5 else edit.target


def _picture(rng: random.Random, split: str) -> tuple[Scene, Pair]:
    scene = _scene(rng, split)
    seen = with_natural_colours(scene)
    return scene, rng.choice(_asked(rng, seen, _shown(seen)))


def _shown(scene: Scene) -> frozenset[str]:
    """What can be asked about a picture, by the names of `Sample.mentions`."""
    things = scene.objects
    shown = {"background"}
    if things:
        shown |= {"objects", "style", "count"}
    if any(thing.colour for thing in things):
        shown.add("colour")
    if things and len({(thing.concept, thing.colour) for thing in things}) == len(things):
        shown.add("relation" if len(things) == 2 and relation_of(*things, scene) else "position")
    if scene.words:
        shown |= {"word", "word_colour"}
    if len(things) == 1 and size_word(things[0], scene):
        shown.add("size")
    return frozenset(shown)


def _caption(rng: random.Random, split: str) -> tuple[None, Pair]:
    sample = draw_sample(rng, split, (rng.choice(_CAPTION_CATEGORIES),) if rng.random() < 0.5 else None)
    if sample.category.startswith("reasoning"):
        return None, _reasoning(rng, split)
    question, answer = rng.choice(_asked(rng, sample.scene, sample.mentions))
    return None, (f"Caption: {sample.prompt.removesuffix('.')}. {question}", answer)


def _asked(rng: random.Random, scene: Scene, known: frozenset[str]) -> list[Pair]:
    """Questions with answers about what is known of a scene, each asked about one of its things."""
    pairs: list[Pair] = []
    things = scene.objects
    if "objects" in known:
        pairs.append(
            (rng.choice(("What is it?", "What is in the picture?", "What can be seen?")), _all(scene))
        )
    if things and "count" in known:
        pairs += _count_questions(rng, scene)
    if "colour" in known:
        thing = rng.choice([thing for thing in things if thing.colour])
        if sum(other.concept == thing.concept for other in things) == 1:
            pairs.append((f"What colour is the {_name(thing)}?", str(thing.colour)))
        if len({other.concept for other in things if other.colour == thing.colour}) == 1:
            pairs.append((f"What is {thing.colour}?", _article(thing)))
    if "relation" in known:
        pairs += _relation_questions(rng, scene)
    if "position" in known:
        thing = rng.choice(things)
        position = position_of(thing, scene)
        pairs.append((f"Where is {_the(thing, scene)}?", POSITION_WORDS[position][0]))
        pairs.append((f"What is {rng.choice(POSITION_WORDS[position])}?", named(thing)))
    if "size" in known:
        ranked = sorted(things, key=lambda thing: thing.size)
        thing = rng.choice(ranked)
        words = ("small" if thing is ranked[0] else "big") if len(things) > 1 else size_word(thing, scene)
        pairs += [(f"What is {words}?", _article(thing)), (f"How big is {_the(thing, scene)}?", str(words))]
    if "background" in known:
        ask = ("What is the background?", "What is behind it?", "Which background?")
        pairs.append((rng.choice(ask), ground_words(scene.background)))
    if "style" in known:
        pairs.append((rng.choice(("What style is it?", "Which style?")), scene.style))
    if "word" in known:
        pairs += _word_questions(rng, scene)
    if "word_colour" in known:
        pairs.append(
            (rng.choice(("What colour are the letters?", "Which colour is the text?")), scene.words[0].colour)
        )
    return pairs


def _count_questions(rng: random.Random, scene: Scene) -> list[Pair]:
    thing = rng.choice(scene.objects)
    entry = CONCEPTS[thing.concept]
    count = sum(other.concept == thing.concept for other in scene.objects)
    pairs = "pairs of " if is_pair(thing.concept) else ""
    wordings = (f"How many {pairs}{entry.plural} are there?", f"How many {pairs}{entry.plural}?")
    return [
        (rng.choice(wordings), NUMBERS[count]),
        ("How many things are there?", NUMBERS[len(scene.objects)]),
    ]


def _relation_questions(rng: random.Random, scene: Scene) -> list[Pair]:
    first, second = rng.sample(scene.objects, 2)
    relation = relation_of(first, second, scene)
    assert relation is not None
    asked = rng.choice((relation, INVERSE[relation]))
    words = rng.choice(RELATION_WORDS[asked])
    return [
        (f"What is {rng.choice(RELATION_WORDS[relation])} {_the(second, scene)}?", named(first)),
        (f"Where is {_the(first, scene)}?", f"{relation} {_the(second, scene)}"),
        (f"Is {_the(first, scene)} {words} {_the(second, scene)}?", "yes" if asked == relation else "no"),
    ]


def _word_questions(rng: random.Random, scene: Scene) -> list[Pair]:
    text = scene.words[0].text
    ask = ("What does it say?", "Read the word.", "Which word is written?", "What is the text?")
    at = rng.randrange(len(text))
    pairs = [
        (rng.choice(ask), f'"{text}"'),
        (f"What is the {_ORDINALS[at]} letter of the word?", f'"{text[at]}"'),
    ]
    if scene.objects:
        place = "above" if scene.words[0].y < scene.objects[0].y else "below"
        pairs.append(("Where is the word?", f"{place} the {_name(scene.objects[0])}"))
    return pairs


def _all(scene: Scene) -> str:
    """The things with article and colour, without their places."""
    if len({(thing.concept, thing.colour) for thing in scene.objects}) == 1 and len(scene.objects) > 1:
        return objects_words(scene)
    *most, last = map(named, scene.objects)
    return f"{', '.join(most)} and {last}" if most else last


def _name(thing: Object) -> str:
    return CONCEPTS[thing.concept].name


def _the(thing: Object, scene: Scene) -> str:
    """The thing, told from others of its concept by its colour."""
    alone = sum(other.concept == thing.concept for other in scene.objects) == 1
    return f"the {_name(thing)}" if alone or not thing.colour else f"the {thing.colour} {_name(thing)}"


def _article(thing: Object) -> str:
    return article(_name(thing), thing.concept)


def _restate(rng: random.Random, split: str) -> tuple[None, Pair]:
    while True:
        sample = draw_sample(rng, split)
        if not sample.category.startswith("reasoning"):
            break
    return None, (f"Caption: {sample.prompt.removesuffix('.')}. In other words?", restatement(sample))


def restatement(sample: Sample) -> str:
    """The canonical wording of what the prompt states, and of nothing that it leaves open."""
    scene = sample.scene
    parts = []
    if scene.objects:
        told = sample.mentions & {"relation", "position", "size", "count"}
        parts.append(
            objects_words(scene) if (told and len(scene.objects) > 1) or "position" in told else _all(scene)
        )
        if sample.category == "size":
            sizes = sorted(thing.size for thing in scene.objects)
            words = ["big" if thing.size == sizes[-1] else "small" for thing in scene.objects]
            if len(scene.objects) == 1:
                words = [str(size_word(scene.objects[0], scene))]
            parts = [
                " and ".join(named(thing, size) for thing, size in zip(scene.objects, words, strict=True))
            ]
    for word in scene.words:
        colour = f" in {word.colour}" if "word_colour" in sample.mentions else ""
        place = ""
        if scene.objects:
            place = " above it" if word.y < scene.objects[0].y else " below it"
        parts.append(f'the word "{word.text}"{colour}{place}')
    text = " and ".join(parts)
    if "background" in sample.mentions:
        text += f" on {ground_words(scene.background)}"
    return f"{text} in {scene.style} style" if "style" in sample.mentions else text


def _reasoning(rng: random.Random, split: str) -> Pair:
    """A reasoning prompt and what it asks for. Facts kept from pictures are told here, in the training
    split too."""
    while True:
        plan = make_plan(rng, rng.choice(("reasoning_seen", "reasoning_unseen")), "test")
        template = choose_template(rng, plan)
        if split_of(key_of(plan, template)) == split:
            break
    prompt = caption(rng, plan, template).removesuffix(".")
    return f"Caption: {prompt}. What is it?", named(lay_out(rng, plan).objects[0])


def _spelling(rng: random.Random, split: str) -> tuple[None, Pair]:
    text = sample_word(rng, SHORT_NAMES)
    at = rng.randrange(len(text))
    pairs = [
        (f'Spell the word "{text}".', f'"{" ".join(text)}"'),
        (f'What is the {_ORDINALS[at]} letter of "{text}"?', f'"{text[at]}"'),
        (f'How many letters has "{text}"?', _COUNTS[len(text)]),
        (f'Which word is "{" ".join(text)}"?', f'"{text}"'),
        (f'Spell "{text}" backwards.', f'"{" ".join(text[::-1])}"'),
        (f'What is the last letter of "{text}"?', f'"{text[-1]}"'),
    ]
    return None, rng.choice(pairs)


def _facts(rng: random.Random, split: str) -> tuple[None, Pair]:
    chance = rng.random()
    if chance < 0.2 and _WITH_SYNONYMS:
        name = rng.choice(_WITH_SYNONYMS)
        synonym = rng.choice(CONCEPTS[name].synonyms)
        return None, (
            rng.choice((f"What is another word for {synonym}?", f"Which name has {synonym}?")),
            name,
        )
    if chance < 0.25:
        name = rng.choice(NAMES)
        return None, (f"What kind of thing is {article(noun(rng, name), name)}?", CONCEPTS[name].group)
    predicate = rng.choice(tuple(PREDICATES))
    truths = _FACT_TRUTHS[predicate]
    right, wrong = rng.choice(truths[0]), rng.choice(truths[1])
    if chance < 0.6:
        name, answer = rng.choice(((right, "yes"), (wrong, "no")))
        return None, (_yes_or_no(PREDICATES[predicate].text, article(noun(rng, name), name)), answer)
    names = [right, wrong]
    rng.shuffle(names)
    first, second = (article(noun(rng, name), name) for name in names)
    return None, (
        f"{PREDICATES[predicate].question}, {first} or {second}?",
        article(CONCEPTS[right].name, right),
    )


def _yes_or_no(fact: str, name: str) -> str:
    verb, _, rest = fact.partition(" ")
    if verb in ("can", "is"):
        return f"{verb.capitalize()} {name} {rest}?"
    return f"Is it true that {name} {fact}?"


def _telling_edit(rng: random.Random, split: str) -> EditSample:
    """An edit that changes the canonical caption; small changes of size do not."""
    while True:
        edit = draw_edit(rng, split)
        if canonical_caption(edit.source) != canonical_caption(edit.target):
            return edit


def _edit_picture(rng: random.Random, split: str) -> tuple[Scene, Pair]:
    edit = _telling_edit(rng, split)
    return edit.source, (
        f"Edit: {edit.instruction.removesuffix('.')}. What is the result?",
        canonical_caption(edit.target),
    )


def _edit_caption(rng: random.Random, split: str) -> tuple[None, Pair]:
    edit = _telling_edit(rng, split)
    question = (
        f"Picture: {canonical_caption(edit.source)}. "
        f"Edit: {edit.instruction.removesuffix('.')}. What is the result?"
    )
    return None, (question, canonical_caption(edit.target))


_MAKERS: dict[str, Callable[[random.Random, str], tuple[Scene | None, Pair]]] = {
    "describe": _describe,
    "picture": _picture,
    "caption": _caption,
    "restate": _restate,
    "spelling": _spelling,
    "facts": _facts,
    "edit_picture": _edit_picture,
    "edit_caption": _edit_caption,
}
