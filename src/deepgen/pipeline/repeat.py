"""Drawing a picture again from the record in its file."""

from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from deepgen.errors import InputError
from deepgen.pipeline.intake import open_picture
from deepgen.pipeline.output import read_metadata
from deepgen.pipeline.records import picture_hash, weights_hash

if TYPE_CHECKING:
    from deepgen.pipeline.pipeline import DeepGenPipeline

FIELDS: dict[str, tuple[type, ...]] = {
    **{
        "prompt": (str,),
        "negative_prompt": (str, NoneType),
        "seed": (int,),
        "width": (int,),
        "height": (int,),
    },
    **{
        "num_inference_steps": (int,),
        "guidance_scale": (int, float),
        "shift": (int, float),
        "padding": (str,),
    },
    **{"resize": (str,), "keep_size": (bool,), "reference_sha256": (list,), "batch_size": (int,)},
    **{"dtype": (str,), "device": (str,), "model": (str,), "weights": (str,), "version": (str,)},
}
"""What a record must hold, and its types."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Repeat:
    """The record of a picture, checked, and the file it stands in."""

    path: Path
    record: dict[str, Any]

    @property
    def model(self) -> str:
        """Name of the model that drew it."""
        return self.record["model"]

    @property
    def dtype(self) -> torch.dtype:
        """In which the model drew it."""
        return DTYPES[self.record["dtype"]]

    @property
    def references(self) -> list[str]:
        """Paths of the pictures it was drawn from."""
        return self.record.get("references", [])

    def check_name(self, name: str) -> None:
        """Raise InputError unless the model of this name drew the picture."""
        if name != self.model:
            raise InputError(
                f"{self.path}: was drawn by {self.model!r}, and this is {name!r}; name its checkpoint with --model"
            )

    def check_model(self, pipe: "DeepGenPipeline") -> None:
        """Raise InputError unless the pipeline is the one that drew the picture."""
        self.check_name(pipe.name)
        drawn_by = f"{self.path}: was drawn by {self.model!r}"
        if weights_hash(pipe.model) != self.record["weights"]:
            raise InputError(f"{drawn_by} with other weights than those here; find that checkpoint")
        for name in ("shift", "padding"):
            here = getattr(pipe.defaults, name)
            if here != self.record[name]:
                raise InputError(
                    f"{drawn_by} with {name} {self.record[name]!r}; its checkpoint says {here!r} now"
                )

    def arguments(self) -> dict[str, Any]:
        """Of the pipeline call that draws it. Raises InputError where a reference is gone or has changed."""
        same = ("prompt", "width", "height", "num_inference_steps", "guidance_scale", "resize", "keep_size")
        negative = self.record["negative_prompt"]
        return {
            **{name: self.record[name] for name in (*same, "seed")},
            # Where it has no influence it is not recorded.
            "negative_prompt": "" if negative is None else negative,
            "image": self._pictures() or None,
        }

    def differences(self, pipe: "DeepGenPipeline", version: str) -> list[str]:
        """Why the picture may come out a rounding away from the one in the file, if it may."""
        notes = []
        if self.record["batch_size"] != 1:
            notes.append(f"it was drawn together with {self.record['batch_size'] - 1} others")
        if self.record["device"] != pipe.drawing_device.type:
            notes.append(f"it was drawn on {self.record['device']}, not {pipe.drawing_device.type}")
        if self.record["version"] != version:
            notes.append(f"it was drawn by deepgen {self.record['version']}")
        return notes

    def _pictures(self) -> list[Image.Image]:
        hashes = self.record["reference_sha256"]
        if len(self.references) != len(hashes):
            raise InputError(
                f"{self.path}: was drawn from {len(hashes)} pictures whose files are not recorded"
            )
        pictures = []
        for name, known in zip(self.references, hashes, strict=True):
            try:
                picture = open_picture(name)
            except InputError as error:
                raise InputError(
                    f"{self.path}: was drawn from a picture that cannot be used; {error}"
                ) from None
            if picture_hash(picture) != known:
                raise InputError(f"{self.path}: was drawn from {name}, which has changed since")
            pictures.append(picture)
        return pictures


def read_repeat(path: Path) -> Repeat:
    """The checked record of a picture. Raises InputError where there is none, or it cannot be repeated."""
    record = read_metadata(path)
    for name, types in FIELDS.items():
        value = record.get(name, ...)
        # A bool is an int to isinstance.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            if name == "seed" and name in record:
                raise InputError(f"{path}: was drawn without a seed and cannot be repeated")
            raise InputError(f"{path}: its record has no usable {name!r}; another version made it")
    if record["dtype"] not in DTYPES:
        raise InputError(f"{path}: its record has no usable 'dtype'; another version made it")
    references = record.get("references", [])
    if not isinstance(references, list) or not all(isinstance(name, str) for name in references):
        raise InputError(f"{path}: its record has no usable 'references'; another version made it")
    return Repeat(path, record)
