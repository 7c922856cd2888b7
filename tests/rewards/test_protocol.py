"""Inputs, scores, weights, and rewards from a configuration."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from deepgen.config import load_config
from deepgen.errors import ConfigError
from deepgen.rewards import RewardInput, Score, build_rewards
from deepgen.rewards.config import Rewards
from deepgen.rewards.simple import JpegSize, MeanBrightness


def rewards_of(*entries):
    return build_rewards(load_config(Rewards, {"rewards": list(entries)}).rewards)


def test_a_value_that_is_not_finite_is_no_value():
    assert not Score.of(float("nan")).valid and not Score.of(float("inf")).valid
    assert Score.of(0.0).valid and not Score.of(float("nan")).failed


def test_pictures_are_checked_and_tensors_taken():
    one = RewardInput(torch.full((4, 4, 3), 255, dtype=torch.uint8), "p", "g")
    assert one.picture.dtype == np.uint8 and MeanBrightness()([one]) == [Score.of(1.0)]
    for wrong in (np.zeros((4, 4, 3)), np.zeros((3, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            RewardInput(wrong, "p", "g")


def test_jpeg_size_counts_the_bytes_of_the_file(kit):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=80)
    value = JpegSize(quality=80)([RewardInput(noise, "p", "g")])[0].value
    assert value == len(file.getvalue()) / 1000
    assert value > JpegSize(quality=80)([RewardInput(kit.flat(9, 32), "p", "g")])[0].value


def test_a_family_has_its_own_weight_and_others_do_not_use_the_reward(kit):
    (reward,) = rewards_of({"kind": "mean_brightness", "weight": 5, "families": {"ocr": 0.7, "off": 0}})
    assert [reward.weight_for(family) for family in ("ocr", "off", "t2i")] == [0.7, 0, 0]
    assert [reward.applies(one) for f in ("ocr", "off") for one in kit.inputs(1, family=f)] == [True, False]
    (everywhere,) = rewards_of({"kind": "mean_brightness", "weight": -1})
    assert everywhere.weight_for("anything") == -1


def test_a_reward_without_weight_is_not_built():
    dead = {"kind": "clip", "path": "/nowhere", "weight": 0}
    unused = {"kind": "clip", "name": "x", "path": "/nowhere", "families": {"t2i": 0}}
    assert [one.name for one in rewards_of(dead, unused, {"kind": "mean_brightness"})] == ["mean_brightness"]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"kind": "mean_brightness"}] * 2, "mean_brightness"),
        ([{"kind": "nothing"}], "nothing"),
        ([{"kind": "ocr", "matchin": "unicode"}], "rewards.0.ocr.matchin: unknown key"),
        ([{"kind": "jpeg_size", "quality": 0}], "quality"),
        ([{"kind": "jpeg_size", "name": "a/b"}], r"rewards\.0\.jpeg_size\.name"),
        ([{"kind": "jpeg_size", "name": "mean"}], "'mean'"),
        ([], "rewards"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_named(entries, said):
    with pytest.raises(ConfigError, match=said):
        rewards_of(*entries)


def test_what_is_trained_for_is_told_apart_from_what_judges_it():
    shipped, own = {"kind": "world_detector"}, {"kind": "world_detector", "path": "mine"}
    with pytest.raises(ConfigError, match=r"'world_detector' has no path: the shipped detector judges"):
        load_config(Rewards, {"rewards": [shipped]})
    with pytest.raises(ConfigError, match="two rewards are called 'world_detector'"):
        load_config(Rewards, {"rewards": [own], "held_out": [shipped]})
    config = load_config(Rewards, {"rewards": [own], "held_out": [shipped | {"name": "judge"}]})
    assert config.held_out[0].path is None
