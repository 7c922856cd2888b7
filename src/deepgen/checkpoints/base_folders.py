"""Folders of single networks: the parts of the diffusers layouts, and the base models that others build on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepgen.checkpoints.checkpoint import Part
from deepgen.checkpoints.defaults import read_json
from deepgen.checkpoints.safetensors_file import read_folder
from deepgen.checkpoints.tensors import rename
from deepgen.checkpoints.towers import vlm_name
from deepgen.errors import CheckpointError


@dataclass(frozen=True)
class BaseDit:
    """What a folder of UniPic2 gives; `shift` of its noise schedule."""

    transformer: Part
    vae: Part
    shift: float


def read_part(folder: Path, zero_exempt: tuple[str, ...] = (), with_weights: bool = True) -> Part:
    """A network of a folder with config.json and weights.

    Raises:
        CheckpointError: the folder, its config or its weights are missing or damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing; the checkpoint is incomplete")
    config_file = folder / "config.json"
    config = read_json(config_file)
    tensors = read_folder(folder, zero_exempt) if with_weights else {}
    return Part(folder, tensors, config, config_file, zero_exempt)


def read_base_vlm(folder: Path, with_weights: bool = True) -> Part:
    """Qwen2.5-VL of a folder, under our names; without weights only what its config says."""
    part = read_part(folder, (), with_weights)
    return Part(part.origin, rename(part.tensors, vlm_name), part.config, part.config_file)


def read_base_dit(folder: Path, with_weights: bool = True, with_vae: bool = True) -> BaseDit:
    """UniPic2's transformer, VAE and schedule; without weights only what their configs say."""
    return BaseDit(
        read_part(folder / "transformer", (), with_weights),
        read_part(folder / "vae", (), with_vae),
        read_shift(folder / "scheduler"),
    )


def read_shift(folder: Path) -> float:
    """The shift of a scheduler's folder; 3 where it does not say.

    Raises:
        CheckpointError: no scheduler_config.json, dynamic shifting, or a shift that is no positive number.
    """
    file = folder / "scheduler_config.json"
    scheduler: dict[str, Any] = read_json(file)
    if scheduler.get("use_dynamic_shifting"):
        raise CheckpointError(
            f"{file} asks for dynamic shifting, which no DeepGen checkpoint was trained with"
        )
    shift = scheduler.get("shift", 3.0)
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not 0 < shift < float("inf"):
        raise CheckpointError(f"{file}: shift is {shift!r}, not a positive number")
    return float(shift)
