"""Trains the world's detector on drawn scenes, half of them sent through the VAE."""

import logging
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor

from deepgen.train.feeds import Batch, draw_stacked, start_feed
from deepgen.train.loop import Ema, Metrics, Progress, StageConfig, apply_update, make_optimizer
from deepgen.train.vae import to_signed
from deepgen.world.concepts import CONCEPTS
from deepgen.world.detector import Detector, degrade
from deepgen.world.sampling import draw_edit, draw_sample
from deepgen.world.scenes import STYLES, Scene
from deepgen.world.sprites import COLOURS, Sprites

log = logging.getLogger("deepgen.train")


class DetectorConfig(StageConfig):
    """`deepgen train nano_detector`."""

    stage: str = "detector"
    init_from: Path | None = Field(None, description="folder of a trained detector to go on from")
    vae: Path | None = Field(None, description="reconstruct half of the pictures with this VAE")
    batch_size: int = Field(256, gt=0)


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
        waiting: dict[tuple[int, int], list[Scene]] = defaultdict(list)
        while True:
            scene = random_scene(rng)
            key = (scene.height, scene.width)
            waiting[key].append(scene)
            if len(waiting[key]) == self.batch_size:
                scenes = waiting.pop(key)
                yield {"pixels": draw_stacked(scenes, sprites), "targets": detector.targets(scenes)}


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Pictures in [0, 1] through the VAE, the latents slightly disturbed as a generator's are."""
    moments = vae.encode(pixels * 2 - 1).latent_dist
    mode = moments.mode()
    disturbed = mode + 0.15 * torch.rand(
        len(mode), 1, 1, 1, device=mode.device
    ) * mode.std() * torch.randn_like(mode)
    return (vae.decode(disturbed).sample.float() / 2 + 0.5).clamp(0, 1)


def train_detector(config: DetectorConfig) -> None:
    """Runs the stage; writes `output_dir/detector`."""
    torch.manual_seed(config.loop.seed)
    device = torch.device(config.device)
    if config.init_from is None:
        detector = build_detector()
    else:
        detector = Detector.from_pretrained(config.init_from, torch_dtype=torch.float32)
    detector = detector.to(device, memory_format=torch.channels_last).train()
    log.info("detector: %.2f M parameters", sum(p.numel() for p in detector.parameters()) / 1e6)
    vae = None
    if config.vae is not None:
        vae = (
            AutoencoderKL.from_pretrained(config.vae, torch_dtype=torch.float32)
            .to(device, memory_format=torch.channels_last)
            .eval()
        )
    optimizer = make_optimizer([detector], config.loop)
    ema = Ema(detector, config.loop.ema_decay)
    metrics = Metrics(config.output_dir)
    feed = start_feed(SceneMaker(config.batch_size), config.sprites, config.loop.seed, config.workers)
    progress = Progress(config.loop)
    for step in progress.updates("detector"):
        batch = next(feed)
        pixels = (
            to_signed(batch["pixels"], device).add_(1).div_(2).contiguous(memory_format=torch.channels_last)
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            if vae is not None:
                half = len(pixels) // 2
                pixels = torch.cat((pixels[:half], reconstruct(vae, pixels[half:]).to(pixels.dtype)))
            outputs = detector(degrade(pixels))
        targets = {name: value.to(device, non_blocking=True) for name, value in batch["targets"].items()}
        loss, parts = detector.loss(outputs, targets)
        loss.backward()
        apply_update(optimizer, progress)
        ema.update()
        if step % config.loop.log_every_steps == 0:
            values = {name: value.item() for name, value in parts.items()}
            metrics.write(stage="detector", step=step, seconds=progress.elapsed, loss=loss.item(), **values)
    ema.swap()
    detector.eval().save_pretrained(config.output_dir / "detector")
