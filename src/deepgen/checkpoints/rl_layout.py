"""A folder of the reinforcement-learning trainer, checkpoint-N: model.safetensors under native names.

It never holds the VLM's adapters: they were frozen, and its writer leaves out everything of the VLM. Give the
fine-tuned checkpoint that training started from as `lora`.
"""

from pathlib import Path

from deepgen.checkpoints.checkpoint import Bases, Checkpoint
from deepgen.checkpoints.native import native_checkpoint
from deepgen.checkpoints.safetensors_file import read_folder
from deepgen.checkpoints.tensors import StoredTensors
from deepgen.model.bridge import Bridge

NAME = "RL trainer"
STEM = "model"


def matches(path: Path) -> bool:
    """Whether a folder has this layout."""
    return any((path / f"{STEM}.safetensors{end}").is_file() for end in ("", ".index.json"))


def read_flat(path: Path) -> StoredTensors:
    """All tensors, under the names on disk. Raises CheckpointError."""
    exempt = (*Bridge.ZERO_INITIALISED, *(f"*.{name}" for name in Bridge.ZERO_INITIALISED), "*lora_*")
    return read_folder(path, exempt, (STEM,))


def open_checkpoint(path: Path, bases: Bases) -> Checkpoint:
    """The checkpoint, with what it does not hold from the bases. Raises CheckpointError."""
    return native_checkpoint(NAME, path, read_flat(path), bases)
