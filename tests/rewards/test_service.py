"""Rewards behind HTTP: the same values, nothing taken from strangers, nothing run that arrives."""

import json
import pickle
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from deepgen.config import load_config
from deepgen.errors import InputError, RewardError
from deepgen.rewards import RewardInput, RewardUnavailable, Score
from deepgen.rewards.config import OneReward
from deepgen.rewards.edit_region import EditRegion
from deepgen.rewards.service import Address, reward_routes
from deepgen.rewards.simple import MeanBrightness
from deepgen.rewards.wire import groups_kept_together, input_from_json, input_to_json


def remote(url, **settings):
    entry = {"kind": "remote", "name": "far", "url": url, "call_seconds": 5.0} | settings
    reward = load_config(OneReward, {"reward": entry}).reward
    return reward.build(reward.called, "cpu")


def post(url, body, **headers):
    """(status, JSON) of a raw request."""
    request = urllib.request.Request(f"{url}/score", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_an_input_survives_the_wire_to_the_last_pixel():
    pictures = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), np.uint8)
    one = RewardInput(
        pictures[0], "ä “q”", "g", (pictures[1],), {"world": {"n": [1, None]}}, "edit", pictures[2]
    )
    again = input_from_json(json.loads(json.dumps(input_to_json(one))))
    for name in ("picture", "target"):
        assert (getattr(again, name) == getattr(one, name)).all()
    assert (again.references[0] == pictures[1]).all() and len(again.references) == 1
    assert (again.prompt, again.group, again.family, again.metadata) == ("ä “q”", "g", "edit", one.metadata)


def test_a_remote_reward_gives_the_values_and_reasons_of_the_reward_itself(kit):
    rng = np.random.default_rng(1)
    source, target, result = rng.integers(0, 256, (3, 48, 48, 3), np.uint8)
    target[24:] = source[24:]
    batch = [RewardInput(result, "p", "g", (source,), target=target), *kit.inputs(3)]
    with kit.serving(reward_routes(EditRegion("far"))) as url:
        assert remote(url)(batch) == EditRegion()(batch)


def test_only_the_token_opens_the_service(kit, monkeypatch):
    monkeypatch.setenv("RIGHT", "secret")
    monkeypatch.setenv("WRONG", "other")
    with kit.serving(reward_routes(MeanBrightness("far")), "secret") as url:
        assert remote(url, token_env="RIGHT")(kit.inputs(255))[0].value == 1
        for settings in ({"token_env": "WRONG"}, {}):
            with pytest.raises(RewardError, match="401") as caught:
                remote(url, **settings)(kit.inputs(255))
            assert not isinstance(caught.value, RewardUnavailable)
    with pytest.raises(InputError, match="EMPTY holds no token"):
        remote(url, token_env="EMPTY")


def test_an_address_that_others_reach_needs_a_token():
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(InputError, match="token"):
            Address(host)
        assert Address(host, token="t").host == host
    assert Address().host == "127.0.0.1"


class Trap:
    """Unpickling it would show."""

    touched = False

    def __reduce__(self):
        return setattr, (Trap, "touched", True)


def test_what_arrives_is_never_unpickled_and_bad_bodies_are_named(kit):
    as_json = {"Content-Type": "application/json"}
    with kit.serving(reward_routes(MeanBrightness("far"))) as url:
        assert post(url, pickle.dumps(Trap()), **as_json)[0] == 400
        assert post(url, b"{}", **{"Content-Type": "text/plain"})[0] == 415
        assert post(url, b"{}", **as_json, **{"Content-Length": str(1 << 40)})[0] == 413
        for body, said in (
            ({"inputs": 1}, "inputs"),
            ({"inputs": [{"prompt": "x"}]}, "base64"),
            ({"inputs": [{"prompt": "x", "picture": "QUJD"}]}, "PNG"),
            ({"inputs": [{"picture": "QUJD"}]}, "prompt"),
        ):
            status, reply = post(url, json.dumps(body).encode(), **as_json)
            assert status == 400 and said in reply["error"]["message"]
        assert remote(url)(kit.inputs(255))[0].value == 1  # it still serves
    assert not Trap.touched


def test_groups_are_sent_whole(kit):
    batch = [one for n in range(5) for one in kit.inputs(n, n + 1, n + 2, group=str(n % 3))]
    parts = groups_kept_together(batch, 7)
    assert sorted(place for part in parts for place in part) == list(range(15))
    for group in "012":
        assert sum(any(batch[place].group == group for place in part) for part in parts) == 1
    assert [len(part) for part in parts] == [6, 6, 3]


def test_what_was_scored_before_a_service_failed_is_kept(kit):
    calls = []

    def flaky(batch):
        calls.append(len(batch))
        if len(calls) == 2:
            raise RewardUnavailable("out of memory")
        return [Score.of(1.0)] * len(batch)

    with kit.serving(reward_routes(kit.Scripted(flaky, flaky))) as url:
        found = remote(url, name="scripted", at_once=1)(
            [*kit.inputs(1, group="a"), *kit.inputs(2, 3, group="b"), *kit.inputs(4)]
        )
    assert [score.value for score in found] == [1.0, None, None, None]
    assert all(score.failed for score in found[1:]) and "503" in found[1].reason and calls == [1, 2]


def test_a_service_that_is_away_or_too_slow_has_failed(kit):
    release = threading.Event()
    slow = kit.Scripted(lambda batch: [Score.of(float(release.wait(10)))] * len(batch))
    with kit.serving(reward_routes(slow)) as url:
        started = time.monotonic()
        (late,) = remote(url, name="scripted", call_seconds=0.3)(kit.inputs(1))
        release.set()
        assert late.failed and time.monotonic() - started < 3
    with pytest.raises(RewardUnavailable, match="refused"):
        remote(url)(kit.inputs(1))


@pytest.mark.parametrize("reply", [{"scores": []}, {"scores": [{"value": "1"}]}, {"scores": [{}]}, []])
def test_a_reply_that_is_no_list_of_scores_ends_the_run(kit, reply):
    routes = {"GET /health": lambda _: {"name": "far", "kind": "pointwise"}, "POST /score": lambda _: reply}
    with kit.serving(routes) as url, pytest.raises(RewardError, match="reply"):
        remote(url)(kit.inputs(1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"name": "other"}, r"\"name\": \"far\".*not 'other'"), ({"groupwise": True}, "'far', groupwise")],
)
def test_a_service_of_another_name_or_kind_is_refused_before_it_is_sent_a_picture(kit, settings, said):
    asked = []
    routes = reward_routes(MeanBrightness("far")) | {"POST /score": asked.append}
    with kit.serving(routes) as url, pytest.raises(RewardError, match=said):
        remote(url, **settings)(kit.inputs(1))
    with kit.serving({"GET /health": lambda _: []}) as url, pytest.raises(RewardError, match=r"it is \[\]"):
        remote(url)(kit.inputs(1))
    assert asked == []
