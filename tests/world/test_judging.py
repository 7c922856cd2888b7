"""The rules of judging: the truth is always right, and everything that a prompt asks can be got wrong."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from deepgen.world.detector import Detection, colour_of
from deepgen.world.draw import draw
from deepgen.world.edits import EditSample
from deepgen.world.judging import (
    Reading,
    Seen,
    judge_edit,
    judge_ink,
    judge_sample,
    measure_detector,
    untouched_psnr,
)
from deepgen.world.sampling import CATEGORIES, EDIT_KINDS, Sample, draw_edit, draw_sample
from deepgen.world.scenes import Background, Object, Scene
from deepgen.world.sprites import Sprites


def truth(scene: Scene) -> Seen:
    """What a perfect detector and reader find in a drawing of the scene."""
    found = [Detection(o.concept, o.box, 0.99, colour_of(o), scene.style, 0.99) for o in scene.objects]
    return Seen(tuple(found[::-1]), scene.background, tuple(Reading(w.text, w.box) for w in scene.words))


def samples(category: str, count: int = 25) -> list[Sample]:
    rng = random.Random(category)
    return [draw_sample(rng, "test", (category,)) for _ in range(count)]


def edits(kind: str, count: int = 25) -> list[EditSample]:
    rng = random.Random(kind)
    return [draw_edit(rng, "test", (kind,)) for _ in range(count)]


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_truth_of_every_sample_is_right(category: str) -> None:
    assert [judge_sample(s, truth(s.scene)) for s in samples(category)] == [[]] * 25


@pytest.mark.parametrize("kind", EDIT_KINDS)
def test_the_truth_of_every_edit_is_right_and_its_source_is_wrong(kind: str) -> None:
    for edit in edits(kind):
        assert judge_edit(edit, truth(edit.target)) == []
        assert judge_edit(edit, truth(edit.source)), edit.instruction


def changed(seen: Seen, at: int = 0, **values: object) -> Seen:
    """The same with other values in one detection."""
    found = list(seen.detections)
    found[at] = replace(found[at], **values)
    return replace(seen, detections=tuple(found))


def mirrored(seen: Seen, scene: Scene) -> Seen:
    """Everything turned by half a circle about the picture's centre."""
    w, h = scene.width, scene.height
    turn = [replace(d, box=(w - d.box[2], h - d.box[3], w - d.box[0], h - d.box[1])) for d in seen.detections]
    return replace(seen, detections=tuple(turn))


def test_an_insert_is_wrong_in_another_colour_style_or_place_and_right_anywhere_if_none_is_asked() -> None:
    placed = 0
    for edit in edits("insert", 60):
        seen, new = truth(edit.target), edit.target.objects[0]
        at = next(i for i, d in enumerate(seen.detections) if d.box == new.box)
        assert judge_edit(edit, changed(seen, at, colour="no colour"))
        assert judge_edit(edit, changed(seen, at, style="other"))
        other = (edit.source.width - new.box[2], edit.source.height - new.box[3])
        moved = changed(seen, at, box=(*other, other[0] + new.size, other[1] + new.size))
        if " anywhere|" in edit.key:
            assert judge_edit(edit, moved) == []
        elif (
            abs(new.centre[0] / edit.source.width - 0.5) + abs(new.centre[1] / edit.source.height - 0.5) > 0.2
        ):
            placed += 1
            assert judge_edit(edit, moved), edit.instruction
    assert placed > 20


STRAY = Detection("dog", (0, 0, 44, 44), 0.6, None, "3d", 0.2)
Corruption = Callable[[Seen, Scene], Seen]
ALWAYS_WRONG: dict[str, Corruption] = {
    "an object is missing": lambda seen, _: replace(seen, detections=seen.detections[1:]),
    "something unclear is added": lambda seen, _: replace(seen, detections=(*seen.detections, STRAY)),
    "an object is another": lambda seen, _: changed(seen, concept="none of them"),
    "an object has no clear name": lambda seen, _: changed(seen, certainty=0.4),
}
WRONG_WHEN_ASKED: dict[str, tuple[str, Corruption]] = {
    "colour": ("colours", lambda seen, _: changed(seen, colour="no colour")),
    "relation": ("two", mirrored),
    "background": ("background", lambda seen, _: replace(seen, background=Background("plain", ("nothing",)))),
    "style": ("single", lambda seen, _: changed(seen, style="other")),
    "count": ("counting", lambda seen, _: replace(seen, detections=seen.detections * 2)),
    "word": ("words", lambda seen, _: replace(seen, readings=(Reading("wrong", (0, 0, 9, 9)),))),
}


@pytest.mark.parametrize("name", ALWAYS_WRONG)
@pytest.mark.parametrize("category", ["single", "two", "counting", "binding", "reasoning_seen"])
def test_a_picture_is_wrong_when(name: str, category: str) -> None:
    for sample in samples(category):
        assert judge_sample(sample, ALWAYS_WRONG[name](truth(sample.scene), sample.scene))


@pytest.mark.parametrize("mention", WRONG_WHEN_ASKED)
def test_what_the_prompt_states_must_hold_and_the_rest_is_free(mention: str) -> None:
    category, corrupt = WRONG_WHEN_ASKED[mention]
    for sample in samples(category):
        asked = replace(sample, mentions=sample.mentions | {mention})
        assert judge_sample(asked, corrupt(truth(sample.scene), sample.scene))
        if mention != "count":  # the number of things is never free
            free = replace(sample, mentions=sample.mentions - {mention})
            assert judge_sample(free, corrupt(truth(sample.scene), sample.scene)) == []


def test_a_thing_in_another_ninth_of_the_picture_is_wrong() -> None:
    for sample in samples("position"):
        moved = mirrored(truth(sample.scene), sample.scene)
        x, y = sample.scene.objects[0].centre
        central = abs(x / sample.scene.width - 0.5) < 0.12 and abs(y / sample.scene.height - 0.5) < 0.12
        assert bool(judge_sample(sample, moved)) is not central


def test_big_and_small_exchanged_are_wrong() -> None:
    pairs = [s for s in samples("size", 60) if len(s.scene.objects) == 2]
    assert len(pairs) > 10
    for sample in pairs:
        first, second = truth(sample.scene).detections
        swapped = replace(
            truth(sample.scene), detections=(replace(first, box=second.box), replace(second, box=first.box))
        )
        assert judge_sample(sample, swapped)


def test_letters_in_another_colour_are_wrong() -> None:
    asked = [s for s in samples("words", 60) if "word_colour" in s.mentions]
    assert len(asked) > 8
    other = {"black": "red", "dark blue": "red", "white": "red"}
    for sample in asked:
        word = sample.scene.words[0]
        picture = draw(sample.scene, Sprites.procedural())
        assert judge_ink(sample, truth(sample.scene), picture) == []
        repainted = replace(word, colour=other.get(word.colour, "black"))
        wrong = draw(replace(sample.scene, words=(repainted,)), Sprites.procedural())
        if word.colour not in sample.scene.background.colours:
            assert judge_ink(sample, truth(sample.scene), wrong)


@pytest.mark.parametrize("kind", ["recolour", "background", "style", "resize"])
def test_an_edit_that_loses_or_displaces_what_it_should_keep_is_wrong(kind: str) -> None:
    for edit in edits(kind):
        seen = truth(edit.target)
        assert judge_edit(edit, replace(seen, detections=seen.detections[1:]))
        assert judge_edit(edit, replace(seen, detections=(*seen.detections, STRAY)))
        left, top, right, bottom = seen.detections[0].box
        half = (right - left) / 2
        assert judge_edit(edit, changed(seen, box=(left + half, top, right + half, bottom)))


def test_a_kept_thing_that_changes_its_colour_makes_an_edit_wrong() -> None:
    for edit in edits("background"):
        assert judge_edit(edit, changed(truth(edit.target), colour="no colour"))


def test_an_added_thing_may_stand_anywhere_that_the_relation_allows() -> None:
    for edit in edits("add", 60):
        if " left of " not in edit.key:
            continue
        new = next(o for o in edit.target.objects if o not in edit.source.objects)
        at = next(i for i, d in enumerate(truth(edit.target).detections) if d.concept == new.concept)
        left, top, right, bottom = new.box
        nearer = changed(truth(edit.target), at, box=(left + 6, top + 12, right + 6, bottom + 12))
        assert judge_edit(edit, nearer) == []
        return
    pytest.fail("no sample with the relation")


def test_psnr_looks_only_outside_the_region_and_has_its_textbook_value() -> None:
    edit = edits("remove")[0]
    source = np.full((edit.source.height, edit.source.width, 3), 100, np.uint8)
    result = source.copy()
    left, top, right, bottom = edit.region[0]
    result[top:bottom, left:right] = 200
    assert untouched_psnr(edit, source, result) == 100
    result[:] = np.where(result == 100, 110, result)
    assert untouched_psnr(edit, source, result) == pytest.approx(20 * np.log10(255 / 10))
    assert untouched_psnr(edits("style")[0], source, result) is None


class FixedDetector:
    """Answers with given detections, batch after batch."""

    device = "cpu"

    def __init__(self, answers: list[list[Detection]]) -> None:
        self.answers = answers

    def detect(self, pictures: object, threshold: float) -> list[list[Detection]]:
        return self.answers


def test_detector_metrics_count_hits_misses_and_inventions() -> None:
    scene = Scene(256, 256, "3d", objects=(Object("dog", 0, 0, 96), Object("cat", 128, 128, 96)))
    picture = np.full((256, 256, 3), 255, np.uint8)
    dog, cat = truth(scene).detections[::-1]
    answers = [[dog, cat], [dog], [dog, cat, STRAY], [replace(dog, style="flat", colour="blue"), cat]]
    metrics = measure_detector(FixedDetector(answers), [picture] * 4, [scene] * 4)  # type: ignore[arg-type]
    assert (metrics.recall, metrics.precision) == (7 / 8, 7 / 8)
    assert (metrics.colour, metrics.style) == (6 / 7, 6 / 7)
    assert (metrics.scene, metrics.background, metrics.pictures) == (0.5, 1.0, 4)
