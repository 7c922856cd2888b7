"""The parts of `deepgen speed scaling`, in order, in processes of their own (`python -m deepgen.speed.parts`).

A part keeps what it has found after every measurement, so that one which is stopped leaves the rest.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from deepgen.checkpoints import GenerationDefaults
from deepgen.evaluation.detector import load_detector
from deepgen.evaluation.files import write_json
from deepgen.pipeline.pipeline import DeepGenPipeline
from deepgen.speed.models import SIZES, measured_model
from deepgen.speed.profile import collective_seconds
from deepgen.speed.rollout import RolloutWork, measure_rollouts
from deepgen.speed.sameness import digest_of_all, fine_tuning_noise, rollout_noise, tensors_digest
from deepgen.speed.training import (
    PROMPT,
    Setting,
    Trainer,
    Work,
    make_trainer,
    measure,
    measured_rate,
    random_batch,
    release,
    wait_for,
)
from deepgen.train.checkpointing import CheckpointConfig, Checkpointer, TensorState
from deepgen.train.optimizer import optimizer_tensors
from deepgen.train.parallel import ParallelConfig, Ranks, recompute, start_ranks, stop_ranks
from deepgen.train.published import PUBLISHED_SIZES
from deepgen.train.supervised import Objective
from deepgen.train.tiny import TINY
from deepgen.train.trainable import trained_parameters
from deepgen.world.judging import see


@dataclass(frozen=True)
class Options:
    """What a part is told: the large model's sizes, the device, a folder that all parts share; whether it saves a
    checkpoint there, and how many processes saved the one that it loads."""

    sizes: str
    device: str
    folder: str
    save: bool = False
    load: int = 0


@dataclass
class Part:
    """One part in one process, and what it has found so far.

    Attributes:
        rates: by what was done: images_per_second and, where they are known, seconds, mfu, peak_gib and
            collective_seconds.
        same: digests of what must be the same at every number of processes, by name.
        facts: anything else.
        done: whether it came to its end.
    """

    options: Options
    ranks: Ranks
    output: Path
    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    done: bool = False

    def keep(self) -> None:
        """Write what is found so far, by the first process."""
        if self.ranks.first:
            found = {"rates": self.rates, "same": self.same, "facts": self.facts, "done": self.done}
            write_json(self.output, found)

    def barrier(self) -> None:
        """Wait for all processes, and for the device."""
        wait_for(self.ranks)
        if self.ranks.world_size > 1:
            dist.barrier()

    def parallel(self, **values: Any) -> ParallelConfig:
        """Sharded, in bf16 on a GPU; `values` change what they name."""
        gpu = self.options.device == "cuda"
        base = {"shard": "fsdp", "shard_frozen": False, "compute_dtype": "bfloat16" if gpu else "float32"}
        return ParallelConfig.model_validate(base | values)

    @property
    def small(self) -> bool:
        """Whether this is only to see that it works."""
        return self.options.sizes == TINY or self.options.device != "cuda"

    def batch_of(self, task: str, sizes: str) -> Work:
        return Work("sft", task, 2 if self.small else 16, SIZES[sizes])


def noise(part: Part) -> None:
    """Digests of the noise that tiny runs of the stages use."""
    folder = Path(part.options.folder) / f"noise{part.ranks.world_size}"
    part.same["noise of fine-tuning"] = fine_tuning_noise(folder / "supervised", part.ranks)
    part.keep()
    rollout, supervised = rollout_noise(folder / "rollout", part.ranks)
    part.same |= {"noise of rollouts": rollout, "noise of their supervised loss": supervised}


def sft(part: Part) -> None:
    """Joint fine-tuning (DiT, bridge, VLM adapters), and its checkpoint."""
    # Not compiled: at published sizes that takes longer than a part may.
    trainer = _supervised(part, part.options.sizes, "sft", part.parallel(), ("t2i", "edit"))
    if part.options.save:
        _save(part, trainer)


def hsdp(part: Part) -> None:
    """The same with two replicas of a model that is sharded over half of the devices each."""
    parallel = part.parallel(shard="hsdp", replicas=2)
    _supervised(part, part.options.sizes, "hsdp", parallel, ("t2i",))


def _supervised(
    part: Part, sizes: str, name: str, parallel: ParallelConfig, tasks: tuple[str, ...]
) -> Trainer:
    ranks = part.ranks
    setting = Setting(parallel, warmup=2, repeats=3 if ranks.device.type == "cuda" else 1)
    peak = measured_rate(parallel, ranks)
    trainer = make_trainer(sizes, "sft", parallel, ranks)
    for task in tasks:
        work = part.batch_of(task, sizes)
        # Fixed, so that it is the same at every number of devices: what should fit on a single one of 80 GB.
        share = 0.0 if sizes != PUBLISHED_SIZES else 0.75 if task == "t2i" else 1.0
        recompute(trainer.model, share)
        found = measure(trainer, work, setting, peak)
        rate = part.rates[f"{name} {task}"] = {
            key: float(value)
            for key, value in asdict(found).items()
            if key in ("images_per_second", "seconds", "mfu", "peak_gib", "first_seconds")
        }
        rate["collective_seconds"] = 0.0
        if ranks.world_size > 1:
            update = partial(trainer.update, random_batch(work), Objective(0, 3.0, "none"))
            rate["collective_seconds"] = collective_seconds(update, partial(wait_for, trainer.ranks))
        part.keep()
    return trainer


def _state(trainer: Trainer) -> dict[str, TensorState]:
    trained = trained_parameters(trainer.model)
    return {
        "weights": TensorState(trained),
        "optimizer": TensorState(optimizer_tensors(trainer.optimizer, trained)),
    }


def _digests(trainer: Trainer) -> dict[str, str]:
    """Of weights and optimizer's state, by name. Collective."""
    return {name: tensors_digest(state.tensors) for name, state in _state(trainer).items()}


def _save(part: Part, trainer: Trainer) -> None:
    ranks, state = part.ranks, _state(trainer)
    checkpointer = _checkpointer(part, ranks.world_size)
    part.facts["saved"] = _digests(trainer)
    part.barrier()
    start = time.perf_counter()
    checkpointer.save(1, state)
    part.facts["save_waits_seconds"] = time.perf_counter() - start
    checkpointer.wait()
    part.barrier()
    part.facts["save_seconds"] = time.perf_counter() - start
    if ranks.first:
        files = [x for x in checkpointer.folder.rglob("*") if x.is_file()]
        part.facts["checkpoint_gb"] = sum(x.stat().st_size for x in files) / 1e9
    part.keep()


def resume(part: Part) -> None:
    """Load what another number of processes saved, compare it, make one more update, and save in turn."""
    trainer = make_trainer(part.options.sizes, "sft", part.parallel(checkpoint_activations=True), part.ranks)
    state, checkpointer = _state(trainer), _checkpointer(part, part.options.load)
    part.barrier()
    start = time.perf_counter()
    checkpointer.load(state)
    part.barrier()
    part.facts |= {"load_seconds": time.perf_counter() - start, "loaded_from": part.options.load}
    part.facts["loaded"] = _digests(trainer)
    part.keep()
    trainer.update(random_batch(part.batch_of("t2i", part.options.sizes)), Objective(0, 3.0, "none"))
    if part.options.save:
        _save(part, trainer)


def _checkpointer(part: Part, processes: int) -> Checkpointer:
    return Checkpointer(Path(part.options.folder) / f"checkpoint{processes}", CheckpointConfig(), part.ranks)


def rl(part: Part) -> None:
    """Rollouts and updates by our recipe of MR-GRPO, two groups of eight pictures a process."""
    _reinforced(part, part.options.sizes, "rl")


def _reinforced(part: Part, sizes: str, name: str) -> None:
    ranks = part.ranks
    size = 2 if part.small else 8
    work = RolloutWork("rl/mr_grpo_fast", sizes, 2 * ranks.world_size, size, 2 * size)
    folder = Path(part.options.folder) / f"{name}{ranks.world_size}"
    # The transformer is frozen beside its adapters, and sharded all the same.
    parallel = part.parallel(shard_frozen=True, checkpoint_activations=sizes == PUBLISHED_SIZES)
    found = measure_rollouts(work, folder, parallel, ranks, repeats=2 if ranks.device.type == "cuda" else 1)
    part.rates[f"{name} rollout"] = {
        "images_per_second": found.drawn_per_second,
        "seconds": found.phases["rollout"],
        "mfu": found.drawing_mfu,
    }
    part.rates[f"{name} all"] = {
        "images_per_second": found.images_per_second,
        "seconds": found.seconds,
        "mfu": found.mfu,
        "peak_gib": found.peak_gib,
        "collective_seconds": found.collective_seconds,
    }
    part.keep()


def draw(part: Part) -> None:
    """Data-parallel drawing with the large model: four pictures at once on each device, 50 steps."""
    pipe = _pipeline(part, part.options.sizes)
    steps = 2 if part.small else 50
    _drawn(part, pipe, range(1), 2)
    part.barrier()
    start = time.perf_counter()
    _drawn(part, pipe, [part.ranks.rank], steps)
    part.barrier()
    seconds = time.perf_counter() - start
    part.rates["draw"] = {
        "images_per_second": 4 * part.ranks.world_size / seconds,
        "seconds": seconds,
    }
    part.keep()


def _pipeline(part: Part, sizes: str) -> DeepGenPipeline:
    dtype = torch.bfloat16 if part.ranks.device.type == "cuda" else torch.float32
    model = measured_model(sizes, part.ranks.device).to(dtype)
    defaults = GenerationDefaults()
    pipe = DeepGenPipeline(model.vlm, model.bridge, model.dit, model.vae, defaults, sizes)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _drawn(part: Part, pipe: DeepGenPipeline, blocks: Any, steps: int) -> dict[int, np.ndarray]:
    """Pictures by number, of blocks of four; a picture's seed is its number."""
    side = SIZES[pipe.name]
    found: dict[int, np.ndarray] = {}
    for block in blocks:
        numbers = [4 * block + i for i in range(4)]
        result = pipe([PROMPT] * 4, height=side, width=side, seed=numbers, num_inference_steps=steps)
        found.update(zip(numbers, (np.asarray(x) for x in result.images), strict=True))
    return found


def nano(part: Part) -> None:
    """Nano: drawing a fixed set of pictures, judging them with the world's detector, reinforcement, fine-tuning."""
    _drawn_and_judged(part)
    _reinforced(part, "nano", "nano rl")
    _supervised(part, "nano", "nano sft", part.parallel(), ("t2i",))


def _drawn_and_judged(part: Part) -> None:
    ranks, gpu = part.ranks, part.options.device == "cuda"
    blocks, steps = (16, 50) if gpu else (2, 1)
    pipe = DeepGenPipeline.from_pretrained("nano", device=ranks.device)
    pipe.set_progress_bar_config(disable=True)
    pipe.name = "nano"
    detector = load_detector()[0].to(ranks.device)
    own = range(ranks.rank, blocks, ranks.world_size)
    see(detector, list(_drawn(part, pipe, range(1), 1).values()))
    part.barrier()
    start = time.perf_counter()
    pictures = _drawn(part, pipe, own, steps)
    part.barrier()
    drawn = time.perf_counter() - start
    see(detector, list(pictures.values()))
    part.barrier()
    judged = time.perf_counter() - start - drawn
    part.rates["nano draw"] = {"images_per_second": 4 * blocks / drawn, "seconds": drawn}
    part.rates["nano judge"] = {"images_per_second": 4 * blocks / judged, "seconds": judged}
    digests = [f"{number} {hashlib.sha256(x.tobytes()).hexdigest()}" for number, x in pictures.items()]
    part.same["nano's pictures"] = digest_of_all(digests, ranks)
    part.keep()


PARTS: dict[str, Callable[[Part], None]] = {
    "noise": noise,
    "sft": sft,
    "rl": rl,
    "resume": resume,
    "draw": draw,
    "hsdp": hsdp,
    "nano": nano,
}
"""In the order of their worth."""


def work() -> None:
    """What each process of a group does: say that it has started, by a file; read on its standard input which group it
    belongs to and which parts to do; do them in order."""
    Path(sys.argv[1]).touch()
    told = json.loads(sys.stdin.readline())
    os.environ.update(told["environment"])
    ranks = start_ranks(told["device"])
    try:
        for one in told["tasks"]:
            part = Part(Options(**one["options"]), ranks, Path(one["output"]))
            PARTS[one["part"]](part)
            release(ranks)
            part.barrier()
            part.done = True
            part.keep()
    finally:
        stop_ranks()


if __name__ == "__main__":
    work()
