"""How a checkpoint likes to be sampled: stored beside its weights, overridden by arguments."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from deepgen.errors import CheckpointError
from deepgen.model.deepgen import Padding
from deepgen.model.prompts import NEGATIVE_EDIT, NEGATIVE_TEXT

FILE_NAME = "generation_config.json"


@dataclass(frozen=True)
class GenerationDefaults:
    """Sampling defaults; the values here are the published checkpoints'.

    Attributes:
        area: pixels of a picture, height times width, where no size is asked for.
        num_inference_steps: sampler steps.
        guidance_scale: classifier-free guidance; 1 is none.
        shift: of the noise schedule.
        padding: pads that the bridge sees, see `deepgen.model.deepgen.Padding`.
        negative_prompt: of text-to-image.
        negative_edit_prompt: of edits.
        trained_sizes: (height, width) in pixels that training saw; empty where unknown.
        untrained_categories: of the world benchmark, what the model was not trained for; not scored.
    """

    area: int = 512 * 512
    num_inference_steps: int = 50
    guidance_scale: float = 4.0
    shift: float = 3.0
    padding: Padding = "pair"
    negative_prompt: str = NEGATIVE_TEXT
    negative_edit_prompt: str = NEGATIVE_EDIT
    trained_sizes: tuple[tuple[int, int], ...] = ()
    untrained_categories: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> "GenerationDefaults":
        """Read a generation_config.json.

        Raises:
            CheckpointError: not JSON, an unknown key, or a value out of range.
        """
        values = read_json(path)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise CheckpointError(f"{path} has unknown keys {', '.join(unknown)}; known: {', '.join(fields)}")
        for name, value in values.items():
            _check_value(path, name, value, getattr(cls, name))
        sizes = tuple((int(h), int(w)) for h, w in values.get("trained_sizes", ()))
        categories = tuple(values.get("untrained_categories", ()))
        return cls(**{**values, "trained_sizes": sizes, "untrained_categories": categories})


def _check_value(path: Path, name: str, value: Any, default: Any) -> None:
    if name == "trained_sizes":
        valid = isinstance(value, list) and all(isinstance(x, list) and len(x) == 2 for x in value)
    elif name == "untrained_categories":
        valid = isinstance(value, list) and all(isinstance(x, str) for x in value)
    elif name == "padding":
        valid = value in get_args(Padding)
    elif isinstance(default, str):
        valid = isinstance(value, str)
    else:
        numbers = (int,) if isinstance(default, int) else (int, float)
        valid = isinstance(value, numbers) and not isinstance(value, bool) and value > 0
    if not valid:
        raise CheckpointError(f"{path}: {name} is {value!r}, which is not a usable value")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: missing, not JSON, or not an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; the checkpoint is incomplete") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}); download it again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return values
