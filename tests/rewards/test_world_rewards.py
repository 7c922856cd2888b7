"""The rewards of the picture world: what they make of perfect and of faulty sight, and their networks on disk."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from deepgen.checkpoints.towers import load_tokenizer
from deepgen.errors import CheckpointError, RewardError
from deepgen.pipeline.shipped import weights_root
from deepgen.rewards import RewardInput
from deepgen.rewards.trained import in_batches, load_trained
from deepgen.rewards.world_clip import WorldClip
from deepgen.rewards.world_detector import WorldDetector, edit_value, sample_value
from deepgen.rewards.world_text import WorldText, text_value
from deepgen.world.detector import Detector
from deepgen.world.draw import draw
from deepgen.world.dual_encoder import DualEncoder, caption_ids
from deepgen.world.judging import truth_of
from deepgen.world.reader import Reader
from deepgen.world.sampling import CATEGORIES, draw_edit, draw_sample
from deepgen.world.sprites import Sprites
from deepgen.world.testset import row_of, sample_of

SPRITES = Sprites.procedural()


def seen_of(scene, **changes):
    """Perfect sight, with the detections at some places changed or, where None, left out."""
    seen = truth_of(scene)
    found = [
        replace(one, **changes.get(f"at{place}", {}))
        for place, one in enumerate(seen.detections)
        if changes.get(f"at{place}", {}) is not None
    ]
    return replace(seen, detections=(*found, *changes.get("more", ())))


@pytest.mark.parametrize(
    ("wanted", "read", "value"),
    [
        ("OPEN", "OPEN", 1.0),
        ("OPEN", "OPN", 0.75 * 3 / 4),
        ("OPEN", "OPENED", 0.75 * 4 / 6),
        ("Open", "OPEN", 0.75 * 1 / 4),
        ("OPEN", "", 0.0),
    ],
)
def test_a_word_is_worth_its_right_letters_and_a_bonus(wanted, read, value):
    assert text_value(wanted, read) == pytest.approx(value)


@pytest.mark.parametrize("category", [name for name in CATEGORIES if name != "words"])
def test_the_truth_has_full_value(category):
    rng = random.Random(category)
    for _ in range(10):
        sample = draw_sample(rng, "test", (category,))
        assert sample_value(sample, truth_of(sample.scene)) == 1


def one(category, wants):
    """A sample of a category whose prompt states just this."""
    rng = random.Random(f"{category}/{sorted(wants)}")
    while (sample := draw_sample(rng, "train", (category,))).mentions != wants:
        pass
    return sample


def test_counts_are_graded_and_more_costs_as_well():
    sample = one("counting", {"objects", "count"})
    while len(sample.scene.objects) != 4:
        sample = draw_sample(random.Random(repr(sample)), "train", ("counting",))
    sample = replace(sample, mentions=frozenset({"objects", "count"}))
    scene, thing = sample.scene, truth_of(sample.scene).detections[0]
    assert sample_value(sample, seen_of(scene, at0=None)) == pytest.approx(3 / 4)
    assert sample_value(sample, seen_of(scene, more=(thing,))) == pytest.approx(4 / 5)
    assert sample_value(sample, seen_of(scene, at0={"score": 0.8, "certainty": 0.5})) == pytest.approx(
        3.4 / 4
    )
    assert sample_value(sample, seen_of(scene, at0={"certainty": 0.4})) == pytest.approx(3 / 5)


def test_half_of_a_binding_is_half_of_its_colours():
    sample = one("binding", {"objects", "colour"})
    first, second = (d.colour for d in truth_of(sample.scene).detections)
    assert sample_value(sample, seen_of(sample.scene, at0={"colour": None})) == pytest.approx((1 + 0.5) / 2)
    swapped = seen_of(sample.scene, at0={"colour": second}, at1={"colour": first})
    assert sample_value(sample, swapped) == pytest.approx((1 + 0) / 2)
    gone = seen_of(sample.scene, at1=None)
    assert sample_value(sample, gone) == pytest.approx((0.5 + 0.5) / 2)


def test_a_relation_is_wrong_where_the_things_are_and_an_empty_picture_has_no_style():
    sample = one("two", {"objects", "relation"})
    assert sample_value(sample, seen_of(sample.scene, at0=None)) == pytest.approx((1 / 2 + 0) / 2)
    styled = one("single", {"objects", "style"})
    assert sample_value(styled, seen_of(styled.scene, at0=None)) == 0
    other = "other style"
    assert sample_value(styled, seen_of(styled.scene, at0={"style": other})) == pytest.approx(1 / 2)


def test_an_edit_is_worth_what_it_did_times_what_it_left_alone():
    edit = draw_edit(random.Random(3), "train", ("recolour",))
    source, target = draw(edit.source, SPRITES), draw(edit.target, SPRITES)

    def value(picture, scene=edit.target):
        return edit_value(edit, truth_of(scene), RewardInput(picture, edit.instruction, "g", (source,)))

    assert value(target) == 1
    assert value(source, edit.source) == pytest.approx(1 / 2)
    shifted = np.where(target > 127, target - 10, target + 10).astype(np.uint8)
    assert value(shifted) == pytest.approx(math.exp(-200 * (10 / 255) ** 2))


def test_what_is_left_alone_is_of_the_last_picture_that_an_edit_is_shown():
    edit = draw_edit(random.Random(1), "train", ("insert",))
    references = tuple(draw(scene, SPRITES) for scene in edit.pictures)
    assert len(references) == 2
    target = draw(edit.target, SPRITES)
    right = RewardInput(target, edit.instruction, "g", references)
    assert edit_value(edit, truth_of(edit.target), right) == 1
    turned = replace(right, references=references[::-1])
    assert edit_value(edit, truth_of(edit.target), turned) < 0.5


def test_the_detector_reward_names_what_it_cannot_judge(kit):
    reward = WorldDetector("d")
    edit = draw_edit(random.Random(0), "train", ("recolour",))
    source = draw(edit.source, SPRITES)
    words = draw_sample(random.Random(1), "train", ("words",))
    asked = [
        RewardInput(source, "hello", "g"),
        RewardInput(source, edit.instruction, "g", (source,)),
        RewardInput(kit.flat(9, 64), edit.instruction, "g", (source,), {"world": row_of(edit)}),
        RewardInput(source, edit.instruction, "g", (source,), {"world": row_of(edit)}),
    ]
    found = reward(asked)
    assert [score.valid for score in found] == [False, False, False, True]
    assert all(score.reason and not score.failed for score in found[:3])
    assert (
        words.scene.objects
        or not reward([RewardInput(source, words.prompt, "g", metadata={"world": row_of(words)})])[0].valid
    )
    with pytest.raises(RewardError, match="no row of the world"):
        reward([RewardInput(source, "p", "g", metadata={"world": {"scene": 3}})])


def test_what_a_detector_was_not_trained_for_has_no_value(tmp_path, kit):
    Detector(["apple", "car"], ["red"], ["3d"]).save_pretrained(tmp_path)
    reward = WorldDetector("d", tmp_path)
    prompts = ("a car", "a dog", "a flat car", "an apple left of a dog")
    found = reward([RewardInput(kit.flat(9, 64), prompt, "g") for prompt in prompts])
    assert [score.valid for score in found] == [True, False, False, False]
    assert [score.reason.split()[-1] for score in found[1:]] == ["dog", "flat", "dog"]


def test_rows_come_back_as_the_samples_they_were():
    rng = random.Random(0)
    for sample in (draw_sample(rng, "test"), draw_edit(rng, "test"), draw_edit(rng, "test", ("insert",))):
        assert sample_of(row_of(sample)) == sample


def test_networks_of_mixed_sizes_are_shown_in_the_order_asked(kit):
    pictures = [kit.flat(1), kit.flat(2, 16), kit.flat(3)]
    assert in_batches(lambda some: [int(x) for x in some[:, 0, 0, 0]], pictures) == [1, 2, 3]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A random reader and dual encoder, as their stages leave them."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("networks")
    Reader().save_pretrained(root / "reader")
    DualEncoder(2048).save_pretrained(root / "clip")
    load_tokenizer([weights_root() / "nano" / "vlm"]).save_pretrained(root / "clip")
    return root


def test_the_text_reward_reads_one_word_of_the_prompt(folders, kit, monkeypatch):
    reward = WorldText("t", folders / "reader", "cpu")
    monkeypatch.setattr(Reader, "read", lambda _, pictures: ["OPEN"] * len(pictures))
    prompts = ('the word "OPEN"', "a cat", '"ONE" and "TWO"', "the word “OPES”")
    found = reward([RewardInput(kit.flat(9, 32), prompt, "g") for prompt in prompts])
    assert [score.value for score in found] == [1.0, None, None, pytest.approx(0.75 * 3 / 4)]
    assert found[1].reason == "the prompt quotes 0 texts, not one"


def test_the_clip_reward_is_the_cosine_and_has_no_value_for_edits(folders, kit):
    reward = WorldClip("c", folders / "clip", "cpu")
    picture = kit.flat(90, 64)
    long = RewardInput(picture, "cat " * 200, "g")
    batch = [RewardInput(picture, "a cat", "g"), RewardInput(picture, "x", "g", (picture,)), long]
    found = reward(batch)
    encoder = DualEncoder.from_pretrained(folders / "clip").eval()
    text = encoder.texts(*caption_ids(load_tokenizer([folders / "clip"]), ["a cat"]))
    shown = encoder.pictures(torch.from_numpy(picture[None]).movedim(-1, 1))
    assert found[0].value == pytest.approx((text @ shown.T).item(), abs=1e-5)
    assert [score.valid for score in found] == [True, False, False] and "tokens" in found[2].reason


def test_a_missing_or_incomplete_network_is_named(folders, tmp_path):
    with pytest.raises(CheckpointError, match="nano_reader"):
        WorldText("t", tmp_path, "cpu")
    (tmp_path / "config.json").write_text((folders / "reader" / "config.json").read_text())
    with pytest.raises(CheckpointError, match="usable Reader"):
        load_trained(Reader, tmp_path, "nano_reader", "cpu")
