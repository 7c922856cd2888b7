"""Puts separately trained towers together into one checkpoint that `from_pretrained` opens."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from pydantic import Field
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from deepgen.checkpoints import GenerationDefaults, save_model
from deepgen.config import Config
from deepgen.model.bridge import Bridge
from deepgen.model.deepgen import DeepGenModel
from deepgen.model.dit import DiT
from deepgen.model.vlm import FusedVLM
from deepgen.world.scenes import OBLONG, SQUARE


class AssembleConfig(Config):
    """`deepgen train train/nano_assemble`: no training, only the last step of nano's recipe."""

    stage: str = "assemble"
    output_dir: Path
    vlm: Path
    vae: Path
    diffusion: Path = Field(description="folder with connector/ and transformer/")
    num_inference_steps: int = 20
    guidance_scale: float = 4.0
    shift: float = 2.0


def assemble(config: AssembleConfig) -> None:
    """Writes the checkpoint in bf16 to `output_dir`."""
    vlm = Qwen2_5_VLForConditionalGeneration.from_pretrained(config.vlm, dtype=torch.float32)
    bridge = Bridge.from_pretrained(config.diffusion / "connector", torch_dtype=torch.float32)
    fused = FusedVLM(vlm.model, AutoTokenizer.from_pretrained(config.vlm), bridge.config.num_fused_layers)
    dit = DiT.from_pretrained(config.diffusion / "transformer", torch_dtype=torch.float32)
    model = DeepGenModel(
        fused, bridge, dit, AutoencoderKL.from_pretrained(config.vae, torch_dtype=torch.float32)
    )
    defaults = GenerationDefaults(
        area=SQUARE[0] * SQUARE[1],
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        shift=config.shift,
        padding="none",
        negative_prompt="",
        negative_edit_prompt="",
        trained_sizes=tuple((height, width) for width, height in (SQUARE, *OBLONG)),
    )
    save_model(model, defaults, config.output_dir, torch.bfloat16)
