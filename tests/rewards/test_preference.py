"""Duels before a judge that is a real server: fair, complete, and never a tie where there was no answer."""

import threading

import numpy as np
import pytest
from PIL import Image

from deepgen.config import load_config
from deepgen.errors import InputError, RewardError
from deepgen.rewards import RewardInput
from deepgen.rewards.config import OneReward

FIRST, SECOND, TIE = (
    f"<answer>{said}</answer>" for said in ("Image 1 is better", "Image 2 is better", "Tie")
)


@pytest.fixture
def judge(judge_server):
    """A preference reward of the server, with given settings."""

    def make(kind="preference", **settings):
        waits = {"patience_seconds": 0.2, "call_seconds": 5.0, "attempts": 1}
        entry = {"kind": kind, "url": judge_server.url, "model": "m"} | waits | settings
        return load_config(OneReward, {"reward": entry}).reward.build(kind, "cpu")

    return make


def brightness(content: bytes) -> float:
    from io import BytesIO

    return float(np.asarray(Image.open(BytesIO(content))).mean())


def brighter(request):
    """The answer of a judge that likes the brighter picture; the dark to it a tie."""
    first, second = map(brightness, request.images)
    return TIE if abs(first - second) < 2 else FIRST if first > second else SECOND


def values(scores):
    return [score.value for score in scores]


@pytest.mark.parametrize("order", ["both", "random", "fixed"])
def test_a_full_round_gives_shares_of_duels_won_in_every_order(judge, judge_server, kit, order):
    judge_server.reply = brighter
    found = judge(pairing="all", order=order)(kit.inputs(200, 50, 51, 100))
    assert values(found) == pytest.approx([1, 1 / 6, 1 / 6, 2 / 3])
    assert len(judge_server.requests) == (12 if order == "both" else 6)


def test_a_biased_judge_ranks_nobody_where_both_orders_are_asked(judge, judge_server, kit):
    judge_server.reply = FIRST
    pictures = kit.inputs(10, 60, 110, 160)
    assert values(judge(pairing="all", order="both")(pictures)) == [0.5] * 4
    assert values(judge(pairing="all", order="fixed")(pictures)) == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_swiss_asks_twelve_duels_of_eight_and_finds_the_best_and_the_worst(judge, judge_server, kit):
    judge_server.reply = brighter
    found = values(judge(pairing="swiss")(kit.inputs(120, 30, 210, 90, 0, 60, 180, 150)))
    assert len(judge_server.requests) == 12
    assert np.argmax(found) == 2 and np.argmin(found) == 4 and np.mean(found) == pytest.approx(0.5)


def test_a_reply_that_cannot_be_read_is_no_tie(judge, judge_server, kit):
    judge_server.reply = lambda request: (
        "Image 2, I think" if brightness(request.images[0]) < 20 else brighter(request)
    )
    first, *rest = judge(pairing="all", order="fixed", attempts=2)(kit.inputs(10, 60, 110))
    assert first.value is None and not first.failed and "cannot be read" in first.reason
    assert values(rest) == [0.0, 1.0]
    assert len(judge_server.requests) == 5  # the two unreadable ones were asked for again


def test_thinking_aloud_about_the_form_of_an_answer_does_not_count(judge, judge_server, kit):
    judge_server.reply = f"<think>I could say {FIRST}</think> or {FIRST} but: {SECOND}"
    assert values(judge(pairing="all", order="fixed")(kit.inputs(10, 60))) == [0.0, 1.0]


def test_a_server_that_is_away_fails_every_value_and_asking_again_mends_it(judge, judge_server, kit):
    judge_server.reply = brighter
    reward, pictures = judge(pairing="all"), kit.inputs(10, 60, 110)
    judge_server.kill()
    assert all(score.failed and score.value is None and score.reason for score in reward(pictures))
    judge_server.restart()
    assert values(reward(pictures)) == [0.0, 0.5, 1.0]


def test_a_judge_that_turns_all_requests_away_ends_the_run(judge, judge_server, kit, replies):
    judge_server.reply = replies.Status(401)
    with pytest.raises(RewardError, match="401"):
        judge(pairing="all")(kit.inputs(10, 60))
    judge_server.reply = replies.Status(400)
    rejected = judge(pairing="all")(kit.inputs(10, 60))
    assert all(score.failed for score in rejected)


def test_what_was_answered_is_not_asked_again(judge, judge_server, kit, tmp_path, replies):
    script = [FIRST, FIRST, replies.Status(400)]
    judge_server.reply, judge_server.script = brighter, list(script)
    pictures, cache = kit.inputs(10, 60, 110), tmp_path / "replies.sqlite"
    partly = judge(pairing="all", concurrency=1, cache=cache)(pictures)
    assert len(judge_server.requests) == 3 and sum(score.valid for score in partly) >= 1
    again = judge(pairing="all", concurrency=1, cache=cache)(pictures)
    assert len(judge_server.requests) == 4 and all(score.valid for score in again)


def test_all_groups_are_asked_at_the_same_time(judge, judge_server, kit):
    together = threading.Barrier(4, timeout=5)
    judge_server.reply = lambda request: together.wait() is None or FIRST
    batch = [
        one
        for group in "abcd"
        for one in kit.inputs(10 * ord(group) % 97, 150 + ord(group) % 50, group=group)
    ]
    assert all(score.valid for score in judge()(batch))


def test_groups_are_not_mixed_and_one_alone_has_no_value(judge, judge_server, kit):
    judge_server.reply = brighter
    a, b, c = kit.inputs(10, 90, group="a"), kit.inputs(100, 200, group="b"), kit.inputs(250, group="c")
    found = judge(pairing="all")([a[0], b[0], c[0], a[1], b[1]])
    assert values(found) == [0, 0, None, 1, 1] and not found[2].failed


def test_the_users_template_is_sent_with_the_prompt_and_other_braces_kept(judge, judge_server, kit, tmp_path):
    template = tmp_path / "t.txt"
    template.write_text('Say {"a": 1} of: {prompt}')
    judge_server.reply = FIRST
    judge(template=template)(kit.inputs(1, 99, prompt="a {red} cat"))
    (request,) = judge_server.requests
    assert request.text == 'Say {"a": 1} of: a {red} cat' and len(request.images) == 2
    assert [part["type"] for part in request.parts] == ["image_url", "image_url", "text"]
    template.write_text("no place")
    with pytest.raises(InputError, match=r"has no \{prompt\}"):
        judge(template=template)


def test_chance_falls_on_pictures_and_not_on_places(judge, judge_server, kit):
    judge_server.reply = FIRST
    orders = []
    for shift in range(12):
        judge_server.requests.clear()
        judge(pairing="all")(kit.inputs(10 + shift, 200))
        orders.append(brightness(judge_server.requests[0].images[0]) < 100)
    assert 1 < sum(orders) < 11


def test_the_judge_of_edits_sees_the_sources_and_says_yes_or_no(judge, judge_server, kit):
    judge_server.reply = lambda request: (
        f"<answer>{'Yes' if brightness(request.images[-1]) > 99 else 'no'}</answer>"
    )
    source = kit.flat(7)
    good, bad = (RewardInput(kit.flat(v), "make it bright", "g", (source, source)) for v in (200, 20))
    (none,) = kit.inputs(100)
    found = judge("edit_instruction")([good, none, bad])
    assert values(found) == [1.0, None, 0.0] and not found[1].failed
    assert {len(request.images) for request in judge_server.requests} == {3}
    judge_server.reply = "<answer>maybe</answer>"
    (unclear,) = judge("edit_instruction")([good])
    assert unclear.value is None and not unclear.failed
