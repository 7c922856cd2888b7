"""Safetensors files and folders of them: headers read and checked, tensors left on disk."""

import json
import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from deepgen.checkpoints.defaults import read_json
from deepgen.checkpoints.tensors import Span, Stored, StoredTensors, is_exempt
from deepgen.errors import CheckpointError, OutputError

WEIGHT_STEMS = ("diffusion_pytorch_model", "model")
ZERO_TAIL_BYTES = 64
"""A file that ends in more zero bytes than this, inside a matrix, was not downloaded to its end: so many
zeros in a row do not occur at the end of trained weights, and a broken download leaves at least a disk block
of them."""
BLOCK = 1 << 20
MAX_HEADER_BYTES = 100_000_000
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def weight_files(folder: Path, stems: Sequence[str] = WEIGHT_STEMS) -> list[Path]:
    """The safetensors files of a tower's folder, an index's shards or the single file.

    Raises:
        CheckpointError: there are none, a shard is missing, or the index is no index.
    """
    for stem in stems:
        index = folder / f"{stem}.safetensors.index.json"
        if index.exists():
            return [folder / shard for shard in _shards(folder, index)]
        single = folder / f"{stem}.safetensors"
        if single.exists():
            return [single]
    names = " or ".join(f"{stem}.safetensors" for stem in stems)
    raise CheckpointError(f"{folder} has no weights; expected {names}, or shards with an index")


def _shards(folder: Path, index: Path) -> list[str]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(p, str) for p in places.values()):
        raise CheckpointError(f"{index} has no usable weight_map; download it again")
    shards = sorted(set(places.values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise CheckpointError(f"{index} names {shard!r}, which is not a file beside it")
        if not (folder / shard).exists():
            raise CheckpointError(f"{folder / shard} is missing, which {index.name} names; download it again")
    return shards


def read_folder(
    folder: Path, zero_exempt: Sequence[str] = (), stems: Sequence[str] = WEIGHT_STEMS
) -> StoredTensors:
    """All tensors of a tower's folder, with files checked for the signs of a broken download.

    Args:
        folder: holds the safetensors.
        zero_exempt: patterns of the names that may be all zero.
        stems: names that the weights may have, without .safetensors.

    Raises:
        CheckpointError: missing, damaged or truncated files, a tensor stored twice, or a file whose tail is
            zeros.
    """
    stored: StoredTensors = {}
    for path in weight_files(folder, stems):
        tensors = open_file(path)
        check_tail(path, tensors, zero_exempt)
        for name, item in tensors.items():
            if name in stored:
                raise CheckpointError(f"{name} is in both {stored[name].file} and {path}")
            stored[name] = item
    return stored


def open_file(path: Path) -> StoredTensors:
    """The tensors of one file.

    Its header is read here and not by safetensors, which maps the whole file into memory for that.

    Raises:
        CheckpointError: damaged or truncated, or with a tensor of an unknown type.
    """
    try:
        entries, start = _header(path)
        return _stored(path, entries, start)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} is truncated or damaged ({reason}); download it again") from None


def _header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The entries of a file, and where its data starts."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 0 < size <= MAX_HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        content = file.read(size)
    if len(content) != size:
        raise ValueError("its header is cut short")
    entries = json.loads(content)
    entries.pop("__metadata__", None)
    return entries, 8 + size


def _stored(path: Path, entries: dict[str, dict[str, Any]], start: int) -> StoredTensors:
    """Tensors that fill the file without holes, each as long as its shape and type say."""
    stored: StoredTensors = {}
    places = []
    for name, entry in entries.items():
        kind, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if kind not in DTYPES:
            raise CheckpointError(f"{name} in {path} is of type {kind}, which is not supported")
        dtype = DTYPES[kind]
        if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
            raise ValueError(f"the shape or place of {name}")
        if last - first != prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} has {last - first} bytes for shape {shape}")
        places.append((first, last))
        stored[name] = Stored(tuple(shape), (Span(path, start + first, dtype, prod(shape)),))
    end = 0
    for first, last in sorted(places):
        if first != end:
            raise ValueError("its tensors overlap or leave holes")
        end = last
    if start + end != path.stat().st_size:
        raise ValueError(f"{path.stat().st_size} bytes instead of {start + end}")
    return stored


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, read.

    Raises:
        CheckpointError: truncated or damaged.
    """
    return {name: item.read(name, may_be_zero=True) for name, item in open_file(path).items()}


def write_file(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors, contiguous and on the CPU.

    Raises:
        OutputError: no space, no permission or no folder (the library has an error of its own for these).
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        reason = re.search(r"I/O error: (.+) \(os error", str(error))
        raise OutputError(f"{path}: cannot be written ({reason[1] if reason else error})") from None


def check_tail(path: Path, stored: StoredTensors, zero_exempt: Sequence[str]) -> None:
    """Raise CheckpointError for a file whose last bytes are zeros from somewhere inside a matrix."""
    end = path.stat().st_size
    start = min((item.spans[0].offset for item in stored.values()), default=end)
    with path.open("rb") as file:
        while end > start:
            block = max(start, end - BLOCK)
            file.seek(block)
            kept = file.read(end - block).rstrip(b"\0")
            end = block + len(kept)
            if kept:
                break
    for name, item in stored.items():
        span = item.spans[0]
        last = span.offset + span.count * span.dtype.itemsize
        if len(item.shape) < 2 or (end <= span.offset and is_exempt(name, item.shape, zero_exempt)):
            continue
        if last - max(span.offset, end) > ZERO_TAIL_BYTES:
            raise CheckpointError(
                f"{path} ends in zeros from inside {name}: the download is broken; fetch it again"
            )
