"""What a training run is told: the base of every stage on the engine, and that of supervised training."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from deepgen.config import Config
from deepgen.data.loader import DataConfig
from deepgen.model.deepgen import Padding
from deepgen.train.checkpointing import CheckpointConfig
from deepgen.train.metrics import MetricsConfig
from deepgen.train.optimizer import OptimizerConfig
from deepgen.train.parallel import DType, ParallelConfig
from deepgen.train.trainable import TrainableConfig


class BridgeSizes(Config):
    """A new bridge for base networks; the defaults are the published one's."""

    hidden_size: int = 2048
    intermediate_size: int = 11946
    num_layers: int = 6
    num_heads: int = 32
    num_fused_layers: int = 6
    num_queries: int = 128


class ModelConfig(Config):
    """Where the model comes from.

    `init_from` is a checkpoint of any layout, a shipped model's name, or "tiny": random networks of a few thousand
    parameters. Without it, a new bridge joins the bases.
    """

    init_from: str | None = None
    base_vlm: str | None = Field(
        None, description="Qwen2.5-VL, for checkpoints without a VLM and for a new bridge"
    )
    base_dit: str | None = Field(None, description="UniPic2, likewise")
    lora: str | None = Field(None, description="adapters to merge before training")
    new_bridge: BridgeSizes | None = None
    sizes: Literal["published"] | None = Field(
        None, description="of networks whose files are not here, for the report of a dry run"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "ModelConfig":
        bases = self.base_vlm is not None and self.base_dit is not None
        if (self.init_from is None) == (self.new_bridge is None):
            raise ValueError("give exactly one of init_from and new_bridge")
        if self.new_bridge is not None and not bases:
            raise ValueError("new_bridge needs base_vlm and base_dit")
        return self


class SampleSheetConfig(Config):
    """Fixed prompts that are drawn at intervals."""

    prompts: list[str] = Field([])
    edits: list[tuple[str, Path]] = Field([], description="instruction and source picture")
    every_steps: int = Field(1000, gt=0)
    num_inference_steps: int | None = Field(None, gt=0, description="null: the checkpoint's")
    guidance_scale: float | None = Field(None, ge=1, description="null: the checkpoint's; 1 is none")
    height: int | None = None
    width: int | None = None


class RunConfig(Config):
    """What supervised training and reinforcement share."""

    stage: str
    output_dir: Path
    steps: int = Field(gt=0, description="optimizer updates")
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cuda"
    memory_fraction: float | None = Field(
        None, gt=0, le=1, description="cap on the device's memory, to try a smaller card"
    )
    model: ModelConfig
    trainable: TrainableConfig
    optimizer: OptimizerConfig
    parallel: ParallelConfig = ParallelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    metrics: MetricsConfig = MetricsConfig()
    frozen_dtype: DType | None = Field(
        "bfloat16", description="of weights that are not trained; null: as stored"
    )
    export_dtype: DType | None = Field(None, description="of the exported weights; null: as in the run")
    log_every_steps: int = Field(10, gt=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    max_skipped_updates: int = Field(10, gt=0, description="not finite in a row, before the run gives up")
    samples: SampleSheetConfig = SampleSheetConfig()

    @model_validator(mode="before")
    @classmethod
    def _shorts(cls, values: object) -> object:
        """`save_every_steps` and `init_from` at the top stand for the keys that they abbreviate."""
        if not isinstance(values, dict):
            return values
        found = dict(values)
        for key, section in (("save_every_steps", "checkpoint"), ("init_from", "model")):
            value = found.pop(key, None)
            if value is not None:
                held = found.get(section)
                found[section] = {**(held if isinstance(held, dict) else {}), key: value}
                if key == "init_from":
                    found[section]["new_bridge"] = None
        return found


class ValidationConfig(Config):
    """Loss on samples that are not trained on, at noise that never changes.

    What `data` does not say of area and resize is as in training, and its prompts are not dropped.
    """

    data: DataConfig | None = None
    samples: int = Field(64, gt=0)
    every_steps: int = Field(1000, gt=0)


class SupervisedConfig(RunConfig):
    """Alignment and fine-tuning; which it is, the trained parts say.

    `batch_size` samples pass through a device at once; an update sees `global_batch_size`, so every process
    accumulates global_batch_size / (batch_size · processes) micro-batches. At another number of processes the
    updates are the same.
    """

    stage: Literal["train"] = "train"
    data: DataConfig
    batch_size: int = Field(gt=0, description="samples on a device at once")
    global_batch_size: int = Field(gt=0, description="samples of an update, over all devices")
    workers: int = Field(4, ge=0, description="processes that prepare data, for each device")
    shift: float | None = Field(None, gt=0, description="of the noise levels; null: the checkpoint's")
    padding: Padding | None = Field(None, description="pads that the bridge sees; null: the checkpoint's")
    cache_dir: Path | None = Field(
        None,
        description="keep latents and picture embeddings of the frozen networks there; null: computed each time",
    )
    validation: ValidationConfig = ValidationConfig()

    @model_validator(mode="before")
    @classmethod
    def _validated_as_trained(cls, values: object) -> object:
        match values:
            case {"data": {} as data, "validation": {"data": {} as own} as validation, **rest}:
                shared = {key: data[key] for key in ("area", "resize") if key in data}
                filled = {"dropout": {}, **shared, **own}
                return {**rest, "data": data, "validation": {**validation, "data": filled}}
        return values

    @model_validator(mode="after")
    def _scored(self) -> "SupervisedConfig":
        if not self.checkpoint.keep_best:
            return self
        if self.validation.data is None:
            raise ValueError(
                "checkpoint.keep_best is by the validation loss; give validation.data, or turn it off"
            )
        saves, checks = self.checkpoint.save_every_steps, self.validation.every_steps
        if saves % checks:
            raise ValueError(
                f"checkpoint.keep_best needs a validation loss at every save, but save_every_steps {saves} is no "
                f"multiple of validation.every_steps {checks}"
            )
        return self
