"""Pictures to normalised latents and back, around diffusers' AutoencoderKL.

Normalised means z = (x − shift_factor)·scaling_factor, or (x − mean)/std for each channel where the VAE's
config has `latents_mean` and `latents_std`. Pixels are in [−1, 1].
"""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from deepgen.errors import ConfigError


def _normalisation(vae: AutoencoderKL, like: Tensor) -> tuple[Tensor, Tensor]:
    """What is subtracted and what is then divided by, each broadcastable over [B, C, h, w]."""
    mean, std = vae.config.latents_mean, vae.config.latents_std
    if (mean is None) != (std is None):
        raise ConfigError("the VAE's config has only one of latents_mean and latents_std; give both or none")
    if mean is None:
        mean, std = [vae.config.shift_factor or 0.0], [1.0 / vae.config.scaling_factor]
    columns = (torch.tensor(values, dtype=like.dtype, device=like.device) for values in (mean, std))
    center, spread = (column.view(1, -1, 1, 1) for column in columns)
    return center, spread


def normalise(vae: AutoencoderKL, raw: Tensor) -> Tensor:
    """Normalised latents of raw ones, [B, C, h, w] each."""
    center, spread = _normalisation(vae, raw)
    return (raw - center) / spread


def denormalise(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Raw latents of normalised ones, [B, C, h, w] each."""
    center, spread = _normalisation(vae, latents)
    return latents * spread + center


def encode_mode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Normalised latents [B, C, H/f, W/f] at the posterior's mode, of pixels [B, 3, H, W] in [−1, 1]."""
    return normalise(vae, vae.encode(pixels.to(vae.dtype)).latent_dist.mode())


def encode_sample(vae: AutoencoderKL, pixels: Tensor, noise: Tensor) -> Tensor:
    """Normalised latents drawn from the posterior, mean + std·noise, with noise [B, C, H/f, W/f]."""
    posterior = vae.encode(pixels.to(vae.dtype)).latent_dist
    raw = posterior.mean + posterior.std * noise.to(posterior.mean.device, posterior.mean.dtype)
    return normalise(vae, raw)


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pixels [B, 3, H, W], nominally in [−1, 1] and not clamped, of normalised latents [B, C, h, w]."""
    return vae.decode(denormalise(vae, latents.to(vae.dtype))).sample


def downsampling(vae: AutoencoderKL) -> int:
    """How many pixels a latent pixel is wide."""
    return 2 ** (len(vae.config.block_out_channels) - 1)
