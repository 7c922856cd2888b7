import dataclasses
import random
import re

import pytest

from deepgen.world.captions import article, canonical_caption, plural_of
from deepgen.world.concepts import CONCEPTS
from deepgen.world.plans import CATEGORIES
from deepgen.world.sampling import Sample, draw_sample
from deepgen.world.scenes import Background, Object, Scene, Word
from deepgen.world.wordings import NUMBERS, PHRASES, SENTENCES

PLAIN = Scene(256, 256, "3d", Background("plain", ("white",)))


def samples(category: str, count: int = 200) -> list[Sample]:
    rng = random.Random(1)
    return [draw_sample(rng, "test", (category,)) for _ in range(count)]


def names(concept: str) -> list[str]:
    entry = CONCEPTS[concept]
    words = [entry.name, entry.plural, *entry.synonyms, *(plural_of(word) for word in entry.synonyms)]
    return [word.lower() for word in words]


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_object_of_the_scene_is_named_and_no_template_is_left_open(category: str) -> None:
    for sample in samples(category):
        prompt = sample.prompt.lower()
        assert "{" not in prompt and "  " not in prompt and " ." not in prompt
        for thing in sample.scene.objects:
            assert any(name in prompt for name in names(thing.concept)), (sample.prompt, thing)


def test_counts_are_said_as_a_word_or_a_digit() -> None:
    for sample in samples("counting"):
        count = len(sample.scene.objects)
        words = re.findall(r"[a-z]+|\d", sample.prompt.lower())
        assert str(count) in words or NUMBERS[count] in words, sample.prompt


def test_mentioned_parts_are_in_the_prompt() -> None:
    for category in ("single", "binding", "words", "reasoning_seen"):
        for sample in samples(category):
            prompt = sample.prompt.lower()
            if "style" in sample.mentions:
                assert sample.scene.style in prompt
            if "background" in sample.mentions:
                assert all(colour in prompt for colour in sample.scene.background.colours)
            if "colour" in sample.mentions:
                assert all(str(thing.colour) in prompt for thing in sample.scene.objects)
            if "word" in sample.mentions:
                assert f'"{sample.scene.words[0].text}"' in sample.prompt


def test_style_and_background_are_silent_where_they_are_not_mentioned() -> None:
    for sample in samples("single"):
        prompt = sample.prompt.lower()
        assert "style" in sample.mentions or not re.search(r"\b(3d|flat)\b", prompt)
        assert "background" in sample.mentions or "background" not in prompt


def test_every_kind_of_prompt_has_at_least_eight_wordings() -> None:
    assert PHRASES.keys() == SENTENCES.keys()
    for shape in PHRASES:
        wordings = PHRASES[shape] + SENTENCES[shape]
        assert len(set(wordings)) == len(wordings) >= 8, shape


def test_the_canonical_caption_says_relation_background_and_style() -> None:
    scene = dataclasses.replace(
        PLAIN,
        background=Background("gradient", ("blue", "white")),
        objects=(Object("dog", 150, 90, 80), Object("cat", 20, 94, 80)),
    )
    expected = "a cat left of a dog on a gradient from blue to white from top to bottom in 3d style"
    assert canonical_caption(scene) == expected
    swapped = dataclasses.replace(scene, objects=scene.objects[::-1])
    assert canonical_caption(swapped) == expected


def test_the_canonical_caption_counts_places_and_colours() -> None:
    dogs = tuple(Object("dog", x, 100, 56) for x in (10, 90, 170))
    ground = "on a plain white background"
    assert canonical_caption(dataclasses.replace(PLAIN, objects=dogs)) == f"three dogs {ground} in 3d style"
    apple = dataclasses.replace(PLAIN, objects=(Object("apple", 8, 8, 80, "green"),))
    assert canonical_caption(apple) == f"a green apple in the top left corner {ground} in 3d style"
    natural = dataclasses.replace(PLAIN, objects=(Object("apple", 8, 8, 80),))
    assert "a red apple" in canonical_caption(natural)


def test_the_canonical_caption_quotes_words() -> None:
    scene = dataclasses.replace(PLAIN, words=(Word("CRAB", 40, 40, 28, "plain", "red"),))
    assert canonical_caption(scene) == 'the word "CRAB" in red on a plain white background'


@pytest.mark.parametrize(
    ("words", "expected"),
    [("owl", "an owl"), ("red owl", "a red owl"), ("unicorn", "a unicorn"), ("umbrella", "an umbrella")],
)
def test_articles_follow_the_sound(words: str, expected: str) -> None:
    assert article(words) == expected
