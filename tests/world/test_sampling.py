import hashlib
import random
import re

import pytest

from deepgen.errors import InputError
from deepgen.world.concepts import holds, is_unseen
from deepgen.world.layout import lay_out
from deepgen.world.plans import CATEGORIES, PREDICATE_IDS, Plan, make_plan
from deepgen.world.sampling import draw_sample, sample_scene, split_of
from deepgen.world.scenes import check, overlap, position_of, relation_of, size_word

COUNTS = {
    "single": {1},
    "two": {2},
    "counting": {1, 2, 3, 4, 5},
    "colours": {1},
    "position": {1},
    "binding": {2},
}


def test_equal_seeds_give_equal_samples() -> None:
    first, second = random.Random(3), random.Random(3)
    assert [draw_sample(first) for _ in range(50)] == [draw_sample(second) for _ in range(50)]


@pytest.mark.parametrize("category", CATEGORIES)
def test_scenes_of_every_category_stay_inside_and_their_objects_apart(category: str) -> None:
    rng = random.Random(1)
    for _ in range(60):
        scene = sample_scene(rng, category, "test")
        check(scene)
        boxes = [thing.box for thing in scene.things]
        assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert len(scene.objects) in COUNTS.get(category, {0, 1, 2})


def test_relations_positions_and_sizes_are_drawn_as_the_plan_says() -> None:
    rng = random.Random(2)
    for _ in range(300):
        plan = make_plan(rng, rng.choice(("two", "binding", "position", "size")), "train")
        scene = lay_out(rng, plan)
        if plan.relation:
            assert relation_of(*scene.objects, scene, least=0.25) == plan.relation
        if plan.position:
            assert position_of(scene.objects[0], scene) == plan.position
        if plan.category == "size" and len(plan.items) == 1:
            assert size_word(scene.objects[0], scene) == plan.items[0].size
        if plan.category == "size" and len(plan.items) == 2:
            big, small = sorted(zip(plan.items, scene.objects, strict=True), key=lambda pair: -pair[1].size)
            assert (big[0].size, small[0].size) == ("big", "small") and big[1].size >= 1.3 * small[1].size


def test_no_prompt_and_no_key_is_in_both_splits() -> None:
    rng = random.Random(4)
    prompts: dict[str, str] = {}
    for number in range(6000):
        sample = draw_sample(rng, "test" if number % 3 == 0 else "train")
        assert split_of(sample.key) == sample.split
        words = re.sub(r"^an? |\.$", "", sample.prompt.lower())
        assert prompts.setdefault(words, sample.split) == sample.split, words


def test_one_key_in_twenty_is_for_testing() -> None:
    keys = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(4000)]
    assert 0.035 < sum(split_of(key) == "test" for key in keys) / 4000 < 0.065


def test_a_relation_said_from_the_other_side_has_the_same_key() -> None:
    rng = random.Random(5)
    plan = make_plan(rng, "two", "train")
    inverse = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    assert plan.relation is not None
    values = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    turned = Plan(**{**values, "items": plan.items[::-1], "relation": inverse[plan.relation]})
    assert turned.key() == plan.key()
    assert Plan(**{**values, "items": plan.items[::-1]}).key() != plan.key()


def test_unseen_facts_are_only_in_the_tests_of_unseen_facts() -> None:
    rng = random.Random(6)
    assert len(PREDICATE_IDS) >= 12
    for category, split, unseen in (
        ("reasoning_seen", "train", False),
        ("reasoning_seen", "test", False),
        ("reasoning_unseen", "test", True),
    ):
        for _ in range(150):
            plan = make_plan(rng, category, split)
            right = plan.items[0].concept
            assert holds(right, str(plan.predicate)) is True
            assert holds(str(plan.wrong), str(plan.predicate)) is False
            assert is_unseen(right, str(plan.predicate)) is unseen
            assert is_unseen(str(plan.wrong), str(plan.predicate)) is unseen


def test_unseen_facts_cannot_be_asked_for_in_training() -> None:
    with pytest.raises(InputError, match="test split"):
        draw_sample(random.Random(0), "train", ("reasoning_unseen",))


@pytest.mark.parametrize(("split", "categories"), [("dev", None), ("train", ("animals",))])
def test_unknown_splits_and_categories_are_refused(split: str, categories: tuple[str, ...] | None) -> None:
    with pytest.raises(InputError, match="unknown"):
        draw_sample(random.Random(0), split, categories)


def test_about_a_fifth_of_the_pictures_is_not_square() -> None:
    rng = random.Random(7)
    scenes = [draw_sample(rng).scene for _ in range(1500)]
    assert 0.15 < sum(scene.width != scene.height for scene in scenes) / 1500 < 0.25
    assert all(scene.width % 32 == 0 and scene.height % 32 == 0 for scene in scenes)
