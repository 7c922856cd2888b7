"""A folder of DeepSpeed ZeRO stage 1 or 2, put together without DeepSpeed.

    mp_rank_00_model_states.pt                          names, shapes and order of what was trained; buffers
    [bf16_]zero_pp_rank_R_mp_rank_00_optim_states.pt    rank R's share of the fp32 master weights

For each parameter group the ranks' shares, laid end to end, are that group's parameters one after another. They are
read in fp32; the published loader rounds them to fp16 on the way, which loses bits for nothing.
"""

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from deepgen.checkpoints.checkpoint import Bases, Checkpoint
from deepgen.checkpoints.native import native_checkpoint
from deepgen.checkpoints.tensors import Span, Stored, StoredTensors
from deepgen.checkpoints.torch_file import Placeholder, read_torch_file
from deepgen.errors import CheckpointError

NAME = "DeepSpeed ZeRO"
MODEL_STATES = "mp_rank_00_model_states.pt"
OPTIMIZER_STATES = "*zero_pp_rank_*_mp_rank_00_optim_states.pt"
PACKAGES = (
    *("deepspeed", "mmengine", "xtuner", "transformers", "accelerate", "trl", "peft", "numpy", "torch"),
    *("datetime", "pathlib", "argparse", "enum", "collections", "copyreg", "copy_reg", "_codecs"),
    *("omegaconf", "addict", "types.SimpleNamespace", "__main__"),
)
BUILTINS = (
    *("set", "frozenset", "bytearray", "complex", "slice", "range", "object", "getattr"),
    *("int", "float", "bool", "str", "bytes", "list", "dict", "tuple"),
)
TRAINERS_OWN = frozenset(
    {*PACKAGES, *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in BUILTINS)}
)
"""What the trainer's own state is made of; it is neither imported nor used."""


def matches(path: Path) -> bool:
    """Whether a folder has this layout."""
    return (path / MODEL_STATES).is_file()


def open_checkpoint(path: Path, bases: Bases) -> Checkpoint:
    """The checkpoint, with what it does not hold from the bases. Raises CheckpointError."""
    return native_checkpoint(NAME, path, read_flat(path), bases)


def read_flat(path: Path) -> StoredTensors:
    """All tensors, under the names on disk.

    Raises:
        CheckpointError: a file is missing or damaged, or the shares do not add up to the parameters.
    """
    states = _read_states(path / MODEL_STATES)
    stored: StoredTensors = {}
    frozen = states.get("frozen_param_fragments")
    if isinstance(frozen, Mapping):
        stored |= {name: item for name, item in frozen.items() if isinstance(item, Stored)}
    stored |= _buffers(states)
    groups, ranks = _shares(path)
    shapes = states.get("param_shapes")
    if not isinstance(shapes, list) or len(shapes) != len(groups):
        count = len(shapes) if isinstance(shapes, list) else "no"
        raise CheckpointError(
            f"{path / MODEL_STATES} lists {count} parameter groups, the optimizer states hold {len(groups)}"
        )
    for names, spans in zip(shapes, groups, strict=True):
        stored |= _cut(path, names, spans, alignment=2 * ranks)
    shared = states.get("shared_params")
    for name, source in shared.items() if isinstance(shared, Mapping) else ():
        if source in stored:
            stored[name] = stored[source]
    return stored


def _read_states(file: Path) -> dict[str, Any]:
    states = read_torch_file(file, TRAINERS_OWN)
    if not isinstance(states, dict):
        raise CheckpointError(f"{file} is no file of DeepSpeed; is it complete?")
    return states


def _buffers(states: dict[str, Any]) -> StoredTensors:
    module, names = states.get("module"), states.get("buffer_names") or ()
    if not isinstance(module, Mapping):
        return {}
    return {name: item for name, item in module.items() if name in names and isinstance(item, Stored)}


def _shares(path: Path) -> tuple[list[list[Span]], int]:
    """For each parameter group its spans in the order of the ranks; and the number of ranks.

    Raises:
        CheckpointError: files of ranks are missing, or they are of another stage.
    """
    files = sorted(path.glob(OPTIMIZER_STATES), key=_rank)
    if not files:
        raise CheckpointError(f"{path} has no {OPTIMIZER_STATES}; copy the whole folder")
    by_rank = []
    for file in files:
        state = _read_states(file).get("optimizer_state_dict")
        if not isinstance(state, dict):
            raise CheckpointError(f"{file} has no optimizer_state_dict; is it DeepSpeed's?")
        stage = state.get("zero_stage", 2)
        stage = stage.arguments[0] if isinstance(stage, Placeholder) and stage.arguments else stage
        partitions = state.get("single_partition_of_fp32_groups")
        if stage == 3 or not isinstance(partitions, list):
            raise CheckpointError(
                f"{file} is of ZeRO stage {stage}; stages 1 and 2 can be read: convert it with DeepSpeed's "
                "zero_to_fp32.py"
            )
        counts = state.get("partition_count", len(files))
        expected = max(counts, default=0) if isinstance(counts, list) else counts
        if expected != len(files):
            raise CheckpointError(f"{path} has the states of {len(files)} of {expected} ranks; copy the rest")
        by_rank.append([_span(file, item) for item in partitions])
    if len({len(groups) for groups in by_rank}) != 1:
        raise CheckpointError(
            f"the ranks in {path} disagree about the parameter groups; is it one checkpoint?"
        )
    return [list(spans) for spans in zip(*by_rank, strict=True)], len(files)


def _rank(file: Path) -> int:
    found = re.search(r"zero_pp_rank_(\d+)_", file.name)
    return int(found[1]) if found else -1


def _span(file: Path, item: Any) -> Span:
    if not isinstance(item, Stored) or len(item.shape) != 1 or item.strides is not None:
        raise CheckpointError(f"{file} has a share of the weights that is no plain vector; is it damaged?")
    return item.spans[0]


def _cut(path: Path, shapes: Any, spans: list[Span], alignment: int) -> StoredTensors:
    """The parameters of one group, each from the spans that it lies in.

    Raises:
        CheckpointError: there are more or fewer values than the shapes ask for. DeepSpeed fills the whole up to a
            multiple of twice the ranks, so that much may be over.
    """
    if not isinstance(shapes, Mapping) or not all(isinstance(shape, tuple) for shape in shapes.values()):
        raise CheckpointError(f"{path / MODEL_STATES} has no usable param_shapes")
    available, wanted = sum(s.count for s in spans), sum(prod(shape) for shape in shapes.values())
    if -(-available // alignment) != -(-wanted // alignment) or available < wanted:
        raise CheckpointError(
            f"{path} holds {available} values for parameters of {wanted}; files are missing or damaged"
        )
    stored: StoredTensors = {}
    first = 0
    for name, shape in shapes.items():
        last, pieces, start = first + prod(shape), [], 0
        for span in spans:
            low, high = max(first, start), min(last, start + span.count)
            if low < high:
                pieces.append(span.part(low - start, high - start))
            start += span.count
        stored[str(name)] = Stored(shape, tuple(pieces) or (spans[0].part(0, 0),))
        first = last
    return stored
