"""The loop of the small networks that look at pictures of the world: two detectors, the reader, the dual encoder.

They learn from drawn scenes, half of each batch sent through the VAE with slightly disturbed latents and all of it a
little degraded, so that they judge content and not sharpness. None of them ever sees a generated picture.
"""

import json
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, ModelMixin
from pydantic import Field
from torch import Tensor

from deepgen.train.feeds import Batch, Maker, draw_stacked, load_sprites, start_feed
from deepgen.train.loop import Ema, Metrics, Progress, StageConfig, apply_update, make_optimizer
from deepgen.world.detector import degrade
from deepgen.world.scenes import Scene

log = logging.getLogger("deepgen.train")

METRICS_FILE = "metrics.json"
T = TypeVar("T")

LossOf = Callable[[Tensor, Batch], tuple[Tensor, dict[str, Tensor]]]
"""The loss of pictures [B, 3, H, W] in [0, 1] with their batch, whose tensors are on the device, and its parts."""


class SeeingConfig(StageConfig):
    """What every network that looks is told."""

    stage: str
    vae: Path | None = Field(None, description="reconstruct half of the pictures with this VAE")
    disturbance: float = Field(0.15, ge=0, description="of the reconstructed latents, at most, in deviations")
    degradation: float = Field(
        1.0, ge=0, le=2, description="strength of blur, noise and changes of brightness"
    )
    batch_size: int = Field(256, gt=0)
    reuse: int = Field(1, gt=0, description="updates for each batch that is drawn and rebuilt by the VAE")
    kept: int = Field(32, gt=0, description="drawn batches kept on the device to be used again")


def by_size(samples: Iterator[T], scene_of: Callable[[T], Scene], count: int) -> Iterator[list[T]]:
    """Lists of `count` samples whose scenes have one width and height."""
    waiting: dict[tuple[int, int], list[T]] = {}
    for sample in samples:
        scene = scene_of(sample)
        same = waiting.setdefault((scene.width, scene.height), [])
        same.append(sample)
        if len(same) == count:
            yield waiting.pop((scene.width, scene.height))


def again(batches: Iterator[T], times: int, kept: int, rng: random.Random) -> Iterator[T]:
    """Each batch when it comes, and after it `times` - 1 of the last `kept`, at random."""
    pool: deque[T] = deque(maxlen=kept)
    for new in batches:
        yield new
        if times > 1:
            pool.append(new)
        for _ in range(times - 1):
            yield rng.choice(pool)


class Reconstruction:
    """Pictures as a VAE gives them back. Raises OSError where the folder holds none."""

    def __init__(self, folder: Path, device: torch.device, disturbance: float) -> None:
        vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True)
        self._vae = vae.to(device, memory_format=torch.channels_last).eval()
        self._disturbance = disturbance

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1], the latents disturbed as a generator's are: each picture's by its own strength."""
        mode = self._vae.encode(pixels * 2 - 1).latent_dist.mode()
        strength = self._disturbance * torch.rand(len(mode), 1, 1, 1, device=mode.device)
        disturbed = mode + strength * mode.std() * torch.randn_like(mode)
        return (self._vae.decode(disturbed).sample.float() / 2 + 0.5).clamp(0, 1)


def train_seeing(config: SeeingConfig, network: ModelMixin, maker: Maker, loss_of: LossOf) -> Metrics:
    """Trains the network on the config's device and leaves it in evaluation mode with averaged weights.

    maker: batches with "pixels", uint8 [B, 3, H, W], and what `loss_of` needs.
    """
    device = torch.device(config.device)
    network.to(device, memory_format=torch.channels_last).train()
    log.info("%s: %.2f M parameters", config.stage, sum(p.numel() for p in network.parameters()) / 1e6)
    through_vae = None if config.vae is None else Reconstruction(config.vae, device, config.disturbance)
    optimizer = make_optimizer([network], config.loop)
    ema = Ema(network, config.loop.ema_decay)
    metrics = Metrics(config.output_dir)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    def prepared(batch: Batch) -> Batch:
        """On the device, half of the pictures as the VAE gives them back: once for all updates that use them."""
        batch = _moved(batch, device)
        if through_vae is not None:
            half = len(batch["pixels"]) // 2
            with autocast:
                rebuilt = through_vae(batch["pixels"][half:].float() / 255)
            batch["pixels"][half:] = (rebuilt * 255).round().byte()
        return batch

    drawn = start_feed(maker, config.sprites, config.loop.seed, config.workers)
    feed = again(map(prepared, drawn), config.reuse, config.kept, random.Random(config.loop.seed))
    progress = Progress(config.loop)
    for step in progress.updates(config.stage):
        batch = next(feed)
        pixels = (batch["pixels"].float() / 255).contiguous(memory_format=torch.channels_last)
        with autocast:
            loss, parts = loss_of(degrade(pixels, strength=config.degradation), batch)
        loss.backward()
        apply_update(optimizer, progress)
        ema.update()
        if step % config.loop.log_every_steps == 0:
            values = {name: value.item() for name, value in parts.items()}
            metrics.write(stage=config.stage, step=step, seconds=progress.elapsed, loss=loss.item(), **values)
    ema.swap()
    network.eval()
    return metrics


def _moved(values: Any, device: torch.device) -> Any:
    """Tensors of a batch, also those inside dictionaries, on the device."""
    if isinstance(values, dict):
        return {name: _moved(value, device) for name, value in values.items()}
    return values.to(device, non_blocking=True) if isinstance(values, Tensor) else values


@torch.no_grad()
def held_out_pictures(config: SeeingConfig, scenes: Sequence[Scene]) -> dict[str, list[Tensor]]:
    """Each scene drawn, uint8 [1, 3, H, W], and with a VAE also reconstructed (undisturbed): what results are for."""
    sprites = load_sprites(config.sprites)
    drawn = [draw_stacked([scene], sprites) for scene in scenes]
    if config.vae is None:
        return {"drawn": drawn}
    device = torch.device(config.device)
    through_vae = Reconstruction(config.vae, device, 0.0)
    again = [through_vae(picture.to(device).float() / 255) for picture in drawn]
    return {"drawn": drawn, "reconstructed": [(one * 255).round().byte().cpu() for one in again]}


def write_measures(
    config: SeeingConfig, folder: Path, metrics: Metrics, found: dict[str, dict[str, float]]
) -> None:
    """Into the run's metrics, and as `metrics.json` beside the weights."""
    for kind, values in found.items():
        metrics.write(stage=config.stage, kind=kind, **values)
    (folder / METRICS_FILE).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
