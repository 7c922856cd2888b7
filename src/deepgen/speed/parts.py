"""The parts of `deepgen speed scaling`: each runs in processes of its own, `python -m deepgen.speed.parts`.

A part keeps what it has found after every measurement, so that one which is stopped leaves the rest.
"""

import hashlib
import json
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
from torch.distributed.tensor import DTensor

from deepgen.checkpoints import GenerationDefaults
from deepgen.evaluation.detector import load_detector
from deepgen.evaluation.files import write_json
from deepgen.pipeline.pipeline import DeepGenPipeline
from deepgen.speed.models import SIZES, measured_model
from deepgen.speed.profile import collective_seconds
from deepgen.speed.rollout import RolloutWork, measure_rollouts
from deepgen.speed.training import (
    PROMPT,
    Setting,
    Trainer,
    Work,
    make_trainer,
    measure,
    measured_rate,
    random_batch,
)
from deepgen.train.checkpointing import CheckpointConfig, Checkpointer, TensorState
from deepgen.train.optimizer import optimizer_tensors
from deepgen.train.parallel import ParallelConfig, Ranks, local, recompute, start_ranks, stop_ranks
from deepgen.train.published import PUBLISHED_SIZES
from deepgen.train.supervised import Objective, draws_for
from deepgen.train.tiny import TINY
from deepgen.train.trainable import trained_parameters
from deepgen.world.judging import see

NOISED = 32
"""Samples whose noise is compared between numbers of processes."""


@dataclass(frozen=True)
class Options:
    """What a part is told: the large model's sizes, the device, a folder that all parts share, and whether this one
    saves a checkpoint there."""

    sizes: str
    device: str
    folder: str
    save: bool = False


@dataclass
class Part:
    """One part in one process, and what it has found so far.

    Attributes:
        rates: by what was done: images_per_second and, where they are known, seconds, mfu, peak_gib and
            collective_seconds.
        facts: anything else.
    """

    options: Options
    ranks: Ranks
    output: Path
    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def keep(self) -> None:
        """Write what is found so far, by the first process."""
        if self.ranks.first:
            write_json(self.output, {"rates": self.rates, "facts": self.facts})

    def barrier(self) -> None:
        """Wait for all processes, and for the device."""
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize()
        if self.ranks.world_size > 1:
            dist.barrier()

    def parallel(self, **values: Any) -> ParallelConfig:
        """Sharded, in bf16 on a GPU; `values` change what they name."""
        gpu = self.options.device == "cuda"
        base = {"shard": "fsdp", "shard_frozen": False, "compute_dtype": "bfloat16" if gpu else "float32"}
        return ParallelConfig.model_validate(base | values)

    @property
    def small(self) -> bool:
        return self.options.sizes == TINY

    def batch_of(self, task: str, sizes: str) -> Work:
        return Work("sft", task, 2 if self.small else 16, SIZES[sizes])


def sft(part: Part) -> None:
    """Joint fine-tuning (DiT, bridge, VLM adapters), its noise, and its checkpoint."""
    _noise(part)
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
    setting = Setting(parallel, warmup=2, repeats=5 if ranks.device.type == "cuda" else 1)
    peak = measured_rate(parallel, ranks)
    trainer = make_trainer(sizes, "sft", parallel, ranks)
    for task in tasks:
        work = part.batch_of(task, sizes)
        # Fixed, so that it is the same at every number of devices: edits of the published sizes need all of it.
        share = 0.0 if sizes != PUBLISHED_SIZES else 0.5 if task == "t2i" else 1.0
        recompute(trainer.model, share)
        found = measure(trainer, work, setting, peak)
        rate = part.rates[f"{name} {task}"] = {
            key: float(value)
            for key, value in asdict(found).items()
            if key in ("images_per_second", "seconds", "mfu", "peak_gib", "first_seconds")
        }
        part.keep()
        batch, objective = random_batch(work), Objective(0, 3.0, "none")
        rate["collective_seconds"] = collective_seconds(
            partial(trainer.update, batch, objective), trainer.wait
        )
        part.keep()
    return trainer


def _state(trainer: Trainer) -> dict[str, TensorState]:
    trained = trained_parameters(trainer.model)
    return {
        "weights": TensorState(trained),
        "optimizer": TensorState(optimizer_tensors(trainer.optimizer, trained)),
    }


def _squares(trainer: Trainer) -> float:
    """The sum of the squares of all trained weights, in fp64: the same however they are sharded."""
    parameters = trained_parameters(trainer.model).values()
    sums = torch.zeros(2, dtype=torch.float64, device=trainer.ranks.device)
    for parameter in parameters:
        sums[int(isinstance(parameter, DTensor))] += local(parameter.detach()).double().square().sum()
    if trainer.ranks.world_size > 1:
        whole, parts = sums[0].clone(), sums[1].clone()
        dist.all_reduce(parts)
        return float(whole + parts)
    return float(sums.sum())


def _save(part: Part, trainer: Trainer) -> None:
    ranks, state = part.ranks, _state(trainer)
    checkpointer = _checkpointer(part)
    part.facts["weights"] = _squares(trainer)
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
    _load(part, trainer, checkpointer)


def _load(part: Part, trainer: Trainer, checkpointer: Checkpointer) -> None:
    state = _state(trainer)
    part.barrier()
    start = time.perf_counter()
    checkpointer.load(state)
    part.barrier()
    part.facts["load_seconds"] = time.perf_counter() - start
    part.facts["loaded_weights"] = _squares(trainer)
    part.keep()


def resume(part: Part) -> None:
    """Load what `sft` saved with another number of processes, and make one more update."""
    trainer = make_trainer(part.options.sizes, "sft", part.parallel(checkpoint_activations=True), part.ranks)
    _load(part, trainer, _checkpointer(part))
    trainer.update(random_batch(part.batch_of("t2i", part.options.sizes)), Objective(0, 3.0, "none"))


def _checkpointer(part: Part) -> Checkpointer:
    return Checkpointer(Path(part.options.folder) / "checkpoint", CheckpointConfig(), part.ranks)


def _noise(part: Part) -> None:
    """A digest of the noise and levels of the run's first samples, which the processes share among them."""
    ranks = part.ranks
    mine = range(ranks.rank, NOISED, ranks.world_size)
    draws = draws_for(Objective(0, 3.0, "none"), mine, [torch.Size((16, 64, 64))] * len(mine))
    found = {
        number: hashlib.sha256(uniform.numpy().tobytes() + noise.numpy().tobytes()).hexdigest()
        for number, uniform, noise in zip(mine, draws.uniform, draws.noise, strict=True)
    }
    part.facts["noise"] = _digest_of_all(found, ranks)
    part.keep()


def _digest_of_all(found: dict[int, str], ranks: Ranks) -> str:
    """One digest of what all processes have by number."""
    everyone: list[Any] = [found]
    if ranks.world_size > 1:
        everyone = [None] * ranks.world_size
        dist.all_gather_object(everyone, found)
    joined = {number: digest for one in everyone for number, digest in one.items()}
    return hashlib.sha256(json.dumps(sorted(joined.items())).encode()).hexdigest()[:16]


def rl(part: Part) -> None:
    """Rollouts and updates by our recipe of MR-GRPO, two groups of eight pictures a process."""
    _reinforced(part, part.options.sizes, "rl")


def _reinforced(part: Part, sizes: str, name: str) -> None:
    ranks = part.ranks
    size = 2 if sizes == TINY else 8
    work = RolloutWork("rl/mr_grpo_fast", sizes, 2 * ranks.world_size, size, 2 * size)
    folder = Path(part.options.folder) / f"{name}{ranks.world_size}"
    # The transformer is frozen beside its adapters, and sharded all the same.
    parallel = part.parallel(shard_frozen=True, checkpoint_activations=sizes == PUBLISHED_SIZES)
    found = measure_rollouts(work, folder, parallel, ranks, repeats=2 if ranks.device.type == "cuda" else 1)
    part.rates[f"{name} rollout"] = {
        "images_per_second": found.drawn_per_second,
        "seconds": found.phases["rollout"],
        "peak_gib": found.peak_gib,
    }
    part.rates[f"{name} all"] = {"images_per_second": found.images_per_second, "seconds": found.seconds}
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
    ranks, blocks = part.ranks, 16 if part.options.device == "cuda" else 1
    pipe = DeepGenPipeline.from_pretrained("nano", device=ranks.device)
    pipe.set_progress_bar_config(disable=True)
    pipe.name = "nano"
    detector = load_detector()[0].to(ranks.device)
    own = range(ranks.rank, blocks, ranks.world_size)
    see(detector, list(_drawn(part, pipe, range(1), 2).values()))
    part.barrier()
    start = time.perf_counter()
    pictures = _drawn(part, pipe, own, 50)
    part.barrier()
    drawn = time.perf_counter() - start
    see(detector, list(pictures.values()))
    part.barrier()
    judged = time.perf_counter() - start - drawn
    part.rates["nano draw"] = {"images_per_second": 4 * blocks / drawn, "seconds": drawn}
    part.rates["nano judge"] = {"images_per_second": 4 * blocks / judged, "seconds": judged}
    digests = {number: hashlib.sha256(x.tobytes()).hexdigest() for number, x in pictures.items()}
    part.facts["pictures"] = _digest_of_all(digests, ranks)
    part.keep()


PARTS: dict[str, Callable[[Part], None]] = {
    "sft": sft,
    "resume": resume,
    "hsdp": hsdp,
    "rl": rl,
    "draw": draw,
    "nano": nano,
}


def run_part(name: str, options: Options, output: Path) -> None:
    """One part in this process, which joins the group that the environment describes."""
    ranks = start_ranks(options.device)
    try:
        PARTS[name](Part(options, ranks, output))
    finally:
        stop_ranks()


if __name__ == "__main__":
    run_part(sys.argv[1], Options(**json.loads(sys.argv[2])), Path(sys.argv[3]))
