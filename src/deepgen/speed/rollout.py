"""What reinforcement costs: whole rollouts and their updates on random weights, by the stage's own code."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median

import torch

from deepgen.config import find_config, load_config, parse_yaml
from deepgen.speed.models import SIZES
from deepgen.speed.profile import collective_seconds
from deepgen.speed.training import PROMPT, Work, measured_rate, peak_gib, random_batch, wait_for
from deepgen.train.flops import FlopCounter, lengths_of
from deepgen.train.metrics import MetricsWriter, read_metrics
from deepgen.train.parallel import ParallelConfig, Ranks
from deepgen.train.rl.config import RLConfig
from deepgen.train.rl.cost import forwards_per_picture
from deepgen.train.rl.stage import RLRun
from deepgen.train.rl.window import choose_window

TASKS = ("t2i", "edit")
PHASES = ("rollout", "reward_wait", "prepare", "sft", "train")


@dataclass(frozen=True)
class RolloutWork:
    """What to measure: a recipe (a configuration's name) on a model, with so many pictures in a rollout."""

    recipe: str
    sizes: str
    groups: int = 8
    group_size: int = 4
    at_once: int = 16


@dataclass(frozen=True)
class RolloutMeasurement:
    """Of one rollout and its updates, over all processes.

    Attributes:
        recipe: its configuration.
        pictures: of a rollout.
        seconds: of it all.
        phases: seconds of each phase.
        images_per_second: pictures drawn, scored and trained.
        drawn_per_second: pictures, in the rollout phase.
        mfu, drawing_mfu: of it all and of the rollout phase; see `operations`.
        collective_seconds: of one more rollout and its updates; 0 where one process is alone.
        passes: of the transformer for a picture, a backward pass counting two.
        peak_gib: of one device.
        first_seconds: of the first rollout, compilation included.
    """

    recipe: str
    pictures: int
    seconds: float
    phases: dict[str, float]
    images_per_second: float
    drawn_per_second: float
    mfu: float
    drawing_mfu: float
    collective_seconds: float
    passes: float
    peak_gib: float
    first_seconds: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def rollout_config(work: RolloutWork, folder: Path, parallel: ParallelConfig, ranks: Ranks) -> RLConfig:
    """The recipe with everything replaced that needs files or services: prompts, rewards, supervised data.

    The reward is free, so no phase waits for one. A picture has as many supervised samples as in the recipe.
    """
    side, pictures = SIZES[work.sizes], work.groups * work.group_size
    folder.mkdir(parents=True, exist_ok=True)
    prompts = folder / f"prompts{ranks.rank}.txt"
    prompts.write_text("".join(f"{PROMPT} {i}\n" for i in range(1000)), encoding="utf-8")
    recipe = parse_yaml(find_config(work.recipe).read_text(encoding="utf-8"), work.recipe)
    recipe |= {
        "output_dir": folder,
        "device": ranks.device.type,
        "model": {"init_from": work.sizes},
        "prompts": {"sets": [{"name": "prompts", "format": "prompts", "path": prompts}]},
        "rewards": [{"kind": "mean_brightness"}],
        "parallel": parallel.model_dump(),
        "rollout_batch_size": work.at_once,
        "train_batch_size": work.at_once,
        "area": side * side,
        "height": side,
        "width": side,
    }
    for unwanted in ("held_out", "metrics", "samples", "sheet_every_rollouts", "measure_gradients_every"):
        recipe.pop(unwanted, None)
    if parallel.compute_dtype == "float32":
        recipe["frozen_dtype"] = None
    if sft := recipe.get("sft"):
        share = sft["global_batch_size"] / (recipe["groups_per_rollout"] * recipe["group_size"])
        each = max(1, round(pictures * share / ranks.world_size))
        sets = [{"name": task, "format": "world", "task": task} for task in sft["data"]["ratio"]]
        data = {"ratio": sft["data"]["ratio"], "area": side * side, "sets": sets}
        batch_size = min(sft["batch_size"], each)
        sft |= {
            "data": data,
            "batch_size": batch_size,
            "global_batch_size": each // batch_size * batch_size * ranks.world_size,
            "workers": 2 if ranks.device.type == "cuda" else 0,
        }
    recipe |= {"groups_per_rollout": work.groups, "group_size": work.group_size}
    return load_config(RLConfig, recipe)


def operations(run: RLRun, rollout: int) -> tuple[float, float]:
    """Operations that a rollout needs over all processes: those of drawing, and all.

    Counted as in `train.flops`: nothing twice that recomputation does again, and the steps that a group shares once for
    the group. Prompts and supervised samples count with the length of the measurements' prompt, negative prompts too.

    Args:
        run: whose prompts and pictures are those of `rollout_config`.
        rollout: its number, which decides the window.
    """
    config, plan, sampler = run.config, run.plan, run.config.sampler
    counter, side = FlopCounter(run.model), config.height or 0
    lengths = {task: lengths_of(run.model, random_batch(Work("", task, 1, side)))[0] for task in TASKS}
    one = lengths["t2i"]
    window = choose_window(config.window, sampler.num_inference_steps, config.seed, rollout)
    shared = window.noised.start if sampler.share_noise else 0
    sides = 2 if sampler.guidance_scale > 1 else 1
    rows = plan.pictures * (sampler.num_inference_steps - shared) + plan.groups * shared
    drawing = sides * (rows * counter.transformer(one, False) + plan.groups * counter.reading(one, False))
    drawing += plan.pictures * counter.decoding(one.sizes[0])
    forwards = (1 if config.loss.kl_weight else 0) + (1 if config.updates_per_rollout > 1 else 0)
    training = plan.pictures * (counter.transformer(one) + forwards * counter.transformer(one, False))
    if run.learner.retold:
        training += plan.groups * (counter.reading(one) + forwards * counter.reading(one, False))
    total = drawing + sides * len(window.trained) * training
    if config.sft is not None:
        ratio = config.sft.data.ratio
        sample = sum(part * counter.sample(lengths[task]) for task, part in ratio.items()) / sum(
            ratio.values()
        )
        total += config.updates_per_rollout * config.sft.global_batch_size * sample
    return drawing, total


def measure_rollouts(
    work: RolloutWork, folder: Path, parallel: ParallelConfig, ranks: Ranks, repeats: int = 2
) -> RolloutMeasurement:
    """One rollout to warm up, then some; each number is the median.

    Args:
        work: what to measure.
        folder: for what a run leaves behind; each process may have its own.
        parallel: how the work is spread.
        ranks: this process.
        repeats: of the rollouts that count.
    """
    config, peak = rollout_config(work, folder, parallel, ranks), measured_rate(parallel, ranks)
    run = RLRun(config, ranks)
    metrics = MetricsWriter(folder, active=ranks.first)
    if ranks.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        for _ in range(1 + repeats):
            run.advance(metrics)
        most = peak_gib(ranks)
        needed = [operations(run, rollout) for rollout in range(1, 1 + repeats)]
        collectives = 0.0
        if ranks.world_size > 1:
            collectives = collective_seconds(partial(run.advance, metrics), partial(wait_for, ranks))
    finally:
        run.close()
        metrics.close()
    records = read_metrics(folder / "metrics.jsonl") if ranks.first else []
    told = [{k: float(v) for k, v in one.items() if k.startswith("time/")} for one in records]
    later = told[1 : 1 + repeats]

    def middle(name: str) -> float:
        return median([one.get(f"time/{name}", 0.0) for one in later]) if later else 0.0

    def share(operations: float, seconds: float) -> float:
        return operations / (seconds * peak * ranks.world_size) if seconds else 0.0

    pictures, seconds, drawing = work.groups * work.group_size, middle("all"), middle("rollout")
    return RolloutMeasurement(
        recipe=work.recipe,
        pictures=pictures,
        seconds=seconds,
        phases={name: middle(name) for name in PHASES},
        images_per_second=pictures / seconds if seconds else 0.0,
        drawn_per_second=pictures / drawing if drawing else 0.0,
        mfu=share(mean(whole for _, whole in needed), seconds),
        drawing_mfu=share(mean(drawn for drawn, _ in needed), drawing),
        collective_seconds=collectives,
        passes=forwards_per_picture(config),
        peak_gib=most,
        first_seconds=told[0]["time/all"] if told else 0.0,
    )
