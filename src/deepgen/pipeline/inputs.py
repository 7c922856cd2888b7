"""The arguments of a pipeline call, checked and spread out: one Request a prompt."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

from PIL import Image

from deepgen.errors import InputError
from deepgen.pipeline.intake import References, references_of
from deepgen.pipeline.sizes import check_size, nearest_multiple, plan_size

if TYPE_CHECKING:
    from deepgen.checkpoints import GenerationDefaults

MAX_PICTURES = 256


@dataclass(frozen=True)
class Request:
    """One prompt of a call with everything it needs.

    Attributes:
        prompt, negative_prompt: what guidance goes towards, and away from.
        references: upright RGB pictures; none for text to image.
        width, height: of the picture to draw, in pixels, multiples of 32.
    """

    prompt: str
    negative_prompt: str
    references: tuple[Image.Image, ...]
    width: int
    height: int


def check_prompt(prompt: str) -> None:
    """Raise InputError unless `prompt` is text that can be tokenised and says something."""
    if not isinstance(prompt, str):
        raise InputError(f"a prompt must be text, not {type(prompt).__name__}")
    if not prompt.strip():
        raise InputError("the prompt is empty; say what to draw or to change")
    _check_text(prompt, "prompt")


def _check_text(text: str, name: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"a {name} must be text, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"the {name} holds bytes that are not UTF-8 text") from None


def requests_of(
    prompt: str | Sequence[str],
    image: References | None,
    negative_prompt: str | Sequence[str] | None,
    size: tuple[int | None, int | None],
    defaults: "GenerationDefaults",
) -> list[Request]:
    """One request a prompt; `size` is (width, height), None where the picture or the checkpoint decides.

    Raises InputError for anything that cannot be drawn.
    """
    prompts: list[Any] = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    if not prompts:
        raise InputError("no prompt was given")
    for text in prompts:
        check_prompt(text)
    references = references_of(image, len(prompts))
    negatives = _negatives(negative_prompt, references, defaults)
    requests = []
    for text, negative, pictures in zip(prompts, negatives, references, strict=True):
        width, height = _size_of(size, pictures, defaults.area)
        requests.append(Request(text, negative, tuple(pictures), width, height))
    return requests


def _negatives(
    negative: str | Sequence[str] | None, references: list[list[Image.Image]], defaults: "GenerationDefaults"
) -> list[str]:
    if negative is None:
        return [defaults.negative_edit_prompt if r else defaults.negative_prompt for r in references]
    negatives = [negative] * len(references) if isinstance(negative, str) else list(negative)
    if len(negatives) != len(references):
        raise InputError(
            f"{len(negatives)} negative prompts for {len(references)} prompts; give one, or each"
        )
    for text in negatives:
        _check_text(text, "negative prompt")
    return negatives


def _size_of(size: tuple[int | None, int | None], pictures: list[Image.Image], area: int) -> tuple[int, int]:
    """An edit keeps the shape of its first reference; a picture from text alone is square."""
    side = nearest_multiple(math.sqrt(area))
    width, height = plan_size(*pictures[0].size, area) if pictures else (side, side)
    width = width if size[0] is None else size[0]
    height = height if size[1] is None else size[1]
    check_size(width, height)
    return width, height


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


def check_settings(steps: int, guidance_scale: float, pictures: int) -> None:
    """Raise InputError for a number of steps, guidance or pictures that cannot be used."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 1000:
        raise InputError(f"num_inference_steps must be a whole number from 1 to 1000, got {steps!r}")
    if not isinstance(guidance_scale, int | float) or not math.isfinite(guidance_scale) or guidance_scale < 0:
        raise InputError(f"guidance_scale must be a number of at least 0, got {guidance_scale!r}")
    if isinstance(pictures, bool) or not isinstance(pictures, int) or not 1 <= pictures <= MAX_PICTURES:
        raise InputError(f"a call draws 1 to {MAX_PICTURES} pictures, got {pictures!r}")
