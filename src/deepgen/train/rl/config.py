"""What a reinforcement run is told. The parts that decide one thing each stand where that thing is done."""

import copy
from typing import Literal

from pydantic import Field, model_validator

from deepgen.config import Config
from deepgen.data.config import DataConfig
from deepgen.flow.sde import SdeKind
from deepgen.model.deepgen import Padding
from deepgen.rewards.config import Rewards, RunnerConfig
from deepgen.train.rl.advantages import AdvantageConfig
from deepgen.train.rl.monitor import CollapseConfig
from deepgen.train.rl.prompts import PromptsConfig
from deepgen.train.rl.surrogate import KlWeighting
from deepgen.train.rl.window import WindowConfig, check_window
from deepgen.train.run_config import RunConfig


class SamplerConfig(Config):
    """How pictures are drawn for training.

    Attributes:
        kind, eta: the stochastic steps, see `flow.sde`; they are taken inside `window`, the others are Euler steps.
        num_inference_steps: of a rollout.
        guidance_scale: 1 is none, and half the work. The policy that is trained is then the guided one.
        negative_prompt: what guidance pushes away from; null: the checkpoint's.
        shift: of the noise levels; null: the checkpoint's.
        padding: pads that the bridge sees; null: the checkpoint's.
        share_noise: the pictures of a group start from the same noise.
    """

    kind: SdeKind = "cps"
    eta: float = Field(0.8, gt=0)
    num_inference_steps: int = Field(10, gt=1)
    guidance_scale: float = Field(1.0, ge=1)
    negative_prompt: str | None = None
    shift: float | None = Field(None, gt=0)
    padding: Padding | None = None
    share_noise: bool = True


class LossConfig(Config):
    """The surrogate.

    Attributes:
        clip_low, clip_high: how far the ratio may move; `clip_high` null: as far as `clip_low`.
        kl_weight: β of the velocity KL to the reference; 0: none, and no reference is kept.
        kl_weighting: see `surrogate.velocity_kl`.
        reference: copy: of the trained weights at the start; adapters_off: the same model without its adapters,
            which needs no copy, where nothing but adapters is trained.
    """

    clip_low: float = Field(1e-4, gt=0, lt=1)
    clip_high: float | None = Field(None, gt=0)
    kl_weight: float = Field(0.0, ge=0)
    kl_weighting: KlWeighting = "unweighted"
    reference: Literal["copy", "adapters_off"] = "copy"

    @property
    def clip(self) -> tuple[float, float]:
        return self.clip_low, self.clip_low if self.clip_high is None else self.clip_high


class SftConfig(Config):
    """The supervised loss beside the surrogate: (1 − weight)·surrogate + weight·supervised, in every update.

    `batch_size` samples pass through a device at once, an update sees `global_batch_size`.
    """

    weight: float = Field(gt=0, lt=1)
    data: DataConfig
    batch_size: int = Field(gt=0)
    global_batch_size: int = Field(gt=0)
    workers: int = Field(2, ge=0)


class RLConfig(Rewards, RunConfig):
    """Reinforcement.

    A rollout draws `groups_per_rollout` prompts, `group_size` pictures of each, over all processes; its pictures are
    trained once, in `updates_per_rollout` updates that share them.

    Attributes:
        rewards: what is trained for. Families of prompts, which weights may name, are the names of the prompt sets.
        reward_sign: −1 pushes rewards down, to see that a reward moves the model at all.
        held_out: scored on the same pictures and never trained for: they tell when a reward is being cheated.
        rollout_batch_size: pictures that are drawn at once on a device, a multiple or a divisor of `group_size`.
        train_batch_size: pictures at one step each that are trained at once on a device.
        area: pixels of a picture; null: the checkpoint's. Edits keep their source's shape.
        height, width: of text→image pictures instead of a square of that area.
        result_guidance_scale: that the trained checkpoint draws with unless told otherwise; null: as the one before. A
            policy trained without guidance needs less of it.
        sheet_every_rollouts: how often a sheet of a rollout's pictures with their rewards is kept; 0: never.
        sprites: of `deepgen world fetch`, for every world set here that names none.
        measure_gradients_every: rollouts between two measurements of each term's gradient and of how far the updates
            move the policy, each of which costs the training of that rollout once more where there is a KL; 0: never.
    """

    stage: Literal["rl"] = "rl"
    log_every_steps: int = Field(1, gt=0)
    prompts: PromptsConfig
    reward_runner: RunnerConfig = RunnerConfig()
    reward_device: str | None = Field(None, description="null: the run's")
    reward_sign: Literal[1, -1] = 1
    group_size: int = Field(8, gt=1)
    groups_per_rollout: int = Field(gt=0)
    updates_per_rollout: int = Field(1, gt=0)
    rollout_batch_size: int = Field(gt=0)
    train_batch_size: int = Field(gt=0)
    area: int | None = Field(None, ge=32 * 32)
    height: int | None = Field(None, gt=0, multiple_of=32)
    width: int | None = Field(None, gt=0, multiple_of=32)
    sampler: SamplerConfig = SamplerConfig()
    window: WindowConfig = WindowConfig()
    advantages: AdvantageConfig = AdvantageConfig()
    loss: LossConfig = LossConfig()
    sft: SftConfig | None = None
    collapse: CollapseConfig = CollapseConfig()
    result_guidance_scale: float | None = Field(None, ge=1)
    sheet_every_rollouts: int = Field(0, ge=0)
    measure_gradients_every: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _one_world(cls, values: object) -> object:
        """`sprites` at the top stands for that of every world set, of prompts and of the supervised loss."""
        if not isinstance(values, dict) or "sprites" not in values:
            return values
        found = copy.deepcopy(values)
        sprites = found.pop("sprites")
        sets = [*(found.get("prompts") or {}).get("sets", [])]
        sets += ((found.get("sft") or {}).get("data") or {}).get("sets", [])
        for one in sets:
            if isinstance(one, dict) and one.get("format") == "world" and one.get("sprites") is None:
                one["sprites"] = sprites
        return found

    @model_validator(mode="after")
    def _fits(self) -> "RLConfig":
        check_window(self.window, self.sampler.num_inference_steps)
        sizes = (self.group_size, self.rollout_batch_size)
        if max(sizes) % min(sizes):
            raise ValueError(
                f"rollout_batch_size {sizes[1]} must be a multiple or a divisor of group_size {sizes[0]}"
            )
        if self.steps % self.updates_per_rollout:
            raise ValueError(
                f"steps {self.steps} must be a multiple of updates_per_rollout {self.updates_per_rollout}"
            )
        if self.group_size % self.updates_per_rollout:
            raise ValueError(
                f"group_size {self.group_size} must be a multiple of updates_per_rollout {self.updates_per_rollout}: "
                "every update takes as many pictures of each group"
            )
        if (self.height is None) != (self.width is None):
            raise ValueError(f"height is {self.height} and width {self.width}; give both, or none")
        if self.sampler.kind == "cps" and self.sampler.eta > 1:
            raise ValueError(f"sampler.eta is {self.sampler.eta}; cps takes at most 1")
        return self
