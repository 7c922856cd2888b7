import dataclasses
import json

import pytest

from deepgen.errors import DataError
from deepgen.world.scenes import (
    Background,
    Object,
    Scene,
    Word,
    check,
    overlap,
    position_of,
    relation_of,
    size_word,
)

SCENE = Scene(
    256,
    256,
    "3d",
    Background("gradient", ("blue", "white"), "horizontal"),
    (Object("apple", 10, 90, 80, "green"), Object("dog", 150, 95, 80)),
    (Word("HELLO", 60, 10, 28, "bold", "red"),),
)


def test_a_scene_goes_to_json_and_back_unchanged() -> None:
    assert Scene.from_json(json.loads(json.dumps(SCENE.to_json()))) == SCENE


def test_json_without_a_field_is_refused_by_name() -> None:
    data = SCENE.to_json()
    del data["objects"]
    with pytest.raises(DataError, match="objects"):
        Scene.from_json(data)


@pytest.mark.parametrize(
    "change",
    [
        {"style": "crayon"},
        {"background": Background("plain", ("mauve",))},
        {"background": Background("checker", ("red",))},
        {"objects": (Object("dog", 200, 10, 80),)},
        {"words": (Word("HELLO", 200, 10, 48),)},
        {"words": (Word("HI", 10, 10, 12),)},
    ],
)
def test_a_scene_that_cannot_be_drawn_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(DataError):
        check(dataclasses.replace(SCENE, **change))


def test_relations_are_named_only_where_they_are_clear() -> None:
    first, second = SCENE.objects
    assert relation_of(first, second, SCENE) == "left of"
    assert relation_of(second, first, SCENE) == "right of"
    diagonal = Object("cat", 150, 200, 56)
    assert relation_of(Object("dog", 10, 10, 56), diagonal, SCENE) is None
    assert relation_of(Object("dog", 150, 10, 56), diagonal, SCENE) == "above"


@pytest.mark.parametrize(
    ("x", "y", "position"),
    [(8, 8, "top left corner"), (88, 88, "centre"), (168, 88, "right side"), (88, 168, "bottom")],
)
def test_the_place_of_an_object_is_its_cell_of_the_grid(x: int, y: int, position: str) -> None:
    assert position_of(Object("dog", x, y, 80), SCENE) == position


def test_size_words_depend_on_the_shorter_side() -> None:
    small, middle, big = (size_word(Object("dog", 0, 0, size), SCENE) for size in (56, 156, 184))
    assert (small, middle, big) == ("small", None, "big")
    assert size_word(Object("dog", 0, 0, 156), dataclasses.replace(SCENE, width=192)) == "big"


def test_boxes_that_only_touch_do_not_overlap() -> None:
    assert not overlap((0, 0, 10, 10), (10, 0, 20, 10))
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10), gap=1)
    assert overlap((0, 0, 10, 10), (9, 9, 20, 20))
