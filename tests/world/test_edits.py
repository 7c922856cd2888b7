import random

import numpy as np
import pytest

from deepgen.errors import InputError
from deepgen.world.concepts import CONCEPTS, PREDICATES, holds, is_unseen
from deepgen.world.draw import draw
from deepgen.world.edits import EDIT_KINDS, make_edit, region_mask
from deepgen.world.instructions import TEMPLATES
from deepgen.world.sampling import draw_edit, split_of
from deepgen.world.scenes import check, overlap, relation_of
from deepgen.world.sprites import Sprites

SPRITES = Sprites.procedural()


@pytest.mark.parametrize("kind", EDIT_KINDS)
def test_an_edit_changes_something_and_nothing_outside_its_region(kind: str) -> None:
    rng = random.Random(1)
    for _ in range(25):
        edit = draw_edit(rng, "test", (kind,))
        check(edit.source)
        check(edit.target)
        source, target = draw(edit.source, SPRITES), draw(edit.target, SPRITES)
        assert (source != target).any()
        outside = ~region_mask(edit)
        np.testing.assert_array_equal(source[outside], target[outside])
        assert 1 <= len(edit.source.objects) <= 3 and "{" not in edit.instruction
        boxes = [thing.box for thing in edit.target.objects]
        assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    ("kind", "more", "gone"),
    [("add", 1, 0), ("remove", 0, 1), ("replace", 1, 1), ("recolour", 1, 1), ("move", 1, 1)],
)
def test_one_object_is_touched_and_the_others_are_not(kind: str, more: int, gone: int) -> None:
    rng = random.Random(2)
    for _ in range(60):
        edit = make_edit(rng, kind, "train")
        before, after = set(edit.source.objects), set(edit.target.objects)
        assert (len(after - before), len(before - after)) == (more, gone)
        assert edit.source.background == edit.target.background and edit.source.style == edit.target.style


def test_a_recoloured_object_keeps_its_place_and_shows_another_colour() -> None:
    rng = random.Random(3)
    for _ in range(40):
        edit = make_edit(rng, "recolour", "train")
        (old,) = set(edit.source.objects) - set(edit.target.objects)
        (new,) = set(edit.target.objects) - set(edit.source.objects)
        assert (old.concept, old.box) == (new.concept, new.box)
        assert new.colour in edit.instruction.lower()
        sprites = [SPRITES.get(thing.concept, "3d", thing.colour, 44) for thing in (old, new)]
        assert (sprites[0] != sprites[1]).any()


def test_things_added_beside_another_stand_where_the_instruction_says() -> None:
    rng = random.Random(4)
    found = 0
    for _ in range(200):
        edit = make_edit(rng, "add", "train")
        words = edit.instruction.lower()
        if len(edit.source.objects) == 1 and "to the left of" in words:
            new, old = edit.target.objects
            assert relation_of(new, old, edit.target) == "left of"
            found += 1
    assert found > 3


def test_reasoning_edits_have_exactly_one_answer_and_keep_to_their_facts() -> None:
    rng = random.Random(5)
    texts = {predicate.text: name for name, predicate in PREDICATES.items()}
    for kind, split, unseen in (("reasoning_seen", "train", False), ("reasoning_unseen", "test", True)):
        for _ in range(60):
            edit = make_edit(rng, kind, split)
            fact = texts[max((text for text in texts if text in edit.instruction), key=len)]
            concepts = {thing.concept for thing in (*edit.source.objects, *edit.target.objects)}
            assert all(is_unseen(name, fact) is unseen for name in concepts)
            right = [thing for thing in edit.source.objects if holds(thing.concept, fact)]
            assert len(right) == 1 and right[0] not in edit.target.objects


def test_edits_keep_to_their_split_and_seed() -> None:
    first, second = random.Random(6), random.Random(6)
    edits = [draw_edit(first, split) for split in ("train", "test") * 30]
    assert edits == [draw_edit(second, split) for split in ("train", "test") * 30]
    assert all(split_of(edit.key) == edit.split for edit in edits)


def test_every_edit_has_at_least_six_wordings() -> None:
    assert all(len(set(wordings)) >= 6 for wordings in TEMPLATES.values())


def test_unknown_kinds_and_unseen_facts_in_training_are_refused() -> None:
    with pytest.raises(InputError, match="unknown kind"):
        draw_edit(random.Random(0), "train", ("rotate",))
    with pytest.raises(InputError, match="test split"):
        draw_edit(random.Random(0), "train", ("reasoning_unseen",))


def test_an_insert_adds_the_object_of_the_first_picture_to_the_second_without_naming_it() -> None:
    rng = random.Random(7)
    sizes = set()
    for _ in range(200):
        edit = make_edit(rng, "insert", "train")
        shown, source = edit.pictures
        (thing,) = shown.objects
        (new,) = set(edit.target.objects) - set(source.objects)
        assert (new.concept, new.colour) == (thing.concept, thing.colour)
        assert set(source.objects) < set(edit.target.objects) and source.background == edit.target.background
        frames = {(scene.width, scene.height, scene.style) for scene in (shown, source, edit.target)}
        assert len(frames) == 1
        sizes |= {scene.width for scene in edit.pictures}
        names = {new.concept, *CONCEPTS[new.concept].synonyms}
        if all(thing.concept != new.concept for thing in source.objects):
            words = f" {edit.instruction.lower().rstrip('.')} ".replace(",", "")
            assert not any(f" {name} " in words for name in names), edit.instruction
        assert any(word in edit.instruction.lower() for word in ("picture", "image"))
    assert len(sizes) > 3


def test_an_insert_without_a_place_may_use_the_whole_free_side() -> None:
    rng = random.Random(8)
    found = [e for e in (make_edit(rng, "insert", "train") for _ in range(120)) if " anywhere|" in e.key]
    assert len(found) > 10
    for edit in found:
        (region,) = edit.region
        (old,) = edit.source.objects
        new = edit.target.objects[0]
        assert not overlap(region, old.box) and overlap(region, new.box)
        width, height = region[2] - region[0], region[3] - region[1]
        assert width == edit.source.width or height == edit.source.height
