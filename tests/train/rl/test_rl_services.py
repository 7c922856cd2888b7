"""The real reward service, killed in the middle of a run and started again."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from deepgen.errors import RewardError
from deepgen.train.rl.stage import train_rl

SMALL = [
    *["group_size=4", "groups_per_rollout=4", "rollout_batch_size=8", "train_batch_size=24", "area=1024"],
    *["sampler.num_inference_steps=3", "window={placement: fixed, size: 1}", "steps=8"],
]


class Service:
    """`deepgen reward serve mean_brightness` in a process of its own, always at the same port."""

    def __init__(self) -> None:
        self.port, self.process = 0, None

    def start(self) -> str:
        command = [sys.executable, "-m", "deepgen", "reward", "serve", "mean_brightness"]
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
    metrics = config.output_dir / "metrics.jsonl"

    def interrupt() -> None:
        while not metrics.exists() or metrics.read_text().count("\n") < 3:
            time.sleep(0.01)
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


def test_a_run_whose_service_stays_away_ends_and_goes_on_later(rl_smoke, records, service):
    url = service.start()
    service.kill()
    config = rl_smoke(*SMALL, *remote(url, pause_seconds=0.5), "steps=2")
    with pytest.raises(RewardError, match="far"):
        train_rl(config)
    with contextlib.suppress(FileNotFoundError):
        assert records(config) == []
    service.start()
    assert train_rl(config) and len(records(config)) == 2
