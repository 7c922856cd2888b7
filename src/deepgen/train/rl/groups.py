"""Prompts made ready to draw, and which process draws which pictures.

Every process plans the whole rollout alike: the prompts of a rollout in order of size, so that what is drawn at once
has one size, cut into blocks that the processes take in turn. So pictures, their noise and what they are batched with
are the same at any number of processes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from deepgen.data.pictures import READ_ERRORS
from deepgen.errors import ConfigError, DataError
from deepgen.pipeline.intake import MAX_REFERENCES, to_pixels
from deepgen.pipeline.sizes import Size, plan_reference, plan_target
from deepgen.rewards.protocol import Picture
from deepgen.train.rl.prompts import Prompt


@dataclass(frozen=True)
class Group:
    """One prompt of a rollout.

    Attributes:
        number: of the prompt in the whole run; decides its noise.
        prompt: see `Prompt`.
        size: (width, height) to draw.
    """

    number: int
    prompt: Prompt
    size: Size


@dataclass(frozen=True)
class Sources:
    """What a group starts from: references fp32 [3, H, W] in [−1, 1] as the model sees them, and for rewards the
    references and the known target as uint8 [H, W, 3]."""

    references: list[Tensor]
    shown: tuple[Picture, ...]
    target: Picture | None


@dataclass(frozen=True)
class Plan:
    """How the pictures of a rollout are spread: `blocks` over all processes, of `block` groups each; a block is drawn
    in `chunks` batches of `at_once` pictures."""

    groups: int
    group_size: int
    block: int
    at_once: int
    world_size: int

    @property
    def blocks(self) -> int:
        return self.groups // self.block

    @property
    def pictures(self) -> int:
        """Of a rollout, over all processes."""
        return self.groups * self.group_size

    def own_blocks(self, rank: int) -> list[range]:
        """The places of the groups in each block of a process."""
        numbers = range(rank, self.blocks, self.world_size)
        return [range(n * self.block, (n + 1) * self.block) for n in numbers]


def plan_rollout(groups: int, group_size: int, at_once: int, world_size: int) -> Plan:
    """The plan of a rollout.

    Raises:
        ConfigError: the groups do not divide into what all processes draw at once.
    """
    block = max(1, at_once // group_size)
    if groups % (block * world_size):
        raise ConfigError(
            f"groups_per_rollout is {groups}, no multiple of {block * world_size} (rollout_batch_size {at_once} / "
            f"group_size {group_size} groups at once, times {world_size} processes); change one of them"
        )
    return Plan(groups, group_size, block, at_once, world_size)


def size_of(prompt: Prompt, area: int, fixed: Size | None) -> Size:
    """(width, height) to draw: that of the scene asked for, of the first reference near `area`, `fixed`, or a square.

    Raises:
        DataError: the first reference cannot be read.
    """
    try:
        if prompt.references:
            return plan_target(prompt.references[0].size(), area, "aspect")
        if prompt.size is not None:
            return plan_target(prompt.size, area, "aspect")
    except READ_ERRORS as error:
        raise DataError(f"{prompt.key}: {error}") from error
    return fixed or plan_target(None, area, "aspect")


def open_sources(group: Group, area: int) -> Sources:
    """The pictures of a group.

    Raises:
        DataError: one cannot be read, or there are too many.
    """
    prompt = group.prompt
    if len(prompt.references) > MAX_REFERENCES:
        raise DataError(f"{prompt.key}: {len(prompt.references)} references, at most {MAX_REFERENCES} work")
    try:
        opened = [picture.open() for picture in prompt.references]
        sizes = [plan_reference(one.size, group.size, area, "aspect") for one in opened]
        references = [to_pixels(one, size) for one, size in zip(opened, sizes, strict=True)]
        target = None if prompt.target is None else to_pixels(prompt.target.open(), group.size)
    except READ_ERRORS as error:
        raise DataError(f"{prompt.key}: {error}") from error
    return Sources(
        references,
        tuple(to_uint8(one[None])[0] for one in references),
        None if target is None else to_uint8(target[None])[0],
    )


def to_uint8(pixels: Tensor) -> list[Picture]:
    """Pictures [B, 3, H, W] in about [−1, 1], each as uint8 [H, W, 3]; rounded in fp32, as the pipeline does."""
    unit = pixels.float().mul(0.5).add(0.5).clamp(0.0, 1.0).mul(255.0).round()
    return list(unit.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy())
