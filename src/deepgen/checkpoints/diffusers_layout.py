"""The layout of the published diffusers repository.

    model_index.json  connector/  transformer/  vae/  scheduler/     always
    vlm/                                                             not in the first release

`model_index.json` and the configs name classes of code that is not there; they are neither read nor executed.
"""

import warnings
from pathlib import Path

from deepgen.checkpoints.base_folders import read_base_vlm, read_part, read_shift
from deepgen.checkpoints.checkpoint import Bases, Checkpoint, Part
from deepgen.checkpoints.defaults import GenerationDefaults, read_json
from deepgen.checkpoints.safetensors_file import read_folder
from deepgen.errors import CheckpointError
from deepgen.model.bridge import Bridge

NAME = "diffusers"
NEEDS_VLM = (
    "{path} has no vlm/; give the folder of Qwen2.5-VL-3B-Instruct as base_vlm (--base-vlm), or its name on the hub, "
    "Qwen/Qwen2.5-VL-3B-Instruct"
)


def matches(path: Path) -> bool:
    """Whether a folder has this layout."""
    return (path / "connector").is_dir() and (path / "transformer").is_dir()


def open_checkpoint(path: Path, bases: Bases) -> Checkpoint:
    """The checkpoint; a base VLM is used only where it has none. Raises CheckpointError."""
    parts, missing = folder_parts(path, ())
    vlm = path / "vlm"
    if vlm.is_dir():
        # A vlm/ beside the weights holds the tuned VLM: the base model would load as well, and draw worse.
        if bases.vlm is not None:
            warnings.warn(f"{path} has a VLM of its own; base_vlm is not used", stacklevel=2)
    elif bases.vlm is not None:
        vlm = bases.vlm
    else:
        missing["vlm"] = NEEDS_VLM.format(path=path)
    if "vlm" not in missing:
        parts["vlm"] = read_base_vlm(vlm)
    if not (path / "scheduler").is_dir():
        missing["scheduler"] = f"{path / 'scheduler'} is missing; the checkpoint is incomplete"
    shift = 3.0 if "scheduler" in missing else read_shift(path / "scheduler")
    tokenizers = (vlm, path / "tokenizer", path)
    return Checkpoint(NAME, path, parts, GenerationDefaults(shift=shift), tokenizers, missing)


def folder_parts(path: Path, dit_zeros: tuple[str, ...]) -> tuple[dict[str, Part], dict[str, str]]:
    """Connector, transformer and VAE as far as their folders are there, and what is not.

    Args:
        path: the checkpoint's folder.
        dit_zeros: patterns of the transformer's weights that may be all zero.

    Raises:
        CheckpointError: a folder is there but incomplete or damaged.
    """
    parts: dict[str, Part] = {}
    missing: dict[str, str] = {}
    for name, zeros in (("transformer", dit_zeros), ("vae", ())):
        if (path / name).is_dir():
            parts[name] = read_part(path / name, zeros)
        else:
            missing[name] = f"{path / name} is missing; the checkpoint is incomplete"
    parts["connector"] = read_connector(path / "connector")
    return parts, missing


def read_connector(folder: Path) -> Part:
    """The bridge; published ones come without a config."""
    tensors = read_folder(folder, Bridge.ZERO_INITIALISED)
    config_file = folder / "config.json"
    if not config_file.exists():
        return Part(folder, tensors, zero_exempt=Bridge.ZERO_INITIALISED)
    config = read_json(config_file)
    if "projector_1.weight" not in tensors:
        raise CheckpointError(f"{folder} lacks projector_1.weight; the bridge is incomplete")
    return Part(folder, tensors, config, config_file, Bridge.ZERO_INITIALISED)
