"""Trains nano's VAE (diffusers' AutoencoderKL) on crops of drawn scenes.

Loss per element: L1 + MSE + L1 of the picture's gradients + `kl_weight` · KL. The gradient term keeps the edges of
letters and faces; the KL weight is per latent element, so that no channel collapses.
"""

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor

from deepgen.errors import DataError
from deepgen.train.feeds import Batch, load_sprites, start_feed
from deepgen.train.loop import Ema, Metrics, Progress, StageConfig, apply_update, make_optimizer
from deepgen.world.draw import draw
from deepgen.world.sampling import draw_sample
from deepgen.world.scenes import Scene
from deepgen.world.sprites import Sprites

log = logging.getLogger("deepgen.train")


class VaeConfig(StageConfig):
    """`deepgen train nano_vae`."""

    stage: str = "vae"
    compile: bool = False
    init_from: Path | None = Field(None, description="folder of a trained VAE to go on from")
    freeze_encoder: bool = Field(
        False, description="train the decoder alone, so that latents keep their meaning"
    )
    batch_size: int = Field(160, gt=0)
    crop: int = Field(128, multiple_of=8)
    channels: tuple[int, ...] = (32, 48, 80, 112)
    latent_channels: int = 16
    norm_num_groups: int = 8
    kl_weight: float = Field(2e-4, ge=0)
    held_out_scenes: int = Field(96, gt=0, description="test scenes that the result is measured on")
    minimum_psnr: float | None = Field(None, description="fail the run below this many dB on whole scenes")


def build_vae(config: VaeConfig) -> AutoencoderKL:
    if config.init_from is not None:
        vae = AutoencoderKL.from_pretrained(config.init_from, torch_dtype=torch.float32)
        vae.encoder.requires_grad_(not config.freeze_encoder)
        return vae
    levels = len(config.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_num_groups,
        sample_size=256,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def _crop_window(rng: random.Random, scene: Scene, crop: int) -> tuple[int, int]:
    """Top left corner of a crop: around an object half of the time, anywhere otherwise."""
    if scene.objects and rng.random() < 0.6:
        thing = rng.choice(scene.objects)
        x = thing.x + rng.randrange(thing.size) - crop // 2
        y = thing.y + rng.randrange(thing.size) - crop // 2
    else:
        x, y = rng.randrange(scene.width), rng.randrange(scene.height)
    return max(0, min(x, scene.width - crop)), max(0, min(y, scene.height - crop))


class CropMaker:
    """Batches {"pixels": uint8 [n, 3, crop, crop]}."""

    def __init__(self, batch_size: int, crop: int) -> None:
        self.batch_size = batch_size
        self.crop = crop

    def __call__(self, rng: random.Random, sprites: Sprites) -> Iterator[Batch]:
        c = self.crop
        while True:
            crops = np.empty((self.batch_size, 3, c, c), dtype=np.uint8)
            for i in range(0, self.batch_size, 2):
                words = ["words"] if rng.random() < 0.2 else None
                scene = draw_sample(rng, "train", words).scene
                picture = draw(scene, sprites).transpose(2, 0, 1)
                for j in range(i, min(i + 2, self.batch_size)):
                    x, y = _crop_window(rng, scene, c)
                    crops[j] = picture[:, y : y + c, x : x + c]
            yield {"pixels": torch.from_numpy(crops)}


def to_signed(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 [..] → float32 in [-1, 1] on `device`."""
    return pixels.to(device, non_blocking=True).float().div_(127.5).sub_(1.0)


def vae_loss(vae: AutoencoderKL, pixels: Tensor, kl_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a batch [B, 3, H, W] in [-1, 1] and its parts."""
    posterior = vae.encode(pixels).latent_dist
    output = vae.decode(posterior.sample()).sample.float()
    error = output - pixels
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    mse = error.square().mean()
    total = error.abs().mean() + mse + gradient + kl_weight * kl
    return total, {"mse": mse.detach(), "kl": kl.detach(), "gradient": gradient.detach()}


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1] (peak to peak 2)."""
    return float(10 * np.log10(4.0 / max(mse, 1e-12)))


@torch.no_grad()
def measure(
    vae: AutoencoderKL, scenes: list[Scene], sprites: Sprites, device: torch.device
) -> dict[str, Any]:
    """Reconstruction of whole scenes through the posterior mode.

    Returns mean PSNR of the scenes, PSNR inside object boxes, and the latents' channel means and deviations.
    """
    scene_psnr, box_psnr, latents = [], [], []
    for scene in scenes:
        pixels = to_signed(torch.from_numpy(draw(scene, sprites).transpose(2, 0, 1).copy())[None], device)
        mode = vae.encode(pixels).latent_dist.mode()
        output = vae.decode(mode).sample.float().clamp(-1, 1)
        squared = (output - pixels).square()[0].mean(0)
        latents.append(mode[0].float().flatten(1))
        scene_psnr.append(psnr(squared.mean().item()))
        for thing in scene.objects:
            box_psnr.append(
                psnr(squared[thing.y : thing.y + thing.size, thing.x : thing.x + thing.size].mean().item())
            )
    flat = torch.cat(latents, dim=1)
    return {
        "psnr": float(np.mean(scene_psnr)),
        "psnr_box": float(np.mean(box_psnr)) if box_psnr else float("nan"),
        "latents_mean": flat.mean(1).tolist(),
        "latents_std": flat.std(1).tolist(),
    }


def train_vae(config: VaeConfig) -> dict[str, Any]:
    """Runs the stage; writes `output_dir/vae` (fp32 safetensors with latent statistics) and returns its measures."""
    torch.manual_seed(config.loop.seed)
    device = torch.device(config.device)
    vae = build_vae(config).to(device, memory_format=torch.channels_last)
    log.info("VAE: %.2f M parameters", sum(p.numel() for p in vae.parameters()) / 1e6)
    optimizer = make_optimizer([vae], config.loop)
    ema = Ema(vae, config.loop.ema_decay)
    metrics = Metrics(config.output_dir)
    feed = start_feed(
        CropMaker(config.batch_size, config.crop), config.sprites, config.loop.seed, config.workers
    )
    step_loss = torch.compile(vae_loss) if config.compile else vae_loss
    progress = Progress(config.loop)
    for step in progress.updates("VAE"):
        pixels = to_signed(next(feed)["pixels"], device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss, parts = step_loss(vae, pixels, config.kl_weight)
        loss.backward()
        apply_update(optimizer, progress)
        ema.update()
        if step % config.loop.log_every_steps == 0:
            values = {k: v.item() for k, v in parts.items()}
            metrics.write(
                stage="vae",
                step=step,
                seconds=progress.elapsed,
                loss=loss.item(),
                psnr=psnr(values["mse"]),
                **values,
            )
    ema.swap()
    return finish_vae(vae, config, metrics)


def finish_vae(vae: AutoencoderKL, config: VaeConfig, metrics: Metrics) -> dict[str, Any]:
    """Measures held-out scenes, stores the latents' statistics in the VAE's configuration and saves it."""
    rng = random.Random("vae-test")
    scenes = [draw_sample(rng, "test", None).scene for _ in range(config.held_out_scenes)]
    vae.eval()
    result = measure(vae, scenes, load_sprites(config.sprites), torch.device(config.device))
    vae.register_to_config(latents_mean=result["latents_mean"], latents_std=result["latents_std"])
    vae.save_pretrained(config.output_dir / "vae")
    deviation = result["latents_std"]
    metrics.write(stage="vae", psnr=result["psnr"], psnr_box=result["psnr_box"], smallest_std=min(deviation))
    if config.minimum_psnr is not None and result["psnr"] < config.minimum_psnr:
        raise DataError(
            f"the VAE reaches {result['psnr']:.1f} dB on whole scenes, below {config.minimum_psnr} dB"
        )
    return result
