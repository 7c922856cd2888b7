"""The prompt templates, byte for byte as the published model was trained, and their tokens.

A prompt is a row of special tokens and runs of plain text. Each run is tokenised as a whole, with special
tokens switched off: so words merge across the border of template and user text exactly as they do in the
full string, and a `<|image_pad|>` typed by a user stays the characters it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from transformers import PreTrainedTokenizerBase

from deepgen.errors import CheckpointError

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"

NEGATIVE_TEXT = ""
"""What text-to-image guidance pushes away from by default."""

NEGATIVE_EDIT = (
    "blurry, low quality, low resolution, distorted, deformed, broken content, missing parts, "
    "damaged details, artifacts, glitch, noise, pixelated, grainy, compression artifacts, "
    "bad composition, wrong proportion, incomplete editing, unfinished, unedited areas."
)
"""What edit guidance pushes away from by default."""


@dataclass(frozen=True)
class Special:
    """A special token, repeated `count` times."""

    token: str
    count: int = 1


class Prompt(str):
    """The published string of a prompt; `parts` are its special tokens and runs of plain text."""

    parts: tuple[Special | str, ...]

    def __new__(cls, parts: Sequence[Special | str]) -> Self:
        text = "".join(p if isinstance(p, str) else p.token * p.count for p in parts)
        prompt = super().__new__(cls, text)
        prompt.parts = tuple(parts)
        return prompt

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[Special | str, ...]]]:
        return type(self), (self.parts,)


def _user_turn(*content: Special | str) -> Prompt:
    """A user's turn and the opening of the answer; no system turn."""
    start, *rest = content
    head: tuple[Special | str, ...]
    head = ("user\n" + start,) if isinstance(start, str) else ("user\n", start)
    return Prompt((Special(IM_START), *head, *rest, Special(IM_END), "\n", Special(IM_START), "assistant\n"))


def text_to_image_prompt(text: str) -> Prompt:
    """The prompt of a text-to-image request; empty text for its unconditional side."""
    return _user_turn(f"Generate an image: {text}")


def edit_prompt(text: str, image_tokens: Sequence[int]) -> Prompt:
    """The prompt of an edit.

    Args:
        text: the instruction.
        image_tokens: for each reference picture its number of VLM tokens, (H/32)·(W/32).
    """
    pictures = [
        part
        for count in image_tokens
        for part in (Special(VISION_START), Special(IMAGE_PAD, count), Special(VISION_END))
    ]
    return _user_turn(*pictures, f"\n{text}")


def special_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of a special token.

    Raises:
        CheckpointError: the tokenizer does not have it.
    """
    number = tokenizer.get_added_vocab().get(token)
    if number is None:
        raise CheckpointError(
            f"the tokenizer has no special token {token}; use the one of a Qwen2.5-VL model"
        )
    return number


def tokenize(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """The ids of a prompt.

    Raises:
        CheckpointError: the tokenizer lacks one of the template's special tokens.
    """
    ids: list[int] = []
    for part in prompt.parts:
        if isinstance(part, Special):
            ids += [special_id(tokenizer, part.token)] * part.count
        else:
            ids += tokenizer.encode(part, add_special_tokens=False, split_special_tokens=True)
    return ids
