"""The real reward service, killed in the middle of a run and started again."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from deepgen.errors import RewardError
from deepgen.rewards import Score
from deepgen.rewards.edit_region import EditRegion
from deepgen.rewards.service import Address, JsonService, reward_routes
from deepgen.rewards.simple import MeanBrightness
from deepgen.train.rl.stage import RLRun, train_rl

SMALL = [
    *["group_size=4", "groups_per_rollout=4", "rollout_batch_size=8", "train_batch_size=24", "area=1024"],
    *["sampler.num_inference_steps=3", "window={placement: fixed, size: 1}", "steps=8"],
]


class Service:
    """`deepgen reward serve mean_brightness` in a process of its own, always at the same port."""

    def __init__(self) -> None:
        self.port, self.process = 0, None

    def start(self) -> str:
        command = [sys.executable, "-m", "deepgen", "reward", "serve", "mean_brightness", "name=far"]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        url = re.search(r"http\S+", self.process.stdout.readline())[0]
        self.port = int(url.rsplit(":", 1)[1])
        return url

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def service():
    one = Service()
    yield one
    if one.process is not None and one.process.poll() is None:
        one.kill()


SFT = (
    "sft={weight: 0.1, batch_size: 1, global_batch_size: 2, workers: 0, data: {sets: [{name: a, format: world, "
    "task: t2i}], ratio: {t2i: 1}, area: 1024}}"
)


@contextlib.contextmanager
def serving(routes):
    """The url of a service in this process."""
    with JsonService(Address(), routes) as one:
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        yield one.url
        one.shutdown()


@pytest.fixture
def start():
    """Starts the smoke configuration's run in a process of its own."""
    started = []

    def begin(overrides):
        command = [sys.executable, "-m", "deepgen", "train", "rl_smoke", *overrides]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, text=True, **streams))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for_records(config, count):
    metrics = config.output_dir / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < count:
        time.sleep(0.01)


def saved(config):
    """The updates of the run's checkpoints."""
    return [int(path.name.removeprefix("step_")) for path in (config.output_dir / "checkpoints").iterdir()]


def remote(url, **runner):
    settings = {"first_wait_seconds": 0.1, "longest_wait_seconds": 0.3, "deadline_seconds": 0.5, **runner}
    told = ", ".join(f"{key}: {value}" for key, value in settings.items())
    return [
        f"rewards=[{{kind: remote, name: far, url: '{url}', call_seconds: 5}}]",
        f"reward_runner={{{told}}}",
    ]


def test_a_reward_server_that_is_killed_and_started_again_costs_no_step_and_poisons_none(
    rl_smoke, same_weights, records, service
):
    url = service.start()
    config = rl_smoke(*SMALL, *remote(url), folder="far")

    def interrupt() -> None:
        wait_for_records(config, 3)
        service.kill()
        time.sleep(2.0)
        service.start()

    breaker = threading.Thread(target=interrupt)
    breaker.start()
    assert train_rl(config)
    breaker.join()
    near = rl_smoke(*SMALL, "rewards=[{kind: mean_brightness, name: far}]", folder="near")
    train_rl(near)
    far = records(config)
    assert [r["step"] for r in far] == list(range(1, 9))
    assert [r["reward/far"] for r in far] == [r["reward/far"] for r in records(near)]
    assert sum(r["reward_retried/far"] for r in far) > 0
    assert all(r["reward_valid_share/far"] == 1 for r in far)
    assert same_weights(config.output_dir / "final", near.output_dir / "final")


def test_a_run_whose_service_stays_away_ends_with_every_update_saved_and_goes_on_later(
    rl_smoke, same_weights, records, service
):
    url = service.start()
    told = [*SMALL, SFT, "checkpoint.save_every_steps=100"]
    config = rl_smoke(*told, *remote(url, pause_seconds=0.5), folder="far")
    breaker = threading.Thread(target=lambda: (wait_for_records(config, 2), service.kill()))
    breaker.start()
    with pytest.raises(RewardError, match="far"):
        train_rl(config)
    breaker.join()
    made = len(records(config))
    assert 2 <= made < 8 and saved(config) == [made]
    service.start()
    assert train_rl(config)
    near = rl_smoke(*told, "rewards=[{kind: mean_brightness, name: far}]", folder="near")
    train_rl(near)
    assert [r["reward/far"] for r in records(config)] == [r["reward/far"] for r in records(near)]
    assert same_weights(config.output_dir / "final", near.output_dir / "final")


def test_a_run_that_waits_for_a_server_that_hangs_can_be_stopped_and_goes_on_bit_for_bit(
    rl_smoke, same_weights, service, start
):
    url = service.start()
    told = [*SMALL, SFT, "checkpoint.save_every_steps=100"]
    config = rl_smoke(*told, folder="far")
    run = start([*told, *remote(url, pause_seconds=3600), f"output_dir={config.output_dir}"])
    wait_for_records(config, 2)
    os.kill(service.process.pid, signal.SIGSTOP)
    time.sleep(2)
    started = time.monotonic()
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 0 and time.monotonic() - started < 20, said
    (made,) = saved(config)
    assert 2 <= made < 8 and f"stopped and saved at update {made}" in said
    os.kill(service.process.pid, signal.SIGCONT)
    assert train_rl(rl_smoke(*told, *remote(url), folder="far"))
    near = rl_smoke(*told, folder="near")
    train_rl(near)
    assert same_weights(config.output_dir / "final", near.output_dir / "final")


def test_a_second_interrupt_ends_a_run_at_once(tmp_path, start):
    asked = threading.Event()
    routes = reward_routes(MeanBrightness("far"))
    score = routes["POST /score"]
    routes["POST /score"] = lambda body: (asked.set(), score(body))[1]
    with serving(routes) as url:
        long = [*SMALL, "sampler.num_inference_steps=100000", f"output_dir={tmp_path}"]
        run = start([*long, *remote(url)])
        assert asked.wait(60)  # golden pictures: the rollout comes next, and will take hours
        time.sleep(2)
        run.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            run.communicate(timeout=2)
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=20)
        assert run.returncode == 130


def test_rewards_are_tried_before_anything_is_drawn(rl_smoke, monkeypatch):
    monkeypatch.setattr(RLRun, "_draw", None)
    wrong = pytest.raises(RewardError, match=r"says that it is .*bright.* not 'far'")
    with serving(reward_routes(MeanBrightness("bright"))) as url, wrong:
        train_rl(rl_smoke(*SMALL, *remote(url)))
    with pytest.raises(RewardError, match=r"far fails on golden pictures.*refused"):
        train_rl(rl_smoke(*SMALL, *remote(url)))
    with pytest.raises(RewardError, match=r"kept fails on golden pictures.*does not prefer"):
        monkeypatch.setattr(EditRegion, "__call__", lambda self, batch: [Score.of(0.5)] * len(batch))
        train_rl(rl_smoke(*SMALL, "rewards=[{kind: edit_region, name: kept}]"))


def test_all_blocks_of_a_rollout_are_at_the_server_at_once(rl_smoke, records):
    routes = reward_routes(MeanBrightness("far"))
    score, together = routes["POST /score"], threading.Barrier(4)

    def only_together(body):
        if body["inputs"][0]["family"] == "world":  # not the golden pictures
            together.wait(20)
        return score(body)

    with serving(routes | {"POST /score": only_together}) as url:
        config = rl_smoke(*SMALL, "rollout_batch_size=4", *remote(url), "steps=2")
        assert train_rl(config)
    assert [r["reward_asked/far"] for r in records(config)] == [16, 16] and not together.broken
