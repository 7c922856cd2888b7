"""The noise that the pictures of a call start from: from seeds, from generators, or given."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

import torch

from deepgen.errors import InputError
from deepgen.flow.noise import keyed_noise

Generators: TypeAlias = torch.Generator | Sequence[torch.Generator]
Shape: TypeAlias = tuple[int, int, int]
"""(channels, height, width) of a picture's latents."""


def seeds_of(seed: int | Sequence[int] | None, count: int, drawn: int) -> list[int]:
    """One seed a picture: `seed` + i, or the list's own; `drawn` stands in where none was given.

    Raises InputError for another type, or a list of another length.
    """
    if seed is None:
        seed = drawn
    several = isinstance(seed, list | tuple)
    given: list[Any] = list(seed) if isinstance(seed, list | tuple) else [seed]
    if not all(isinstance(s, Integral) and not isinstance(s, bool) for s in given):
        raise InputError(f"seed must be an integer or a list of integers, got {seed!r}")
    # int(): numpy's integers overflow, and JSON does not know them.
    seeds = [int(s) for s in given] if several else [int(given[0]) + i for i in range(count)]
    if len(seeds) != count:
        raise InputError(f"{len(seeds)} seeds for {count} pictures; give one seed, or one a picture")
    return seeds


@dataclass(frozen=True)
class Start:
    """Where the noise of a call comes from; at most one of the three is given."""

    seed: int | Sequence[int] | None = None
    generator: Generators | None = None
    latents: torch.Tensor | Sequence[torch.Tensor] | None = None

    def noise(
        self, shapes: Sequence[Shape], dtype: torch.dtype, drawn: int
    ) -> tuple[list[torch.Tensor], list[int] | list[None]]:
        """The starting noise of each picture, float32 [C, h, w], and its seed where it has one.

        Args:
            shapes: of the pictures' latents.
            dtype: in which a generator draws; that of the model, as published.
            drawn: the seed where nothing is given.

        Raises:
            InputError: more than one source, or a number or shape that does not fit.
        """
        if sum(x is not None for x in (self.seed, self.generator, self.latents)) > 1:
            raise InputError("give only one of seed, generator and latents")
        unseeded = [None] * len(shapes)
        if self.latents is not None:
            if not all(isinstance(x, torch.Tensor) for x in self.latents):
                raise InputError("latents must be a tensor or a list of tensors")
            got = [tuple(x.shape) for x in self.latents]
            if got != list(shapes):
                raise InputError(f"latents of shapes {got} for pictures that need {list(shapes)}")
            return [x.float() for x in self.latents], unseeded
        if self.generator is not None:
            return _noise_from(self.generator, shapes, dtype), unseeded
        seeds = seeds_of(self.seed, len(shapes), drawn)
        return [keyed_noise(shape, s, "init") for shape, s in zip(shapes, seeds, strict=True)], seeds


def _noise_from(generator: Generators, shapes: Sequence[Shape], dtype: torch.dtype) -> list[torch.Tensor]:
    """Noise as diffusers draws it: one block from one generator, or one row from each of several."""
    generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
    if not all(isinstance(g, torch.Generator) for g in generators):
        raise InputError("generator must be a torch.Generator or a list of them")
    if len(generators) not in (1, len(shapes)):
        raise InputError(
            f"{len(generators)} generators for {len(shapes)} pictures; give one, or one a picture"
        )
    if len(generators) == 1 and len(set(shapes)) > 1:
        raise InputError("one generator draws pictures of one size only; give seed, or a generator a picture")
    rows = len(shapes) // len(generators)
    blocks = [
        torch.randn((rows, *shape), generator=g, device=g.device, dtype=dtype)
        for g, shape in zip(generators, shapes, strict=False)
    ]
    return [row.float() for block in blocks for row in block]
