"""What the data gives to training: one micro-batch, whatever its tasks and sizes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainBatch:
    """Samples side by side; every list has one entry a sample.

    Attributes:
        prompts: caption or instruction; "" where it was dropped for guidance.
        targets: what to draw, fp32 [3, H, W] in [−1, 1], sides multiples of 32.
        references: the pictures of an edit, as the targets; empty for text→image.
        tasks: "t2i" or "edit".
        sources: name of the set that the sample came from.
        keys: path or id, for messages.
    """

    prompts: list[str]
    targets: list[Tensor]
    references: list[list[Tensor]]
    tasks: list[str]
    sources: list[str]
    keys: list[str]

    def __len__(self) -> int:
        return len(self.prompts)

    def to(self, device: torch.device) -> "TrainBatch":
        """The same batch with its pictures on a device; does not wait for them."""
        return self._with_pictures(lambda picture: picture.to(device, non_blocking=True))

    def pin_memory(self) -> "TrainBatch":
        """The same batch in page-locked memory; torch's DataLoader calls this."""
        return self._with_pictures(Tensor.pin_memory)

    def _with_pictures(self, change: Callable[[Tensor], Tensor]) -> "TrainBatch":
        return replace(
            self,
            targets=[change(picture) for picture in self.targets],
            references=[[change(picture) for picture in row] for row in self.references],
        )
