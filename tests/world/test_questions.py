import random
import re

import pytest

from deepgen.errors import InputError
from deepgen.world.captions import canonical_caption
from deepgen.world.concepts import CONCEPTS, PREDICATES, holds, is_unseen
from deepgen.world.questions import DIALOGUE_KINDS, Dialogue, sample_dialogue
from deepgen.world.wordings import NUMBERS


def dialogues(kind: str, count: int = 300) -> list[Dialogue]:
    rng = random.Random(1)
    return [sample_dialogue(rng, "train", (kind,)) for _ in range(count)]


@pytest.mark.parametrize("kind", DIALOGUE_KINDS)
def test_every_kind_asks_and_answers(kind: str) -> None:
    for dialogue in dialogues(kind, 100):
        assert dialogue.question[-1] in "?." and dialogue.answer and dialogue.kind == kind
        assert (dialogue.scene is not None) == (kind in ("describe", "picture", "edit_picture"))
        assert "None" not in dialogue.answer + dialogue.question


def test_equal_seeds_give_equal_dialogues() -> None:
    first, second = random.Random(2), random.Random(2)
    assert [sample_dialogue(first) for _ in range(80)] == [sample_dialogue(second) for _ in range(80)]


def test_answers_about_counts_and_colours_are_true_of_the_picture() -> None:
    counted = coloured = 0
    for dialogue in dialogues("picture", 600):
        assert dialogue.scene is not None
        things = dialogue.scene.objects
        if dialogue.question == "How many things are there?":
            assert dialogue.answer == NUMBERS[len(things)]
            counted += 1
        match = re.match(r"What colour is the (.*)\?", dialogue.question)
        if match:
            (thing,) = (thing for thing in things if thing.concept == match[1])
            assert dialogue.answer == (thing.colour or CONCEPTS[thing.concept].natural)
            coloured += 1
    assert counted > 5 and coloured > 5


def test_relations_asked_of_a_picture_agree_with_its_canonical_caption() -> None:
    checked = 0
    for dialogue in dialogues("picture", 900):
        match = re.match(r"(left of|right of|above|below) the (.*)", dialogue.answer)
        if match and "Where is the word" not in dialogue.question and dialogue.scene:
            name = re.match(r"Where is the (.*)\?", dialogue.question)
            assert name
            caption = canonical_caption(dialogue.scene)
            first, second = (name[1], match[2]) if match[1] in ("left of", "above") else (match[2], name[1])
            assert caption.index(first) < caption.rindex(second)
            checked += 1
    assert checked > 5


def test_spelling_is_right() -> None:
    checked = 0
    for dialogue in dialogues("spelling"):
        match = re.match(r'Spell the word "(\w+)"', dialogue.question)
        if match:
            assert dialogue.answer == f'"{" ".join(match[1])}"'
            checked += 1
    assert checked > 10


def test_facts_are_answered_as_the_tables_say_and_include_unseen_ones() -> None:
    questions = {predicate.question: name for name, predicate in PREDICATES.items()}
    names = {word: entry.name for entry in CONCEPTS.values() for word in (entry.name, *entry.synonyms)}
    unseen = 0
    for dialogue in dialogues("facts", 800):
        start, _, rest = dialogue.question.partition(", ")
        if start not in questions:
            continue
        fact = questions[start]
        choices = [re.sub(r"^(an?|a pair of) ", "", part) for part in rest.rstrip("?").split(" or ")]
        true = [names[choice] for choice in choices if holds(names[choice], fact)]
        assert len(true) == 1 and dialogue.answer.endswith(true[0])
        unseen += is_unseen(true[0], fact)
    assert unseen > 5


def test_the_result_of_an_edit_is_another_caption() -> None:
    for dialogue in dialogues("edit_caption", 100):
        assert f"Picture: {dialogue.answer}." not in dialogue.question


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="unknown kind"):
        sample_dialogue(random.Random(0), "train", ("riddle",))
