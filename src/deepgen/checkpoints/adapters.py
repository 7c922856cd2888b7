"""Adapters from outside a checkpoint: found, matched to its networks, merged into what will be read."""

from dataclasses import replace
from pathlib import Path

from deepgen.checkpoints import deepspeed_layout, native_layout, rl_layout
from deepgen.checkpoints.checkpoint import Checkpoint, Part
from deepgen.checkpoints.lora import (
    Adapter,
    check_adapters,
    is_factor,
    is_peft_folder,
    read_adapters,
    read_peft_folder,
)
from deepgen.checkpoints.native import canonical_name, vlm_adapters
from deepgen.checkpoints.tensors import StoredTensors, rename
from deepgen.checkpoints.towers import vlm_name
from deepgen.errors import CheckpointError, InputError

FLAT_LAYOUTS = (deepspeed_layout, native_layout, rl_layout)
"""Layouts that can hold adapters."""


def with_adapters(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """A checkpoint with further adapters, to be merged into its networks; an incomplete one is left as it is.

    Raises:
        InputError: the adapters' file holds none, or the checkpoint has some of its own.
        CheckpointError: an adapter does not fit.
    """
    if any(part.adapters for part in checkpoint.parts.values()):
        raise InputError(f"{checkpoint.path} holds adapters of its own; leave lora out")
    if checkpoint.missing:
        return checkpoint
    if is_peft_folder(path):
        parts = _with_peft(checkpoint, *read_peft_folder(path))
    else:
        part = replace(checkpoint.parts["vlm"], adapters=_published_adapters(path))
        check_adapters(part.tensors, part.adapters)
        parts = {"vlm": part}
    return replace(checkpoint, parts={**checkpoint.parts, **parts}, adapted=True)


def _published_adapters(path: Path) -> dict[str, Adapter]:
    layout = next((x for x in FLAT_LAYOUTS if x.matches(path)), None)
    if layout is None:
        raise InputError(f"{path} is neither a checkpoint with adapters nor a peft folder")
    flat: StoredTensors = rename(layout.read_flat(path), canonical_name)
    factors = {name: item for name, item in flat.items() if is_factor(name)}
    if not factors:
        raise InputError(
            f"{path} holds no LoRA of the VLM (tensors named lmm.*.lora_*); give the fine-tuned checkpoint"
        )
    return vlm_adapters(read_adapters(factors))


def _with_peft(checkpoint: Checkpoint, adapters: dict[str, Adapter], whole: StoredTensors) -> dict[str, Part]:
    """Each adapter goes to the network that has its module: the VLM, the transformer or the connector.

    Raises:
        CheckpointError: a module is of none of them.
    """
    changed: dict[str, Part] = {}
    for module in {**adapters, **whole}:
        found = _owner(checkpoint, module)
        if found is None:
            continue
        tower, name = found
        part = changed.get(tower, checkpoint.parts[tower])
        if module in whole:
            if whole[module].shape != part.tensors[name].shape:
                raise CheckpointError(
                    f"{module} in {whole[module].file} has shape {list(whole[module].shape)}, the model has "
                    f"{list(part.tensors[name].shape)}"
                )
            part = replace(part, tensors={**part.tensors, name: whole[module]})
        if module in adapters:
            part = replace(part, adapters={**part.adapters, name: adapters[module]})
            check_adapters(part.tensors, {name: adapters[module]})
        changed[tower] = part
    return changed


def _owner(checkpoint: Checkpoint, module: str) -> tuple[str, str] | None:
    """The network of an adapted module and our name of its weight; None for the language head, which is not used."""
    in_vlm = vlm_name(f"{module.removeprefix('lmm.')}.weight")
    if in_vlm is None:
        return None
    candidates = {
        "vlm": in_vlm,
        "transformer": f"{module.removeprefix('transformer.')}.weight",
        "connector": f"{module}.weight",
    }
    for tower, name in candidates.items():
        if tower in checkpoint.parts and name in checkpoint.parts[tower].tensors:
            return tower, name
    raise CheckpointError(f"the peft folder adapts {module}, which neither the VLM nor the transformer has")
