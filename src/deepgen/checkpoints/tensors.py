"""Strict reading of safetensors: every tensor there, of the right shape, and really downloaded."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from deepgen.checkpoints.defaults import read_json
from deepgen.errors import CheckpointError

WEIGHT_STEMS = ("diffusion_pytorch_model", "model")
ZERO_TAIL_BYTES = 64
"""A file that ends in more zero bytes than this, inside a matrix, was not downloaded to its end: so many
zeros in a row do not occur at the end of trained weights, and a broken download leaves at least a disk block
of them."""
BLOCK = 1 << 20
SHOWN = 3


@dataclass(frozen=True)
class Stored:
    """A tensor and the file it came from."""

    tensor: Tensor
    file: Path


StoredTensors = dict[str, Stored]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a tower's folder, an index's shards or the single file.

    Raises:
        CheckpointError: there are none, or a shard is missing.
    """
    for stem in WEIGHT_STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.exists():
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            for shard in shards:
                if not (folder / shard).exists():
                    raise CheckpointError(
                        f"{folder / shard} is missing, which {index.name} names; download it again"
                    )
            if shards:
                return [folder / shard for shard in shards]
        single = folder / f"{stem}.safetensors"
        if single.exists():
            return [single]
    names = " or ".join(f"{stem}.safetensors" for stem in WEIGHT_STEMS)
    raise CheckpointError(f"{folder} has no weights; expected {names}, or shards with an index")


def read_folder(folder: Path, zero_exempt: Sequence[str] = ()) -> StoredTensors:
    """All tensors of a tower's folder, checked for signs of a broken download.

    Args:
        folder: holds the safetensors.
        zero_exempt: patterns of the names that may be all zero.

    Raises:
        CheckpointError: missing, damaged or truncated files, a tensor stored twice, a matrix of zeros only,
            or a file whose tail is zeros.
    """
    stored: StoredTensors = {}
    for path in weight_files(folder):
        tensors = read_file(path)
        for name, tensor in tensors.items():
            if name in stored:
                raise CheckpointError(f"{name} is in both {stored[name].file} and {path}")
            if not _exempt(name, tensor.shape, zero_exempt) and _all_zero(tensor):
                raise CheckpointError(
                    f"{name} in {path} is all zeros: the download is broken; fetch the file again"
                )
            stored[name] = Stored(tensor, path)
        _check_tail(path, zero_exempt)
    return stored


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: truncated or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}); download it again") from None


def _exempt(name: str, shape: Sequence[int], patterns: Iterable[str]) -> bool:
    return len(shape) < 2 or any(fnmatchcase(name, pattern) for pattern in patterns)


def _all_zero(tensor: Tensor) -> bool:
    flat = tensor.flatten()
    return not bool(flat[:64].any()) and not bool(flat.any())


def _check_tail(path: Path, zero_exempt: Sequence[str]) -> None:
    """Refuse a file whose last bytes are zeros from somewhere inside a matrix."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_size))
        end = size
        while end > 8 + header_size:
            start = max(8 + header_size, end - BLOCK)
            file.seek(start)
            kept = file.read(end - start).rstrip(b"\0")
            end = start + len(kept)
            if kept:
                break
    zeros_from = end - 8 - header_size
    for name, entry in header.items():
        if name == "__metadata__" or len(entry["shape"]) < 2:
            continue
        first, last = entry["data_offsets"]
        if zeros_from <= first and _exempt(name, entry["shape"], zero_exempt):
            continue
        if last - max(first, zeros_from) > ZERO_TAIL_BYTES:
            raise CheckpointError(
                f"{path} ends in zeros from inside {name}: the download is broken; fetch it again"
            )


def rename(stored: StoredTensors, rule: Callable[[str], str | None]) -> StoredTensors:
    """Tensors under new names; a rule that gives None drops the tensor.

    Raises:
        CheckpointError: two tensors get one name.
    """
    renamed: StoredTensors = {}
    for name, item in stored.items():
        new = rule(name)
        if new is None:
            continue
        if new in renamed:
            raise CheckpointError(f"{name} in {item.file} is stored twice, under two spellings")
        renamed[new] = item
    return renamed


def load_strictly(module: nn.Module, stored: Mapping[str, Stored], folder: Path, dtype: torch.dtype) -> None:
    """Give a module built on the meta device its weights, every one of them.

    Args:
        module: takes the tensors as they are (assigned, not copied).
        stored: by the module's own names.
        folder: named in errors.
        dtype: of the floating-point weights.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(stored))
    if missing:
        raise CheckpointError(f"{folder} lacks {_listed(missing)}; the checkpoint is incomplete")
    unexpected = sorted(set(stored) - set(wanted))
    if unexpected:
        raise CheckpointError(
            f"{stored[unexpected[0]].file} has unexpected {_listed(unexpected)}; is it another model's?"
        )
    for name, target in wanted.items():
        shape, item = tuple(stored[name].tensor.shape), stored[name]
        if shape != tuple(target.shape):
            raise CheckpointError(
                f"{name} in {item.file} has shape {list(shape)}, the config asks for {list(target.shape)}"
            )
    ready = {
        name: item.tensor.to(dtype) if item.tensor.is_floating_point() else item.tensor
        for name, item in stored.items()
    }
    module.load_state_dict(ready, assign=True)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more tensors" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
