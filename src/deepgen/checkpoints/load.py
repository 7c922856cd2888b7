"""One way in for every layout: find out which it is, load it, put it on a device."""

from pathlib import Path

import torch

from deepgen.checkpoints import diffusers_layout
from deepgen.checkpoints.defaults import GenerationDefaults
from deepgen.errors import CheckpointError
from deepgen.model.deepgen import DeepGenModel

LAYOUTS = (diffusers_layout,)
"""Modules with matches(path) and load(path, dtype, vlm_path), asked in this order."""


def load_model(
    path: str | Path,
    torch_dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    vlm_path: str | Path | None = None,
) -> tuple[DeepGenModel, GenerationDefaults]:
    """Load a checkpoint strictly, in evaluation mode.

    Args:
        path: its folder.
        torch_dtype: of all weights; the published code runs everything in bfloat16.
        device: where the model goes.
        vlm_path: a Qwen2.5-VL folder, only for checkpoints that come without one.

    Raises:
        CheckpointError: no such folder, an unknown layout, or tensors missing, unexpected, mis-shaped or
            damaged.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give a checkpoint's folder")
    for layout in LAYOUTS:
        if layout.matches(folder):
            model, defaults = layout.load(folder, torch_dtype, None if vlm_path is None else Path(vlm_path))
            return model.eval().to(device), defaults
    raise CheckpointError(
        f"{folder} has no known layout; expected connector/, transformer/, vae/, vlm/, scheduler/"
    )
