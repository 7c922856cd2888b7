"""The layout of the published diffusers repository, and ours, which adds two files to it.

    model_index.json  connector/  transformer/  vae/  vlm/  scheduler/       published
    generation_config.json  connector/config.json                            ours, added

`model_index.json` names code of its own in published repositories; it is neither read nor executed.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from deepgen.checkpoints import defaults as generation
from deepgen.checkpoints.defaults import GenerationDefaults, read_json
from deepgen.checkpoints.towers import (
    load_bridge,
    load_dit,
    load_tokenizer,
    load_vae,
    load_vlm,
)
from deepgen.errors import CheckpointError
from deepgen.model.deepgen import DeepGenModel
from deepgen.model.dit import DiT
from deepgen.model.vlm import FusedVLM

TOWERS = ("connector", "transformer", "vae", "scheduler")


def matches(path: Path) -> bool:
    """Whether a folder has this layout."""
    return (path / "connector").is_dir() and (path / "transformer").is_dir()


def load(path: Path, dtype: torch.dtype, vlm_path: Path | None) -> tuple[DeepGenModel, GenerationDefaults]:
    """The model on the CPU, and how it likes to be sampled.

    Args:
        path: the checkpoint's folder.
        dtype: of all weights.
        vlm_path: a Qwen2.5-VL folder, for the early repositories without vlm/.

    Raises:
        CheckpointError: a folder, file or tensor is missing, damaged or does not fit.
    """
    for name in TOWERS:
        if not (path / name).is_dir():
            raise CheckpointError(f"{path / name} is missing; the checkpoint is incomplete")
    ours = (path / generation.FILE_NAME).exists()
    vlm_folder = _vlm_folder(path, vlm_path)
    vlm = load_vlm(vlm_folder, dtype)
    tokenizer = load_tokenizer([vlm_folder, path / "tokenizer", path])
    dit = load_dit(path / "transformer", dtype, DiT.ZERO_INITIALISED if ours else ())
    bridge = load_bridge(
        path / "connector", dtype, vlm.config.text_config.hidden_size, dit.config.attention_head_dim
    )
    vae = load_vae(path / "vae", dtype)
    fused = FusedVLM(vlm, tokenizer, bridge.config.num_fused_layers)
    return DeepGenModel(fused, bridge, dit, vae), _defaults(path, ours)


def _vlm_folder(path: Path, vlm_path: Path | None) -> Path:
    # A vlm/ beside the weights holds the tuned VLM: the base model would load as well, and draw worse.
    if (path / "vlm").is_dir():
        return path / "vlm"
    if vlm_path is None:
        raise CheckpointError(f"{path} has no vlm/; give the folder of Qwen2.5-VL-3B-Instruct as vlm_path")
    return vlm_path


def _defaults(path: Path, ours: bool) -> GenerationDefaults:
    if ours:
        return GenerationDefaults.from_file(path / generation.FILE_NAME)
    file = path / "scheduler" / "scheduler_config.json"
    scheduler: dict[str, Any] = read_json(file)
    if scheduler.get("use_dynamic_shifting"):
        raise CheckpointError(
            f"{file} asks for dynamic shifting, which no DeepGen checkpoint was trained with"
        )
    return dataclasses.replace(GenerationDefaults(), shift=float(scheduler.get("shift", 3.0)))
