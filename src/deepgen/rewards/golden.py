"""Pictures that every reward must tell apart, to see before a run that each of its rewards works.

`golden/*.webp` are drawings of the picture world (an apple; one with OPEN below it; something else altogether), made of
sprites under the MIT licence; see docs/licences.md.
"""

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from deepgen.rewards.protocol import NOT_ASKED, Picture, Reward, RewardInput, RewardUnavailable, Score
from deepgen.world.edits import EditSample
from deepgen.world.scenes import Object, Scene
from deepgen.world.testset import row_of

PROMPT = 'an apple with the word "OPEN" below it'
INSTRUCTION = "add an apple"
APPLE = Object("apple", 71, 25, 112)
"""Where it is in the pictures."""


@dataclass(frozen=True)
class Check:
    """What a reward said of the right and the wrong picture for a prompt, and the right and the wrong edit."""

    name: str
    scores: tuple[Score, Score, Score, Score]
    problem: str

    @property
    def passed(self) -> bool:
        return not self.problem


def golden_inputs() -> list[RewardInput]:
    """Right picture, wrong picture, right edit, wrong edit; the edits, of an empty picture, with their row of the
    world."""
    apple, apple_open, other = (_picture(name) for name in ("apple", "apple_open", "other"))
    drawn = [RewardInput(one, PROMPT, "golden picture", family="t2i") for one in (apple_open, other)]
    height, width, _ = apple.shape
    empty = Scene(width, height, "3d")
    asked = replace(empty, objects=(APPLE,))
    row = row_of(EditSample("add", INSTRUCTION, empty, asked, (APPLE.box,), "train", "golden"))
    edited = [
        RewardInput(
            one, INSTRUCTION, "golden edit", (np.full_like(apple, 255),), {"world": row}, "edit", apple
        )
        for one in (apple, other)
    ]
    return [*drawn, *edited]


def check_reward(reward: Reward, ordered: bool = True) -> Check:
    """Score the golden pictures once. ordered: the right one must score higher, wherever both have a value.

    Raises RewardError where the reward cannot work at all.
    """
    try:
        right, wrong, right_edit, wrong_edit = reward(golden_inputs())
    except RewardUnavailable as error:
        return Check(reward.name, (NOT_ASKED,) * 4, str(error))
    scores = (right, wrong, right_edit, wrong_edit)
    failed = next((score for score in scores if score.failed), None)
    if failed is not None:
        return Check(reward.name, scores, failed.reason)
    pairs = [
        (a.value, b.value)
        for a, b in ((right, wrong), (right_edit, wrong_edit))
        if a.value is not None and b.value is not None
    ]
    if not pairs:
        return Check(reward.name, scores, f"has no value for either prompt: {scores[-1].reason}")
    if ordered and any(a <= b for a, b in pairs):
        return Check(reward.name, scores, "does not prefer the right picture to the wrong one")
    return Check(reward.name, scores, "")


def _picture(name: str) -> Picture:
    path = Path(str(resources.files("deepgen.rewards"))) / "golden" / f"{name}.webp"
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))
