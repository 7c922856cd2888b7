import pytest
import torch
from diffusers import AutoencoderKL

from deepgen.errors import ConfigError
from deepgen.model.vae import decode, denormalise, encode_mode, encode_sample, normalise


def small_vae(**config):
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=2,
        norm_num_groups=2,
        **config,
    ).eval()


def test_published_latents_are_shifted_then_scaled():
    vae = small_vae(scaling_factor=1.5305, shift_factor=0.0609)
    raw = torch.randn(1, 2, 4, 4)
    assert torch.allclose(normalise(vae, raw), (raw - 0.0609) * 1.5305)


def test_channels_with_statistics_are_standardised():
    vae = small_vae(latents_mean=[1.0, -2.0], latents_std=[2.0, 0.5], scaling_factor=9.0)
    raw = torch.randn(1, 2, 4, 4)
    expected = torch.stack([(raw[0, 0] - 1) / 2, (raw[0, 1] + 2) / 0.5])
    assert torch.allclose(normalise(vae, raw)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    "config", [{"scaling_factor": 0.5}, {"latents_mean": [1.0, 2.0], "latents_std": [3.0, 4.0]}]
)
def test_denormalising_undoes_normalising(config):
    vae, raw = small_vae(**config), torch.randn(2, 2, 3, 5)
    assert torch.allclose(denormalise(vae, normalise(vae, raw)), raw, atol=1e-6)


def test_a_sample_without_noise_is_the_mode_and_noise_moves_it_by_the_std():
    vae, pixels, zeros = small_vae(), torch.rand(1, 3, 16, 16) * 2 - 1, torch.zeros(1, 2, 8, 8)
    with torch.no_grad():
        mode, std = encode_mode(vae, pixels), vae.encode(pixels).latent_dist.std
        assert torch.equal(encode_sample(vae, pixels, zeros), mode)
        moved = encode_sample(vae, pixels, zeros + 2) - mode
    assert torch.allclose(moved, 2 * std * vae.config.scaling_factor, atol=1e-6)


def test_decoding_goes_through_the_raw_latents():
    vae, latents = small_vae(scaling_factor=0.5, shift_factor=0.25), torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        assert torch.allclose(decode(vae, latents), vae.decode(latents / 0.5 + 0.25).sample, atol=1e-6)


def test_half_of_the_statistics_is_refused():
    with pytest.raises(ConfigError, match="only one of latents_mean and latents_std"):
        normalise(small_vae(latents_mean=[0.0, 0.0]), torch.zeros(1, 2, 4, 4))
