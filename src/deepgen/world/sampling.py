"""Samples: a prompt and the scene it asks for, in two splits that share no prompt."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from deepgen.errors import InputError
from deepgen.world.captions import caption, choose_template, key_of
from deepgen.world.edits import EDIT_KINDS, EDIT_WEIGHTS, EditSample, make_edit
from deepgen.world.layout import lay_out
from deepgen.world.plans import CATEGORIES, SPLITS, WEIGHTS, Plan, make_plan
from deepgen.world.scenes import Scene

__all__ = [
    "CATEGORIES",
    "EDIT_KINDS",
    "EditSample",
    "Sample",
    "draw_edit",
    "draw_sample",
    "kinds_of",
    "sample_scene",
    "split_of",
]

TEST_EVERY = 20


@dataclass(frozen=True, slots=True)
class Sample:
    """`mentions`: what the prompt states of the scene (objects, count, colour, relation, position, size,
    background, style, word, word_colour); the rest is free. `key` is what `split_of` hashed."""

    category: str
    prompt: str
    scene: Scene
    mentions: frozenset[str]
    split: str
    key: str


def kinds_of(task: str, split: str) -> tuple[str, ...]:
    """The categories (of "t2i") or edits that a split has: facts that pictures are never trained on are tested only."""
    known = EDIT_KINDS if task == "edit" else CATEGORIES
    return tuple(kind for kind in known if split == "test" or kind != "reasoning_unseen")


def split_of(key: str) -> str:
    """`test` for one key in twenty, by its sha256, else `train`."""
    digest = hashlib.sha256(key.encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % TEST_EVERY == 0 else "train"


def draw_plan(
    rng: random.Random, split: str = "train", categories: Sequence[str] | None = None
) -> tuple[Plan, int]:
    """What one sample asks for, and the number of its wording; see `draw_sample`."""
    _check_split(split)
    category = rng.choice(categories) if categories else rng.choices(CATEGORIES, tuple(WEIGHTS.values()))[0]
    while True:
        plan = make_plan(rng, category, split)
        template = choose_template(rng, plan)
        if split_of(key_of(plan, template)) == split:
            return plan, template


def draw_sample(rng: random.Random, split: str = "train", categories: Sequence[str] | None = None) -> Sample:
    """One sample; equal generators give equal samples.

    `categories` limits the draw to some of CATEGORIES (all equally often); by default they come as often as
    WEIGHTS says. Raises InputError for an unknown split or category.
    """
    return sample_of(rng, *draw_plan(rng, split, categories), split)


def sample_of(rng: random.Random, plan: Plan, template: int, split: str) -> Sample:
    """The sample that asks for a plan of that split, with one of its captions and layouts."""
    prompt = caption(rng, plan, template)
    key = key_of(plan, template)
    return Sample(plan.category, prompt, lay_out(rng, plan), plan.mentions, split, key)


def sample_scene(rng: random.Random, category: str, split: str = "train") -> Scene:
    """The scene alone."""
    return draw_sample(rng, split, (category,)).scene


def draw_edit(rng: random.Random, split: str = "train", kinds: Sequence[str] | None = None) -> EditSample:
    """One edit: source, instruction, target. `kinds` limits the draw to some of EDIT_KINDS, all equally
    often."""
    _check_split(split)
    kind = rng.choice(kinds) if kinds else rng.choices(EDIT_KINDS, tuple(EDIT_WEIGHTS.values()))[0]
    while True:
        edit = make_edit(rng, kind, split)
        if split_of(edit.key) == split:
            return edit


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; choose train or test")
