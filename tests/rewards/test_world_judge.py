"""The world's judge: it speaks the protocol, sees what is there, and can be told to be a bad judge."""

import json
import random
import urllib.request
from collections import Counter

import pytest

from deepgen.config import load_config
from deepgen.errors import InputError
from deepgen.rewards import Score
from deepgen.rewards.config import OneReward
from deepgen.rewards.golden import golden_inputs
from deepgen.rewards.world_judge import WorldJudge, WorldJudgeConfig
from deepgen.rewards.world_request import read_request
from deepgen.world.judging import judge_sample, truth_of
from deepgen.world.sampling import CATEGORIES, draw_sample


@pytest.fixture
def duel(kit):
    """Values of the right and the wrong golden picture by a judge of a manner, in duels of some settings."""

    def hold(settings=None, **manner):
        judge = WorldJudge(WorldJudgeConfig(**manner))
        with kit.serving(judge.routes()) as url:
            entry = {"kind": "preference", "url": f"{url}/v1", "model": "world-preference", "pairing": "all"}
            waits = {"patience_seconds": 0.2, "call_seconds": 5.0, "attempts": 1, "order": "fixed"}
            reward = load_config(OneReward, {"reward": entry | waits | (settings or {})}).reward.build(
                "p", "cpu"
            )
            return reward(golden_inputs()[:2])

    return hold


def values(scores):
    return [score.value for score in scores]


def test_it_prefers_what_shows_more_of_the_prompt_in_either_order(duel):
    assert values(duel()) == [1.0, 0.0]
    assert values(duel({"order": "both"})) == [1.0, 0.0]


def test_it_can_call_ties_prefer_a_side_and_talk_nonsense(duel):
    assert values(duel(tie_share=1.0)) == values(duel(tie_margin=1.0)) == [0.5, 0.5]
    assert values(duel({"order": "both"}, position_bias=1.0)) == [0.5, 0.5]
    judge = WorldJudge(WorldJudgeConfig(position_bias=1.0))
    right, wrong = (one.picture for one in golden_inputs()[:2])
    assert "Image 1" in judge._answer(right_prompt(), [wrong, right], 0.5)
    nonsense = duel(garbage_share=1.0)
    assert values(nonsense) == [None, None] and not nonsense[0].failed


def right_prompt():
    return golden_inputs()[0].prompt


def test_errors_drops_and_delays_are_failures_to_be_asked_again(duel):
    for seed in (0, 1):  # one of them is answered with 503, the other dropped
        assert all(score.failed for score in duel(error_share=1.0, seed=seed))
    late = duel({"call_seconds": 0.2}, delay_seconds=0.8)
    assert all(score.failed for score in late) and late[0].reason


def test_a_prompt_of_words_alone_is_a_tie_that_says_why():
    pictures = [one.picture for one in golden_inputs()[:2]]
    said = WorldJudge(WorldJudgeConfig())._answer('the word "OPEN"', pictures, 0.5)
    assert "asks for no thing" in said and said.endswith("<answer>Tie</answer>")
    assert "asks for" not in WorldJudge(WorldJudgeConfig())._answer(right_prompt(), pictures, 0.5)


def test_shares_of_manners_come_true(monkeypatch):
    judge = WorldJudge(WorldJudgeConfig(tie_share=0.3, position_bias=0.2, garbage_share=0.1))
    monkeypatch.setattr(judge, "scores", lambda *_: [Score.of(0.0), Score.of(1.0)])
    said = Counter(judge._answer("p", [], n / 1000).splitlines()[-1] for n in range(1000))
    assert said["<answer>Tie</answer>"] == 300 and said["<answer>Image 1 is better</answer>"] == 200
    assert said["I would rather not say."] == 100 and said["<answer>Image 2 is better</answer>"] == 400


def test_a_question_of_another_template_or_with_links_is_refused(kit):
    judge = WorldJudge(WorldJudgeConfig())
    link = {"type": "image_url", "image_url": {"url": "http://example.org/a.png"}}
    for content in ("Which is better?", [link], 3):
        with pytest.raises(InputError):
            judge.complete({"messages": [{"role": "user", "content": content}]})
    with kit.serving(judge.routes()) as url, urllib.request.urlopen(f"{url}/v1/models", timeout=5) as reply:
        assert json.loads(reply.read())["data"][0]["id"] == "world-preference"


def test_a_picture_is_looked_at_once(monkeypatch):
    judge, asked = WorldJudge(WorldJudgeConfig()), []
    reward = judge._reward
    monkeypatch.setattr(judge, "_reward", lambda batch: asked.append(len(batch)) or reward(batch))
    right, wrong = (one.picture for one in golden_inputs()[:2])
    first = judge.scores(right_prompt(), [right, wrong])
    assert judge.scores(right_prompt(), [wrong, right]) == first[::-1] and asked == [2, 0]
    judge.scores("an apple", [right])
    assert asked == [2, 0, 1]


@pytest.mark.parametrize("category", [name for name in CATEGORIES if name != "words"])
def test_a_prompt_is_read_back_as_what_it_asks(category):
    rng = random.Random(category)
    for _ in range(40):
        sample = draw_sample(rng, "test", (category,))
        read = read_request(sample.prompt, sample.scene.width, sample.scene.height)
        assert read is not None, sample.prompt
        names = [Counter(item.concept for item in scene.objects) for scene in (read.scene, sample.scene)]
        assert names[0] == names[1], sample.prompt
        assert read.mentions | {"objects", "count"} == sample.mentions | {"objects", "count"}, sample.prompt
        assert judge_sample(read, truth_of(sample.scene)) == [], sample.prompt


def test_words_to_be_written_are_not_read_as_things():
    assert read_request('the word "CAT" in red letters') is None
    assert [item.concept for item in read_request('a dog and the word "CAT"').scene.objects] == ["dog"]
    assert read_request("nothing that is known") is None
