"""What reinforcement costs: whole rollouts and their updates on random weights, by the stage's own code."""

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from deepgen.config import find_config, load_config, parse_yaml
from deepgen.speed.models import SIZES
from deepgen.speed.training import PROMPT, peak_gib
from deepgen.train.metrics import MetricsWriter, read_metrics
from deepgen.train.parallel import ParallelConfig, Ranks
from deepgen.train.rl.config import RLConfig
from deepgen.train.rl.cost import forwards_per_picture
from deepgen.train.rl.stage import RLRun
from deepgen.train.tiny import TINY

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
    if work.sizes == TINY:
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
    config = rollout_config(work, folder, parallel, ranks)
    run = RLRun(config, ranks)
    metrics = MetricsWriter(folder, active=ranks.first)
    if ranks.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        for _ in range(1 + repeats):
            run.advance(metrics)
    finally:
        run.close()
        metrics.close()
    records = read_metrics(folder / "metrics.jsonl") if ranks.first else []
    told = [{k: float(v) for k, v in one.items() if k.startswith("time/")} for one in records]
    later = told[1:]

    def middle(name: str) -> float:
        return median([one.get(f"time/{name}", 0.0) for one in later]) if later else 0.0

    pictures, seconds, drawing = work.groups * work.group_size, middle("all"), middle("rollout")
    return RolloutMeasurement(
        recipe=work.recipe,
        pictures=pictures,
        seconds=seconds,
        phases={name: middle(name) for name in PHASES},
        images_per_second=pictures / seconds if seconds else 0.0,
        drawn_per_second=pictures / drawing if drawing else 0.0,
        passes=forwards_per_picture(config),
        peak_gib=peak_gib(ranks),
        first_seconds=told[0]["time/all"] if told else 0.0,
    )
