"""The arguments of a pipeline call, checked and spread out: one Request a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from deepgen.errors import InputError
from deepgen.pipeline.intake import References, references_of
from deepgen.pipeline.sizes import Resize, Size, check_resize, check_size, plan_reference, plan_target

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from deepgen.checkpoints import GenerationDefaults

MAX_PICTURES = 256
MAX_PROMPT_TOKENS = 1024
MAX_GUIDANCE = 100

Side: TypeAlias = int | Sequence[int | None] | None
"""A width or height: one for all prompts, one a prompt, or None where the picture or the checkpoint decides."""


@dataclass(frozen=True)
class Sizing:
    """What a call says about sizes; see `DeepGenPipeline.__call__`."""

    width: Side = None
    height: Side = None
    resize: Resize = "aspect"
    keep_size: bool = False


@dataclass(frozen=True)
class Request:
    """One prompt of a call with everything it needs.

    Attributes:
        prompt, negative_prompt: what guidance goes towards, and away from.
        references: upright RGB pictures; none for text to image.
        reference_sizes: (width, height) at which the model reads each of them, multiples of 32.
        width, height: of the picture to draw, in pixels, multiples of 32.
        output_size: (width, height) that the drawn picture is brought to; None leaves it as it is.
    """

    prompt: str
    negative_prompt: str
    references: tuple[Image.Image, ...]
    reference_sizes: tuple[Size, ...]
    width: int
    height: int
    output_size: Size | None


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


def check_lengths(requests: Sequence[Request], tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise InputError, which names the count, for a prompt of more than 1,024 tokens."""
    for i, request in enumerate(requests, start=1):
        for name, text in (("prompt", request.prompt), ("negative prompt", request.negative_prompt)):
            check_length(text, tokenizer, f"{name} {i}" if len(requests) > 1 else f"the {name}")


def check_length(text: str, tokenizer: "PreTrainedTokenizerBase", name: str = "the prompt") -> None:
    """Raise InputError, which names the count, for a text of more than 1,024 tokens."""
    count = len(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
    if count > MAX_PROMPT_TOKENS:
        raise InputError(f"{name} has {count} tokens; shorten it to {MAX_PROMPT_TOKENS}")


def requests_of(
    prompt: str | Sequence[str],
    image: References | None,
    negative_prompt: str | Sequence[str] | None,
    sizing: Sizing,
    defaults: "GenerationDefaults",
) -> list[Request]:
    """One request a prompt. Raises InputError for anything that cannot be drawn."""
    prompts: list[Any] = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    if not prompts:
        raise InputError("no prompt was given")
    for text in prompts:
        check_prompt(text)
    check_resize(sizing.resize)
    references = references_of(image, len(prompts))
    if sizing.keep_size and not any(references):
        raise InputError("keep_size keeps the size of a reference picture, and there is none")
    negatives = _negatives(negative_prompt, references, defaults)
    widths = _sides(sizing.width, len(prompts), "widths")
    heights = _sides(sizing.height, len(prompts), "heights")
    requests = []
    for i, pictures in enumerate(references):
        sizes = [picture.size for picture in pictures]
        width, height = _target((widths[i], heights[i]), sizes, defaults.area, sizing.resize)
        read_at = [plan_reference(size, (width, height), defaults.area, sizing.resize) for size in sizes]
        for size in read_at:
            check_size(*size)
        output = sizes[0] if sizing.keep_size and sizes else None
        requests.append(
            Request(prompts[i], negatives[i], tuple(pictures), tuple(read_at), width, height, output)
        )
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


def _sides(side: Side, prompts: int, name: str) -> list[int | None]:
    sides: list[Any] = list(side) if isinstance(side, list | tuple) else [side] * prompts
    if len(sides) != prompts:
        raise InputError(f"{len(sides)} {name} for {prompts} prompts; give one, or one a prompt")
    return sides


def _target(asked: tuple[int | None, int | None], sizes: list[Size], area: int, resize: Resize) -> Size:
    """The size to draw: what is asked for, otherwise the plan for the first reference, or a square."""
    if asked[0] is not None and asked[1] is not None:
        width, height = asked[0], asked[1]
    else:
        planned = plan_target(sizes[0] if sizes else None, area, resize)
        width = planned[0] if asked[0] is None else asked[0]
        height = planned[1] if asked[1] is None else asked[1]
    check_size(width, height)
    return width, height


def check_settings(steps: int, guidance_scale: float, pictures: int) -> None:
    """Raise InputError for a number of steps, guidance or pictures that cannot be used."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 1000:
        raise InputError(f"num_inference_steps must be a whole number from 1 to 1000, got {steps!r}")
    if not isinstance(guidance_scale, int | float) or not 0 <= guidance_scale <= MAX_GUIDANCE:
        raise InputError(f"guidance_scale must be a number from 0 to {MAX_GUIDANCE}, got {guidance_scale!r}")
    if isinstance(pictures, bool) or not isinstance(pictures, int) or not 1 <= pictures <= MAX_PICTURES:
        raise InputError(f"a call draws 1 to {MAX_PICTURES} pictures, got {pictures!r}")
