"""The world's concepts and facts: complete, consistent, unambiguous."""

from typing import Any

import pytest

from deepgen.errors import DataError
from deepgen.world.colours import COLOURS
from deepgen.world.concepts import (
    CONCEPTS,
    PREDICATES,
    UNSEEN_SHARE,
    holds,
    is_unseen,
    parse_concepts,
    parse_predicates,
)


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "cat", "plural": "cats", "code": "1f408", "group": "animal"} | changes


def test_there_are_three_hundred_concepts_and_a_fifth_can_change_colour() -> None:
    assert len(CONCEPTS) >= 300
    coloured = [c for c in CONCEPTS.values() if c.colours]
    assert 50 <= len(coloured) <= 80
    assert all(len(c.colours) >= 3 for c in coloured)


def test_names_are_one_or_two_words_and_no_colour_names() -> None:
    for concept in CONCEPTS.values():
        assert len(concept.name.split()) <= 2
        assert concept.name not in COLOURS
        assert len(concept.synonyms) <= 3


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (entry(name="kitty", plural="kitties", code="1f408"), "code 1f408"),
        (entry(name="kitty", plural="kitties", code="1", synonyms=["cats"]), "'cats' belongs to both"),
        (entry(name="Kitty", plural="kitties", code="1"), "lower case"),
        (entry(name="kitty", plural="kitties", code="1", colours=["mauve"]), "mauve"),
        (entry(name="kitty", plural="kitties", code="1", natural="red"), "natural"),
        (entry(name="kitty", plural="kitties", code="1", sound="purr"), "sound"),
    ],
)
def test_bad_concepts_are_refused_with_the_reason(second: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_concepts([entry(), second])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"true": ["gremlin"]}, "gremlin"),
        ({"skip": ["cat"]}, "both true and skipped"),
        ({"true": ["cat", "cat"]}, "twice"),
        ({"note": "x"}, "note"),
    ],
)
def test_bad_facts_are_refused_with_the_reason(changes: dict[str, Any], message: str) -> None:
    row = {"id": "purr", "text": "can purr", "question": "Which can purr", "true": ["cat"]} | changes
    with pytest.raises(DataError, match=message):
        parse_predicates([row], parse_concepts([entry()]))


def test_every_predicate_has_enough_true_and_false_concepts() -> None:
    assert len(PREDICATES) >= 14
    for predicate in PREDICATES:
        answers = [holds(name, predicate) for name in CONCEPTS]
        assert answers.count(True) >= 3 and answers.count(False) >= 90


@pytest.mark.parametrize(
    ("concept", "predicate", "answer"),
    [
        ("owl", "fly", True),
        ("chair", "fly", False),
        ("penguin", "fly", False),
        ("ghost", "fly", None),
        ("umbrella", "dry", True),
        ("whale", "water", True),
        ("cat", "water", False),
    ],
)
def test_well_known_facts_hold(concept: str, predicate: str, answer: bool | None) -> None:
    assert holds(concept, predicate) is answer


def test_a_fifth_of_the_pairs_is_unseen_and_no_disputed_one() -> None:
    for truth in (True, False):
        for predicate in PREDICATES:
            names = [name for name in CONCEPTS if holds(name, predicate) is truth]
            unseen = sum(is_unseen(name, predicate) for name in names)
            assert unseen >= 1 and abs(unseen - UNSEEN_SHARE * len(names)) <= 0.7
    assert not any(is_unseen(n, p) for n in CONCEPTS for p in PREDICATES if holds(n, p) is None)


def test_unseen_pairs_stay_the_same_from_release_to_release() -> None:
    known = {"fly": {"bat", "butterfly", "airplane"}, "drink": {"soda"}, "cut": {"saw"}}
    for predicate, names in known.items():
        assert {n for n in CONCEPTS if holds(n, predicate) and is_unseen(n, predicate)} == names


def test_unknown_names_are_errors() -> None:
    with pytest.raises(KeyError):
        holds("gremlin", "fly")
    with pytest.raises(KeyError):
        is_unseen("cat", "gremlin")
