"""Work for several processes: started from a server that has imported everything, joined by gloo."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deepgen.config import load_config
from deepgen.errors import RewardError
from deepgen.train import engine
from deepgen.train.optimizer import average_gradients
from deepgen.train.parallel import stop_ranks, whole
from deepgen.train.run import prepare_device
from deepgen.train.run_config import SupervisedConfig
from deepgen.train.supervised import draws_for

Job = tuple[Callable[[list[str]], Any], list[str]]
"""Something to do with overrides of the smoke configuration."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["deepgen.cli.train", "deepgen.train.engine", "deepgen.train.rl.stage", "train_kit"]
)


def on_ranks(
    world: int,
    folder: Path,
    jobs: Sequence[Job],
    watch: Callable[[list[int]], None] | None = None,
    seconds: float = 120,
) -> list[list[Any]]:
    """What each job returns in each of `world` processes that form a gloo group.

    `watch` is called with the ids of the processes, again and again while they live; each has so many `seconds`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    processes = []
    for rank in range(world):
        place = (rank, world, port, folder / f"rank{rank}.pt")
        processes.append(CONTEXT.Process(target=_join_and_work, args=(place, jobs)))
        processes[-1].start()
    while watch is not None and any(process.is_alive() for process in processes):
        watch([process.pid for process in processes if process.pid is not None])
        time.sleep(0.002)
    for process in processes:
        process.join(seconds)
    assert [process.exitcode for process in processes] == [0] * world
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(world)]


def _join_and_work(place: tuple[int, int, int, Path], jobs: Sequence[Job]) -> None:
    rank, world, port, result = place
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    torch.set_num_threads(1)
    torch.save([work(overrides) for work, overrides in jobs], result)
    stop_ranks()


def first_gradients(overrides: list[str]) -> dict[str, Any]:
    """Of one update: the averaged gradient of every trained parameter, and the draws of this process."""
    config = load_config(SupervisedConfig, "train/smoke", overrides)
    run = engine.SupervisedRun(config, prepare_device(config))
    found: dict[str, Any] = {"gradients": {}, "sigmas": [], "noise": []}
    make = engine.batch_loss

    def watch(model: Any, batch: Any, objective: Any, numbers: Any, caches: Any) -> Any:
        drawn = draws_for(objective, numbers, [torch.Size((4, 8, 8))] * len(numbers))
        found["noise"] += [noise[0, 0, 0].item() for noise in drawn.noise]
        result = make(model, batch, objective, numbers, caches)
        found["sigmas"] += result.sigmas.tolist()
        return result

    engine.batch_loss = watch
    try:
        run._accumulate(iter(run.loader))
    finally:
        engine.batch_loss = make
    average_gradients(run.trained.values(), run.ranks)
    for name, parameter in run.trained.items():
        found["gradients"][name] = whole(parameter.grad).clone()
    return found


def compiled_gradients(overrides: list[str]) -> dict[str, Any]:
    """`first_gradients` with compiled blocks; without the code generator, which takes minutes on a CPU."""
    whole_compile = torch.compile
    torch.compile = partial(whole_compile, backend="aot_eager")
    try:
        return first_gradients([*overrides, "parallel.compile=true"])
    finally:
        torch.compile = whole_compile


def train(overrides: list[str]) -> bool:
    """A whole run of the smoke configuration."""
    return engine.train_supervised(load_config(SupervisedConfig, "train/smoke", overrides))


def lead_and_train(overrides: list[str]) -> None:
    """`train` by the first process of a group, as launchers start it."""
    os.setpgrp()
    train(overrides)


def reinforce(overrides: list[str]) -> dict[str, Any]:
    """A whole run of the smoke configuration of reinforcement; the weights it ends with."""
    from deepgen.train.rl.config import RLConfig
    from deepgen.train.rl.stage import RLRun

    config = load_config(RLConfig, "train/rl_smoke", overrides)
    run = RLRun(config, prepare_device(config))
    assert run.train()
    return {name: whole(parameter.detach()).clone() for name, parameter in run.trained.items()}


def reinforce_until_a_failure(overrides: list[str]) -> tuple[str, int | None]:
    """A run whose reward fails on the last process after the first rollout: what ends it here, and what is saved."""
    return _reinforce_with(overrides, lambda run: _fail() if run.ranks.rank else None)


def reinforce_until_a_stop(overrides: list[str]) -> tuple[str, int | None]:
    """A run of which the last process is asked to stop in the second rollout, while the first waits for a reward."""
    return _reinforce_with(
        overrides, lambda run: setattr(run.stop, "asked", True) if run.ranks.rank else time.sleep(5)
    )


def _fail() -> None:
    raise RewardError("broken")


def _reinforce_with(overrides: list[str], happens: Callable[[Any], None]) -> tuple[str, int | None]:
    from deepgen.rewards.simple import MeanBrightness
    from deepgen.train.rl.config import RLConfig
    from deepgen.train.rl.stage import RLRun

    config = load_config(RLConfig, "train/rl_smoke", overrides)
    run = RLRun(config, prepare_device(config))
    score = MeanBrightness.__call__

    def disturbed(self: Any, batch: Any) -> Any:
        if run.counters.step:
            happens(run)
        return score(self, batch)

    MeanBrightness.__call__ = disturbed
    try:
        said = f"complete: {run.train()}"
    except RewardError as error:
        said = str(error)
    finally:
        MeanBrightness.__call__ = score
    return said, run.checkpointer.latest()


def build_only(overrides: list[str]) -> bool:
    """The model of a run, read, spread and sharded; nothing else."""
    from deepgen.train.build import build

    config = load_config(SupervisedConfig, "train/smoke", overrides)
    build(config, prepare_device(config))
    return True
