"""One way in for every layout: find out which it is, open it, load it."""

from pathlib import Path
from types import ModuleType

import torch

from deepgen.checkpoints import (
    deepspeed_layout,
    diffusers_layout,
    hub,
    native_layout,
    own_layout,
    rl_layout,
)
from deepgen.checkpoints.adapters import with_adapters
from deepgen.checkpoints.checkpoint import Bases, Checkpoint
from deepgen.checkpoints.defaults import GenerationDefaults
from deepgen.errors import CheckpointError
from deepgen.model.deepgen import DeepGenModel

LAYOUTS = (own_layout, diffusers_layout, deepspeed_layout, native_layout, rl_layout)
"""Modules with NAME, matches(path) and open_checkpoint(path, bases), asked in this order."""

PathOrName = str | Path


def load_model(
    path: PathOrName,
    torch_dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
    base_vlm: PathOrName | None = None,
    base_dit: PathOrName | None = None,
    lora: PathOrName | None = None,
) -> tuple[DeepGenModel, GenerationDefaults]:
    """Load a checkpoint of any layout strictly, in evaluation mode.

    Args:
        path, base_vlm, base_dit, lora: see `open_checkpoint`.
        torch_dtype: of all weights; the published code runs everything in bfloat16. None keeps the stored types.
        device: where the model goes.

    Raises:
        InputError: no such file, folder or repository.
        CheckpointError: an unknown layout, or tensors missing, unexpected, mis-shaped or damaged.
    """
    return open_checkpoint(path, base_vlm, base_dit, lora).load(torch_dtype, device)


def open_checkpoint(
    path: PathOrName,
    base_vlm: PathOrName | None = None,
    base_dit: PathOrName | None = None,
    lora: PathOrName | None = None,
) -> Checkpoint:
    """Find out what a checkpoint is and what it holds, without reading weights.

    Each argument is a path, or `org/name[@revision]` on the hub.

    Args:
        path: a checkpoint of any layout.
        base_vlm: Qwen2.5-VL, for checkpoints without a VLM.
        base_dit: UniPic2, for checkpoints without VAE and schedule.
        lora: adapters to merge: a checkpoint that holds some of the VLM, or a peft folder.

    Raises:
        InputError: no such file, folder or repository; or adapters for a checkpoint that has its own.
        CheckpointError: an unknown layout, or damaged files.
    """
    place = hub.locate(path, "model")
    bases = Bases(
        None if base_vlm is None else hub.locate(base_vlm, "vlm"),
        None if base_dit is None else hub.locate(base_dit, "dit"),
    )
    checkpoint = layout_of(place).open_checkpoint(place, bases)
    return checkpoint if lora is None else with_adapters(checkpoint, hub.locate(lora, "lora"))


def layout_of(path: Path) -> ModuleType:
    """The module of a path's layout.

    Raises:
        CheckpointError: it has none that is known.
    """
    for layout in LAYOUTS:
        if layout.matches(path):
            return layout
    inside = (
        [p.name for p in sorted(path.iterdir()) if any(x.matches(p) for x in LAYOUTS)]
        if path.is_dir()
        else []
    )
    hint = f"; give one of those in it: {', '.join(inside[:5])}" if inside else ""
    raise CheckpointError(
        f"{path} has no known layout; expected a folder with connector/, transformer/, vae/, vlm/, scheduler/, with "
        f"model.pt, with model.safetensors or of DeepSpeed, or a file {', '.join(native_layout.SUFFIXES)}{hint}"
    )
