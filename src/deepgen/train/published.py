"""The published model's sizes with random weights: for reports without files, and for measuring speed."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import Qwen2_5_VLModel
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig

from deepgen.model.bridge import Bridge
from deepgen.model.deepgen import DeepGenModel
from deepgen.model.dit import DiT
from deepgen.model.prompts import IMAGE_PAD
from deepgen.model.vlm import FusedVLM
from deepgen.train.tiny import tiny_tokenizer

PUBLISHED_SIZES = "published-sizes"

VLM_TEXT: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
VLM_VISION: dict[str, Any] = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 2048,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
"""Qwen2.5-VL-3B."""

DIT: dict[str, Any] = {
    "sample_size": 128,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": list(range(13)),
    "qk_norm": "rms_norm",
}
"""SD3.5 medium."""

VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def published_model(device: torch.device | str = "meta", dtype: torch.dtype = torch.float32) -> DeepGenModel:
    """The published networks on a device, with random weights made there where it is not the meta device.

    Weights that are zero in a new model are random too, so that no product is trivial.
    """
    tokenizer = tiny_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config=VLM_TEXT,
        vision_config=VLM_VISION,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_PAD),
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        vlm = FusedVLM(Qwen2_5_VLModel(config), tokenizer)
        model = DeepGenModel(vlm, Bridge(), DiT.from_config(DIT), AutoencoderKL.from_config(VAE))
    if torch.device(device).type == "meta":
        return model.eval()
    model.to(dtype).to_empty(device=device)
    with torch.no_grad():
        _randomise(model)
    return model.eval()


def _randomise(model: nn.Module) -> None:
    """Small normal matrices, ones in norms, zeros in biases."""
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, std=0.02)
        elif "norm" in name and name.endswith("weight"):
            nn.init.ones_(parameter)
        else:
            nn.init.zeros_(parameter)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.zero_()
