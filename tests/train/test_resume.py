import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from train_kit import CONTEXT, lead_and_train

from deepgen.errors import CheckpointError
from deepgen.train.engine import train_supervised
from deepgen.train.metrics import read_metrics

QUICK = ["validation.data=null", "samples.prompts=[]"]


def test_a_run_in_two_parts_ends_in_the_weights_of_one_run_bit_for_bit(smoke, same_weights):
    both = [
        "steps=6",
        "optimizer.schedule=constant",
        "optimizer.warmup=0",
        "ema_decay=0.9",
        "log_every_steps=1",
    ]
    whole, parts = smoke(*both, folder="whole"), smoke(*both, folder="parts")
    train_supervised(whole)
    assert train_supervised(parts.model_copy(update={"steps": 2}))
    train_supervised(parts)
    assert same_weights(whole.output_dir / "final", parts.output_dir / "final")
    losses = [[r["loss"] for r in read_metrics(c.output_dir / "metrics.jsonl")] for c in (whole, parts)]
    assert losses[0] == losses[1] and len(losses[0]) == 6


def test_the_same_command_again_does_nothing(smoke, caplog):
    config = smoke("steps=1")
    train_supervised(config)
    before = (config.output_dir / "final" / "training.json").stat().st_mtime_ns
    with caplog.at_level("INFO", "deepgen.train"):
        assert train_supervised(config)
    assert "nothing to do" in caplog.text
    assert (config.output_dir / "final" / "training.json").stat().st_mtime_ns == before


def test_a_run_is_not_resumed_with_settings_that_would_make_another_of_it(smoke, golden_path):
    train_supervised(smoke("steps=1"))
    for changed, said in (
        ("trainable.vlm=frozen", "trainable.vlm was lora and is frozen;"),
        ("trainable.lora.rank=2", "trainable.lora.rank was 4 and is 2;"),
        ("seed=1", "model .* was .*; seed was 0 and is 1;"),
        (f"init_from={golden_path}", r"model \(a hash of the weights it began with\) was \w+ and is \w+;"),
    ):
        with pytest.raises(CheckpointError, match=f"does not fit this run: {said}"):
            train_supervised(smoke("steps=1", changed))
    with pytest.raises(CheckpointError, match="it lacks ema, ema/"):
        train_supervised(smoke("steps=1", "ema_decay=0.9"))


def test_sigterm_saves_and_leaves_and_the_run_goes_on(spawn, smoke, same_weights):
    config = smoke("steps=400", "save_every_steps=1000")
    arguments = [f"output_dir={config.output_dir}", "steps=400", "save_every_steps=1000", *QUICK]
    process = spawn("train/smoke", arguments)
    while len(read_metrics(config.output_dir / "metrics.jsonl")) < 2:
        time.sleep(0.02)
    process.terminate()
    process.join(30)
    assert process.exitcode == 0
    saved = [p.name for p in (config.output_dir / "checkpoints").iterdir()]
    assert len(saved) == 1 and 10 <= int(saved[0].removeprefix("step_")) < 400
    assert not (config.output_dir / "final").exists()


def gone(group, seconds):
    """Whether no process of the group runs any more, before so many seconds are over; those unreaped do not run."""
    for _ in range(int(seconds * 10)):
        states = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
        if not any(int(own) == group and state != "Z" for state, _, own, *_ in states):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="processes are listed in /proc")
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_saves_and_no_worker_outlives_the_run(smoke, kind):
    config = smoke("steps=400")
    arguments = [*QUICK, f"output_dir={config.output_dir}", "steps=400", "save_every_steps=1000", "workers=2"]
    process = CONTEXT.Process(target=lead_and_train, args=(arguments,))
    process.start()
    while len(read_metrics(config.output_dir / "metrics.jsonl")) < 2:
        assert process.is_alive()
        time.sleep(0.02)
    os.killpg(process.pid, kind)
    process.join(30)
    assert process.exitcode == 0
    assert len(list((config.output_dir / "checkpoints").glob("step_*/complete.json"))) == 1
    assert gone(process.pid, seconds=5)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are listed in /proc")
def test_workers_end_with_a_run_that_is_killed(smoke):
    config = smoke("steps=400")
    process = CONTEXT.Process(
        target=lead_and_train, args=([*QUICK, f"output_dir={config.output_dir}", "steps=400", "workers=2"],)
    )
    process.start()
    while not read_metrics(config.output_dir / "metrics.jsonl"):
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join(10)
    assert gone(process.pid, seconds=5)


def killed_run(spawn, smoke, kills, steps, seed, asynchronous):
    """Train in processes that are killed at random moments, every second one while it saves. A kill loses one interval
    at most, and with asynchronous saves what was done during a write. Returns the run's folder, how many processes were
    killed, and how many left an unfinished save."""
    moments = random.Random(seed)
    config = smoke(folder="killed")
    arguments = [f"output_dir={config.output_dir}", f"steps={steps}", "save_every_steps=3", *QUICK]
    arguments += ["log_every_steps=1", f"checkpoint.asynchronous={asynchronous}"]
    unfinished, checkpoints = 0, config.output_dir / "checkpoints"
    for kill in range(kills):
        process = spawn("train/smoke", arguments)
        process.join(moments.uniform(0.1, 1.5))
        left = set(checkpoints.glob("*.partial"))
        while kill % 2 and process.exitcode is None and set(checkpoints.glob("*.partial")) <= left:
            time.sleep(0.001)
        if process.exitcode is not None:
            return config.output_dir, kill, unfinished
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        unfinished += any(checkpoints.glob("*.partial"))
        done = [record["step"] for record in read_metrics(config.output_dir / "metrics.jsonl")]
        # Not one that was being deleted, whose name ends in ".old.partial".
        complete = checkpoints.glob("step_*[0-9]/complete.json")
        kept = [int(path.parent.name.removeprefix("step_")) for path in complete]
        assert max(done, default=0) - max(kept, default=0) <= (6 if asynchronous else 3)
    process = spawn("train/smoke", [*arguments, "save_every_steps=1000"])
    process.join(600)
    assert process.exitcode == 0
    return config.output_dir, kills, unfinished


def check_kills(spawn, smoke, same_weights, kills, steps, asynchronous):
    folder, killed, unfinished = killed_run(spawn, smoke, kills, steps, 0, asynchronous)
    assert killed == kills, f"the run was complete after {killed} kills; give it more steps"
    assert unfinished >= kills // 4, "too few of the kills hit a save"
    whole = smoke(f"steps={steps}", "save_every_steps=1000", "ema_decay=0.9", folder="whole")
    train_supervised(whole)
    assert same_weights(whole.output_dir / "final", folder / "final")
    assert not list((folder / "checkpoints").glob("*.partial"))


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_killed_run_ends_in_the_same_weights(spawn, smoke, same_weights, asynchronous):
    check_kills(spawn, smoke, same_weights, 2, 40, asynchronous)


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_run_killed_twenty_times_ends_in_the_same_weights(spawn, smoke, same_weights, asynchronous):
    check_kills(spawn, smoke, same_weights, 20, 250, asynchronous)
