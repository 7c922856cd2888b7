"""What reinforcement costs: whole rollouts and their updates on random weights, by the stage's own code."""

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from deepgen.config import load_config
from deepgen.speed.models import SIZES
from deepgen.speed.training import PROMPT
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
    overrides: tuple[str, ...] = ()


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


def rollout_config(work: RolloutWork, folder: Path, device: str, parallel: ParallelConfig) -> RLConfig:
    """The recipe with everything replaced that needs files or services: prompts, rewards, auxiliary data.

    The reward is free, so no phase waits for one.
    """
    side, pictures = SIZES[work.sizes], work.groups * work.group_size
    folder.mkdir(parents=True, exist_ok=True)
    prompts = folder / "prompts.txt"
    prompts.write_text("".join(f"{PROMPT} {i}\n" for i in range(1000)), encoding="utf-8")
    world = "{sets: [{name: world, format: world, task: t2i}], ratio: {t2i: 1}, area: " + f"{side * side}}}"
    options = [
        f"output_dir={folder}",
        f"device={device}",
        f"model={{init_from: {work.sizes}}}",
        f"prompts={{sets: [{{name: prompts, format: prompts, path: {prompts}}}]}}",
        "rewards=[{kind: mean_brightness}]",
        "held_out=[]",
        "metrics={}",
        "samples={}",
        "ema_decay=null",
        "sheet_every_rollouts=0",
        "measure_gradients_every=0",
        f"groups_per_rollout={work.groups}",
        f"group_size={work.group_size}",
        f"rollout_batch_size={work.at_once}",
        f"train_batch_size={work.at_once}",
        f"area={side * side}",
        f"height={side}",
        f"width={side}",
        f"parallel={parallel.model_dump()}",
        *(["frozen_dtype=null"] if work.sizes == TINY else []),
        *work.overrides,
    ]
    plain = load_config(RLConfig, work.recipe, [*options, "sft=null"])
    given = load_config(RLConfig, work.recipe, [*options, f"sft.data={world}"]) if _has_sft(work) else plain
    if given.sft is None:
        return plain
    # As many supervised samples a picture as the recipe has.
    asked = load_config(RLConfig, work.recipe, [f"sft.data={world}"])
    assert asked.sft is not None
    ratio = asked.sft.global_batch_size / (asked.groups_per_rollout * asked.group_size)
    samples = max(1, round(pictures * ratio))
    sft = given.sft.model_copy(
        update={"global_batch_size": samples, "batch_size": min(samples, given.sft.batch_size)}
    )
    return given.model_copy(update={"sft": sft})
