"""The native layout: a file of tensors under native names, alone or as model.pt in a folder.

The published final weights are such a file; with adapters of the VLM under `lmm.` or without.
"""

from pathlib import Path

from deepgen.checkpoints.checkpoint import Bases, Checkpoint
from deepgen.checkpoints.native import native_checkpoint
from deepgen.checkpoints.safetensors_file import check_tail, open_file
from deepgen.checkpoints.tensors import StoredTensors
from deepgen.checkpoints.torch_file import flat_tensors
from deepgen.model.bridge import Bridge

NAME = "native"
FILE_NAME = "model.pt"
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")


def matches(path: Path) -> bool:
    """Whether a path has this layout."""
    return (path.is_file() and path.suffix in SUFFIXES) or (path / FILE_NAME).is_file()


def read_flat(path: Path) -> StoredTensors:
    """All tensors, under the names on disk.

    Raises:
        CheckpointError: damaged, or holding anything else than tensors.
    """
    file = path if path.is_file() else path / FILE_NAME
    if file.suffix in TORCH_SUFFIXES:
        return flat_tensors(file)
    tensors = open_file(file)
    check_tail(file, tensors, (*Bridge.ZERO_INITIALISED, "*lora_*"))
    return tensors


def open_checkpoint(path: Path, bases: Bases) -> Checkpoint:
    """The checkpoint, with what it does not hold from the bases. Raises CheckpointError."""
    return native_checkpoint(NAME, path, read_flat(path), bases)
