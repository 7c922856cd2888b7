"""The fixed test file: packaged, complete, from the test split, and the same as its generator's."""

import random
from collections import Counter
from pathlib import Path

import pytest

from deepgen.errors import InputError
from deepgen.world import testset
from deepgen.world.concepts import CONCEPTS
from deepgen.world.edits import EditSample
from deepgen.world.sampling import Sample, split_of
from deepgen.world.testset import (
    FIRST_TEST_FILE,
    TEST_CATEGORIES,
    TEST_FILE,
    load_items,
    make_test_file,
    packaged,
    select,
)


def test_a_written_file_reads_back_with_the_same_samples(tmp_path: Path) -> None:
    make_test_file(tmp_path / "a.jsonl", 2)
    make_test_file(tmp_path / "b.jsonl", 2)
    items, digest = load_items(tmp_path / "a.jsonl")
    again, same = load_items(tmp_path / "b.jsonl")
    assert (items, digest) == (again, same)
    assert Counter(item.category for item in items) == dict.fromkeys(TEST_CATEGORIES, 2)
    assert all(item.category.startswith("edit_") == isinstance(item.sample, EditSample) for item in items)


def test_a_prompt_that_is_drawn_twice_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, last = testset._draw_item, {}

    def stutter(rng: random.Random, category: str) -> Sample | EditSample:
        last[category] = (
            last.get(category) if rng.random() < 0.7 and category in last else draw(rng, category)
        )
        return last[category]

    monkeypatch.setattr(testset, "_draw_item", stutter)
    make_test_file(tmp_path / "a.jsonl", 5)
    items, _ = load_items(tmp_path / "a.jsonl")
    assert len({item.sample.key for item in items}) == len(items) == 5 * len(TEST_CATEGORIES)


@pytest.mark.parametrize(("name", "last"), [(TEST_FILE, None), (FIRST_TEST_FILE, -1)])
def test_a_packaged_file_has_fifty_different_prompts_of_each_category_all_held_out(
    name: str, last: int | None
) -> None:
    items, _ = load_items(packaged(name))
    assert Counter(item.category for item in items) == dict.fromkeys(TEST_CATEGORIES[:last], 50)
    assert len({item.id for item in items}) == len({item.sample.key for item in items}) == len(items)
    assert all(split_of(item.sample.key) == "test" for item in items)
    assert [item.number for item in items] == list(range(len(items)))
    assert {thing.concept for item in items for thing in item.shown.objects} <= set(CONCEPTS)


def test_selecting_takes_the_first_of_each_and_refuses_unknown_names() -> None:
    items, _ = load_items()
    some = select(items, ("two", "edit_add"), 3)
    assert [item.id for item in some] == [f"{c}-00{n}" for c in ("two", "edit_add") for n in range(3)]
    with pytest.raises(InputError, match="no category tow"):
        select(items, ("tow",), None)
