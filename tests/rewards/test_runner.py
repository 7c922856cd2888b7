"""Rewards beside the rollout: overlapped, asked again, counted, held up, and never of another policy's pictures."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from deepgen.config import load_config
from deepgen.errors import RewardError
from deepgen.rewards import (
    RewardRunner,
    RewardUnavailable,
    RunnerConfig,
    Score,
    WeightedReward,
    build_rewards,
)
from deepgen.rewards.config import OneReward

QUICK = {"deadline_seconds": 0.3, "first_wait_seconds": 0.01, "longest_wait_seconds": 0.05}


def runner_of(*rewards, **settings):
    weighted = [one if isinstance(one, WeightedReward) else WeightedReward(one) for one in rewards]
    return RewardRunner(weighted, RunnerConfig(**QUICK | settings))


def scored(runner, batch, step=0):
    (found,) = runner.collect(runner.submit(step, batch)).values()
    return found


def values(scores):
    return [score.value for score in scores]


def fails(batch):
    return [Score.failure("down")] * len(batch)


def unreachable(batch):
    raise RewardUnavailable("nobody there")


def test_scoring_goes_on_while_the_caller_does_something_else(kit):
    go = threading.Event()
    slow = kit.Scripted(lambda batch: [Score.of(float(go.wait(5)))] * len(batch))
    with runner_of(slow) as runner:
        started = time.monotonic()
        ticket = runner.submit(0, kit.inputs(1))
        assert time.monotonic() - started < 1
        go.set()
        assert values(runner.collect(ticket)["scripted"]) == [1.0]


def test_every_ticket_has_the_scores_of_its_own_pictures_whatever_the_order(kit):
    with runner_of(kit.Scripted()) as runner:
        tickets = [runner.submit(step // 2, kit.inputs(10 * step, 10 * step + 1)) for step in range(6)]
        for step, ticket in reversed(list(enumerate(tickets))):
            assert ticket.policy_step == step // 2
            assert values(runner.collect(ticket)["scripted"]) == [10.0 * step, 10.0 * step + 1]


def test_a_model_in_this_process_scores_one_batch_at_a_time(kit):
    inside = threading.Lock()

    def alone(batch):
        with_nobody = inside.acquire(blocking=False)
        time.sleep(0.05)
        inside.release()
        return [Score.of(float(with_nobody))] * len(batch)

    with runner_of(kit.Scripted(*[alone] * 4)) as runner:
        tickets = [runner.submit(0, kit.inputs(step)) for step in range(4)]
        assert [values(runner.collect(one)["scripted"]) for one in tickets] == [[1.0]] * 4


def judge_of(url, **settings):
    entry = {"kind": "preference", "url": f"{url}/v1", "model": "m", "call_seconds": 9.0, "attempts": 1}
    return build_rewards([load_config(OneReward, {"reward": entry | settings}).reward])[0]


def test_a_judge_is_asked_for_all_batches_at_once_but_for_no_more_than_its_concurrency(kit):
    lock, now, most = threading.Lock(), [0], []

    def complete(_):
        with lock:
            now[0] += 1
            most.append(now[0])
        time.sleep(0.5)
        with lock:
            now[0] -= 1
        return {"choices": [{"message": {"content": "<answer>Tie</answer>"}, "finish_reason": "stop"}]}

    with kit.serving({"POST /v1/chat/completions": complete}) as url:
        for concurrency, expected in ((8, 4), (2, 2)):
            with runner_of(judge_of(url, concurrency=concurrency)) as runner:
                tickets = [runner.submit(0, kit.inputs(n, n + 1, group=str(n))) for n in range(4)]
                found = [values(runner.collect(one)["preference"]) for one in tickets]
            assert found == [[0.5, 0.5]] * 4 and max(most) == expected
            most.clear()


HUNG = """
import socket, sys
from deepgen.config import load_config
from deepgen.rewards import RewardInput, RewardRunner, build_rewards
from deepgen.rewards.config import OneReward
import numpy as np
server = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
entry = {"kind": sys.argv[1], "url": url} | ({"model": "m"} if sys.argv[1] == "preference" else {})
runner = RewardRunner(build_rewards([load_config(OneReward, {"reward": entry}).reward]))
batch = [RewardInput(np.full((8, 8, 3), n, np.uint8), "a cat", "g") for n in (1, 2)]
with runner:
    runner.submit(0, batch)
    held, _ = server.accept()
"""


@pytest.mark.parametrize("kind", ["remote", "preference"])
def test_a_call_to_a_server_that_hangs_keeps_no_process_from_ending(kind):
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", HUNG, kind], check=True, timeout=60)
    assert time.monotonic() - started < 30


def test_pictures_of_an_older_policy_and_a_second_collection_are_refused(kit):
    with runner_of(kit.Scripted()) as runner:
        ticket = runner.submit(3, kit.inputs(1))
        with pytest.raises(RewardError, match="policy 2 come after those of policy 3"):
            runner.submit(2, kit.inputs(1))
        runner.collect(ticket)
        with pytest.raises(RewardError, match="not waiting"):
            runner.collect(ticket)


def test_only_what_failed_is_asked_for_again_and_counted(kit):
    def half(batch):
        return [Score.of(1.0), Score.failure("down"), Score(None, "no text")]

    reward = kit.Scripted(half, unreachable)
    with runner_of(reward) as runner:
        assert values(scored(runner, kit.inputs(5, 6, 7))) == [1.0, 6.0, None]
        counted = vars(runner.take_tallies()["scripted"])
    assert [len(call) for call in reward.calls] == [3, 1, 1]
    expected = {"asked": 3, "missing": 1, "failed": 0, "retried": 2, "valid": 2}
    assert {key: counted[key] for key in expected} == expected


def test_pictures_that_are_compared_are_asked_for_again_with_their_group(kit):
    def one_of_b(batch):
        return [Score.of(0.0)] * (len(batch) - 1) + [Score.failure("x")]

    reward = kit.Scripted(one_of_b, kind="groupwise")
    batch = [*kit.inputs(1, 2, group="a"), *kit.inputs(3, 4, group="b")]
    with runner_of(reward) as runner:
        assert values(scored(runner, batch)) == [0.0, 0.0, 3.0, 4.0]
    assert [[one.group for one in call] for call in reward.calls] == [["a", "a", "b", "b"], ["b", "b"]]


def test_few_values_that_stay_away_are_invalid_and_the_run_goes_on(kit):
    def one_of_four(batch):
        return [Score.of(1.0)] * (len(batch) - 1) + [Score.failure("down")]

    with runner_of(kit.Scripted(*[one_of_four] * 500), pause_share=0.25) as runner:
        found = scored(runner, kit.inputs(1, 2, 3, 4))
        counted = runner.take_tallies()["scripted"]
    assert values(found) == [1.0, 1.0, 1.0, None] and found[3].reason == "down"
    assert counted.failed == 1 and counted.paused_seconds == 0


def test_many_hold_the_run_up_until_the_service_is_back(kit):
    until = time.monotonic() + 0.8

    def down(batch):
        return fails(batch) if time.monotonic() < until else [Score.of(2.0)] * len(batch)

    with runner_of(kit.Scripted(*[down] * 1000), pause_share=0.25) as runner:
        assert values(scored(runner, kit.inputs(1, 2))) == [2.0, 2.0]
        assert runner.take_tallies()["scripted"].paused_seconds > 0.1


def test_a_service_that_never_comes_back_ends_the_run_with_its_reason(kit):
    with (
        runner_of(kit.Scripted(*[unreachable] * 1000), pause_seconds=0.3) as runner,
        pytest.raises(RewardError, match=r"100% of its values failed: nobody there"),
    ):
        scored(runner, kit.inputs(1))


def test_a_family_without_weight_is_not_asked(kit):
    reward = kit.Scripted()
    with runner_of(WeightedReward(reward, families={"ocr": 1.0})) as runner:
        batch = [*kit.inputs(1, family="t2i"), *kit.inputs(2, family="ocr")]
        assert values(scored(runner, batch)) == [None, 2.0]
    assert [len(call) for call in reward.calls] == [1]


def test_a_reward_with_too_few_scores_ends_the_run(kit):
    with runner_of(kit.Scripted(lambda _: [])) as runner, pytest.raises(RewardError, match="0 scores for 1"):
        scored(runner, kit.inputs(1))


def test_an_error_that_trying_again_does_not_help_is_raised_where_the_scores_are_collected(kit):
    def broken(batch):
        raise RewardError("wrong token")

    with runner_of(kit.Scripted(broken)) as runner, pytest.raises(RewardError, match="wrong token"):
        scored(runner, kit.inputs(1))


def serve(port):
    """`deepgen reward serve` in a process of its own, ready."""
    command = [sys.executable, "-m", "deepgen", "reward", "serve", "mean_brightness", "name=far"]
    command += ["--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("serving mean_brightness at"), line
    return process, int(line.rpartition(":")[2])


def test_a_server_that_is_killed_and_restarted_costs_no_step_and_mixes_none(kit):
    process, port = serve(0)
    entry = {"kind": "remote", "url": f"http://127.0.0.1:{port}", "call_seconds": 5.0}
    reward = load_config(OneReward, {"reward": entry}).reward.build("far", "cpu")
    patient = {"deadline_seconds": 0.5, "pause_share": 0.0, "pause_seconds": 60.0}
    try:
        with runner_of(reward, **patient) as runner:
            assert values(scored(runner, kit.inputs(0), 0)) == [0.0]
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            tickets = [runner.submit(step, kit.inputs(step, 255 - step)) for step in range(1, 6)]
            time.sleep(0.2)
            process, _ = serve(port)
            for step, ticket in enumerate(tickets, 1):
                assert ticket.policy_step == step
                found = values(runner.collect(ticket)["far"])
                assert found == pytest.approx([step / 255, (255 - step) / 255])
            counted = runner.take_tallies()["far"]
        assert counted.retried > 0 and counted.failed == 0
    finally:
        process.kill()
        process.wait()
