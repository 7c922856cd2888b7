"""Files written by torch.save, read without running anything that they name.

Such a file is a zip of a pickle and raw storages. A pickle can name any function and have it called; here the names
that make up tensors get our own stand-ins, and every other name is refused. Nothing is imported or called on a
file's behalf.
"""

import io
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from deepgen.checkpoints.tensors import Span, Stored, StoredTensors, listed
from deepgen.errors import CheckpointError

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LOCAL_HEADER = 30
"""Bytes of a zip entry's own header before its name (PKWARE's APPNOTE 4.3.7)."""
DAMAGE = (
    *(pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError, OverflowError),
    *(MemoryError, RecursionError, struct.error, zipfile.BadZipFile, NotImplementedError),
)
"""What reading garbage as a zip or as a pickle raises."""


class Placeholder:
    """Stands for an object of a class that is not imported; takes whatever a pickle does to it."""

    arguments: tuple[Any, ...]

    def __new__(cls, *arguments: Any, **_: Any) -> "Placeholder":
        self = object.__new__(cls)
        self.arguments = arguments
        return self

    def __call__(self, *arguments: Any) -> "Placeholder":
        return Placeholder(*arguments)

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass


def _tensor(storage: Span, offset: int, size: Any, stride: Any, *_: Any) -> Stored:
    """torch's own rebuilding function, for a tensor that stays on disk."""
    shape, strides = tuple(map(int, size)), tuple(map(int, stride))
    if len(shape) != len(strides) or min((*shape, *strides, offset), default=0) < 0:
        raise ValueError(f"a tensor of shape {shape} and strides {strides}")
    extent = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if offset + extent > storage.count:
        raise ValueError(f"a tensor of shape {shape} does not fit its storage")
    expected, rowwise = 1, True
    for side, step in zip(reversed(shape), reversed(strides), strict=True):
        rowwise &= side == 1 or step == expected
        expected *= side
    span = storage.part(offset, offset + extent)
    return Stored(shape, (span,), None if rowwise or not extent else strides)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _size(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _size,
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}


class _Refused(Exception):
    """A pickle names something that is neither a tensor's part nor a known placeholder."""


class _Reader(pickle.Unpickler):
    def __init__(self, content: bytes, placeholders: Collection[str], storages: dict[str, tuple[int, int]]):
        super().__init__(io.BytesIO(content))
        self.placeholders, self.storages = placeholders, storages
        self.path = Path()

    def find_class(self, module: str, name: str) -> Any:
        known = KNOWN.get((module, name))
        if known is not None:
            return known
        if {module, module.partition(".")[0], f"{module}.{name}"} & set(self.placeholders):
            return Placeholder
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Span:
        kind, dtype, key, _, count = pid
        offset, size = self.storages[str(key)]
        if kind != "storage" or count < 0 or count * dtype.itemsize > size:
            raise ValueError("a storage shorter than the pickle says")
        return Span(self.path, offset, dtype, count)


def read_torch_file(path: Path, placeholders: Collection[str] = ()) -> Any:
    """The object in a file, its tensors left on disk as `Stored`.

    Args:
        path: written by torch.save since 1.6.
        placeholders: packages, modules or `module.name`s whose objects become `Placeholder`s instead of being
            refused: a trainer's own classes, whose content is of no interest.

    Raises:
        CheckpointError: not such a file, damaged, or naming anything else than tensors and containers; the
            message names it.
    """
    try:
        content, storages = _open_zip(path)
        reader = _Reader(content, placeholders, storages)
        reader.path = path
        return reader.load()
    except _Refused as refused:
        raise CheckpointError(
            f"{path} asks for {refused} to be loaded, which could run code; a checkpoint needs only tensors: "
            "do not trust the file, or save it again with nothing but tensors"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except DAMAGE as error:
        reason = re.sub(r"\s+", " ", str(error))[:200] or type(error).__name__
        raise CheckpointError(f"{path} is truncated or damaged ({reason}); download it again") from None


def _open_zip(path: Path) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The pickle of a file, and where in it each storage lies: (byte offset, bytes)."""
    if not zipfile.is_zipfile(path):
        _refuse_plain_pickle(path)
        raise zipfile.BadZipFile("not a zip written by torch.save")
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        entries = archive.infolist()
        roots = [e.filename.removesuffix("data.pkl") for e in entries if e.filename.endswith("/data.pkl")]
        if len(roots) != 1:
            raise zipfile.BadZipFile("no data.pkl in it")
        root = roots[0]
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("saved on a big-endian machine")
        storages = {}
        for entry in entries:
            if not entry.filename.startswith(f"{root}data/"):
                continue
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("its storages are compressed")
            file.seek(entry.header_offset)
            name_size, extra_size = struct.unpack("<26x2H", file.read(LOCAL_HEADER))
            offset = entry.header_offset + LOCAL_HEADER + name_size + extra_size
            storages[entry.filename.removeprefix(f"{root}data/")] = (offset, entry.file_size)
        return archive.read(f"{root}data.pkl"), storages


def _refuse_plain_pickle(path: Path) -> None:
    """Raise _Refused where a file without a zip is a bare pickle that names code."""
    with path.open("rb") as file:
        content = file.read(1 << 20)
    try:
        _Reader(content, (), {}).load()
    except DAMAGE:
        return


def flat_tensors(path: Path) -> StoredTensors:
    """The tensors of a torch file that holds one dictionary of them, bare or under one of the usual keys.

    Raises:
        CheckpointError: anything else is in it.
    """
    content = read_torch_file(path)
    for key in ("state_dict", "module", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds no dictionary of tensors; is it a checkpoint?")
    wrong = [str(name) for name, item in content.items() if not isinstance(item, Stored)]
    if wrong:
        raise CheckpointError(f"{path} holds {listed(wrong)}, which is not a tensor; is it a checkpoint?")
    return {str(name): item for name, item in content.items()}
