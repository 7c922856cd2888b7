"""What the data gives to training: one micro-batch, whatever its tasks and sizes."""

from dataclasses import dataclass, replace

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

    def pin_memory(self) -> "TrainBatch":
        """The same batch in page-locked memory; torch's DataLoader calls this."""
        return replace(
            self,
            targets=[picture.pin_memory() for picture in self.targets],
            references=[[picture.pin_memory() for picture in row] for row in self.references],
        )
