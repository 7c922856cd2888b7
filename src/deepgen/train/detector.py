"""Trains detectors of the world: the evaluation's, and another one that rewards are given by."""

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from deepgen.train.feeds import Batch, draw_stacked
from deepgen.train.seeing import SeeingConfig, by_size, train_seeing
from deepgen.world.concepts import CONCEPTS
from deepgen.world.detector import Detector
from deepgen.world.sampling import draw_edit, draw_sample
from deepgen.world.scenes import STYLES, Scene
from deepgen.world.sprites import COLOURS, Sprites


class DetectorConfig(SeeingConfig):
    """`deepgen train nano_detector` and `nano_reward_detector`."""

    stage: str = "detector"
    init_from: Path | None = Field(None, description="folder of a trained detector to go on from")


def build_detector() -> Detector:
    return Detector(concepts=list(CONCEPTS), colours=list(COLOURS), styles=list(STYLES))


def random_scene(rng: random.Random) -> Scene:
    """Three scenes in four from prompts, the rest from the results of edits."""
    return (
        draw_sample(rng, "train", None).scene if rng.random() < 0.75 else draw_edit(rng, "train", None).target
    )


class SceneMaker:
    """Batches of one picture size: {"pixels": uint8 [n, 3, H, W], "targets": the detector's}."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def __call__(self, rng: random.Random, sprites: Sprites) -> Iterator[Batch]:
        detector = build_detector()
        for scenes in by_size(iter(lambda: random_scene(rng), None), lambda scene: scene, self.batch_size):
            yield {"pixels": draw_stacked(scenes, sprites), "targets": detector.targets(scenes)}


def train_detector(config: DetectorConfig) -> None:
    """Runs the stage; writes `output_dir/detector`."""
    torch.manual_seed(config.loop.seed)
    detector = build_detector()
    if config.init_from is not None:
        detector.take_weights(
            Detector.from_pretrained(config.init_from, torch_dtype=torch.float32, use_safetensors=True)
        )

    def loss_of(pixels: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return detector.loss(detector(pixels), batch["targets"])

    train_seeing(config, detector, SceneMaker(config.batch_size), loss_of)
    detector.save_pretrained(config.output_dir / "detector")
