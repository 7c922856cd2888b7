"""The layout that we write: the published diffusers folders, and what those leave out.

model_index.json  connector/  transformer/  vae/  vlm/  scheduler/     as published
generation_config.json  connector/config.json                          added
    adapters/                                                              where adapters were not merged
"""

from pathlib import Path

from deepgen.checkpoints import defaults as generation
from deepgen.checkpoints import diffusers_layout
from deepgen.checkpoints.adapters import with_adapters
from deepgen.checkpoints.base_folders import read_base_vlm
from deepgen.checkpoints.checkpoint import Bases, Checkpoint
from deepgen.checkpoints.defaults import GenerationDefaults
from deepgen.model.dit import DiT

NAME = "deepgen"
ADAPTERS = "adapters"
FOLDERS = ("connector", "transformer", "vae", "vlm", "scheduler")


def matches(path: Path) -> bool:
    """Whether a folder has this layout."""
    return (path / generation.FILE_NAME).is_file() and diffusers_layout.matches(path)


def open_checkpoint(path: Path, bases: Bases) -> Checkpoint:
    """The checkpoint, which is whole without any base. Raises CheckpointError."""
    defaults = GenerationDefaults.from_file(path / generation.FILE_NAME)
    # A model at the start of its training has zeros where trained ones cannot have them.
    parts, missing = diffusers_layout.folder_parts(path, DiT.ZERO_INITIALISED)
    for name in FOLDERS:
        if not (path / name).is_dir():
            missing[name] = f"{path / name} is missing; the checkpoint is incomplete"
    if "vlm" not in missing:
        parts["vlm"] = read_base_vlm(path / "vlm")
    checkpoint = Checkpoint(NAME, path, parts, defaults, (path / "vlm",), missing)
    adapters = path / ADAPTERS
    return with_adapters(checkpoint, adapters) if adapters.is_dir() else checkpoint
