"""Tensors on disk that are not read yet, and the strict way from there into a network.

What a checkpoint holds is known from its files' headers; the bytes are read tensor by tensor while a network is
filled. So loading needs the weights in their final type and place plus one tensor, whatever is on disk.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from deepgen.errors import CheckpointError

SHOWN = 3
CHUNK = 1 << 18
"""Elements that are cast at a time."""


@dataclass(frozen=True)
class Span:
    """A run of elements in a file: `count` values of `dtype` from byte `offset` on."""

    file: Path
    offset: int
    dtype: torch.dtype
    count: int

    def part(self, start: int, stop: int) -> "Span":
        """The elements from start up to stop."""
        return replace(self, offset=self.offset + start * self.dtype.itemsize, count=stop - start)

    def read_into(self, values: Tensor) -> None:
        """Fill a vector [count] of this dtype; a copy, so the file may be replaced while the values are in use.

        Raises:
            CheckpointError: the file is missing, unreadable or ends too early.
        """
        content = values.view(torch.uint8)
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                got = file.readinto(content.numpy().data)
        except OSError as error:
            raise CheckpointError(f"{self.file} cannot be read: {error.strerror or error}") from None
        if got != len(content):
            raise CheckpointError(f"{self.file} is truncated or damaged; download it again")


@dataclass(frozen=True)
class Stored:
    """A tensor on disk.

    Attributes:
        shape: of the tensor.
        spans: its elements in order; more than one where a file format cuts tensors into pieces.
        strides: in elements, where the span does not hold the tensor row by row.
        adapt: what is done to the values in fp32 once they are read: the merge of an adapter.
    """

    shape: tuple[int, ...]
    spans: tuple[Span, ...]
    strides: tuple[int, ...] | None = None
    adapt: Callable[[Tensor], Tensor] | None = None

    @property
    def file(self) -> Path:
        return self.spans[0].file

    @property
    def dtype(self) -> torch.dtype:
        return self.spans[0].dtype

    @property
    def numel(self) -> int:
        return prod(self.shape)

    def read(
        self,
        name: str,
        dtype: torch.dtype | None = None,
        may_be_zero: bool = False,
        scratch: Tensor | None = None,
    ) -> Tensor:
        """The tensor on the CPU.

        Args:
            name: for errors.
            dtype: of the result where it is floating-point; None keeps the stored one.
            may_be_zero: whether a matrix of nothing but zeros is fine.
            scratch: from `new_scratch`, for many tensors in a row.

        Raises:
            CheckpointError: the file cannot be read, or a matrix is all zeros.
        """
        target = dtype if dtype is not None and self.dtype.is_floating_point else self.dtype
        plain = self.strides is None and self.adapt is None
        flat, any_value = self._flat(target if plain else self.dtype, scratch)
        if len(self.shape) > 1 and self.numel and not any_value and not may_be_zero:
            raise CheckpointError(
                f"{name} in {self.file} is all zeros: the download is broken; fetch the file again"
            )
        if plain:
            return flat.view(self.shape)
        tensor = flat.view(self.shape) if self.strides is None else flat.as_strided(self.shape, self.strides)
        if self.adapt is not None:
            tensor = self.adapt(tensor.float().contiguous())
        return tensor.to(target).contiguous()

    def _flat(self, dtype: torch.dtype, scratch: Tensor | None) -> tuple[Tensor, bool]:
        """The stored elements in a dtype, and whether one of them is not zero.

        Cast piece by piece: a whole tensor in both types would double what the largest one needs.
        """
        flat = torch.empty(sum(span.count for span in self.spans), dtype=dtype)
        start, any_value = 0, False
        if scratch is None and any(span.dtype != dtype for span in self.spans):
            scratch = new_scratch()
        for span in self.spans:
            for first in range(0, span.count, CHUNK):
                part = span.part(first, min(first + CHUNK, span.count))
                place = flat[start : start + part.count]
                if scratch is None or dtype == span.dtype:
                    part.read_into(place)
                else:
                    stored = scratch[: part.count * span.dtype.itemsize].view(span.dtype)
                    part.read_into(stored)
                    place.copy_(stored)
                any_value = any_value or bool(place.any())
                start += part.count
        return flat, any_value


def new_scratch() -> Tensor:
    """Memory for the piece that is being cast.

    One for many tensors: pieces that come and go between tensors that stay leave holes in the allocator's heap, which
    cost up to half as much again as the weights.
    """
    return torch.empty(CHUNK * torch.float64.itemsize, dtype=torch.uint8)


StoredTensors = dict[str, Stored]


def is_exempt(name: str, shape: Sequence[int], patterns: Iterable[str]) -> bool:
    """Whether a tensor may be all zero: a vector or scalar, or declared by its name."""
    return len(shape) < 2 or any(fnmatchcase(name, pattern) for pattern in patterns)


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


@dataclass(frozen=True)
class Comparison:
    """How stored tensors differ from what a network wants; all empty when they fit."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]


def compare(module: nn.Module, stored: Mapping[str, Stored]) -> Comparison:
    """Hold names and shapes of stored tensors against a network's own; nothing is read."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    return Comparison(
        tuple(sorted(set(wanted) - set(stored))),
        tuple(sorted(set(stored) - set(wanted))),
        tuple(n for n, shape in wanted.items() if n in stored and stored[n].shape != shape),
    )


def check_fits(module: nn.Module, stored: Mapping[str, Stored], origin: Path) -> None:
    """Raise CheckpointError, naming tensor and file, unless names and shapes are exactly the network's."""
    found = compare(module, stored)
    if found.missing:
        raise CheckpointError(f"{origin} lacks {listed(found.missing)}; the checkpoint is incomplete")
    if found.unexpected:
        file = stored[found.unexpected[0]].file
        raise CheckpointError(f"{file} has unexpected {listed(found.unexpected)}; is it another model's?")
    for name in found.misshapen:
        raise CheckpointError(
            f"{name} in {stored[name].file} has shape {list(stored[name].shape)}, "
            f"the config asks for {list(module.state_dict()[name].shape)}"
        )


def load_strictly(
    module: nn.Module,
    stored: Mapping[str, Stored],
    dtype: torch.dtype | None,
    device: torch.device | str = "cpu",
    zero_exempt: Sequence[str] = (),
) -> None:
    """Give a module built on the meta device its weights; they must fit (`check_fits`).

    Args:
        module: takes the tensors as they are (assigned, not copied).
        stored: by the module's own names.
        dtype: of the floating-point weights; None keeps the stored ones.
        device: where each tensor goes as soon as it is read.
        zero_exempt: patterns of the names of matrices that may be all zero.

    Raises:
        CheckpointError: a file cannot be read, or a matrix is all zeros.
    """
    scratch = new_scratch()
    ready = {
        name: item.read(name, dtype, is_exempt(name, item.shape, zero_exempt), scratch).to(device)
        for name, item in stored.items()
    }
    module.load_state_dict(ready, assign=True)


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more tensors" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
