"""A question to a judge as data: text, pictures, and how a judge wants both put. No network, no pixels read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Mode = Literal["official", "strict"]
"""official: the published scorer's parser, failure rule and defects to the digit; strict: those mended."""


@dataclass(frozen=True)
class JudgeImage:
    """A picture that is shown to a judge, named by its file; it is opened only when the call is sent.

    like: stretched to the size of this file's picture first. crop: (left, top, right, bottom) pixels, first of all.
    """

    path: Path
    like: Path | None = None
    crop: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class JudgeCall:
    """One question about one picture.

    id: unique among the calls of one (item, sample), such as "consistency". `data` is what a local scorer is told
    besides text and pictures; JSON-ready.
    """

    id: str
    text: str
    images: tuple[JudgeImage, ...] = ()
    system: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageEncoding:
    """How a picture is sent. format "file" sends the file's own bytes (unless it must be cropped or resized).

    quality: of JPEG, as PIL counts it. max_side: longer side in pixels above which the picture is shrunk, in its
    own shape. mime: declared instead of the true type. detail: OpenAI's `detail` of an image, if any.
    """

    format: Literal["file", "png", "jpeg"] = "file"
    quality: int = 75
    max_side: int | None = None
    mime: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class JudgeProfile:
    """A judge and the manner in which it is asked; everything that can change its answer.

    name: stands in the name of every metric it makes, so another model or manner needs another name.
    kind: "openai" for any endpoint of that protocol; "process" for an external program (JSON lines in and out);
        otherwise a local scorer's name ("geneval-hf", "ocr-clip", "world").
    model: what the endpoint calls it. order: of text and pictures in the user's message.
    system: the call's system text as a message of its own, or in front of the text with a newline between.
    max_tokens: for the first, second, ... attempt; the last one for all further; () leaves it out.
    temperature: None leaves it to the server. extra: merged into the request's body.
    thinking: what is done to a reply before it is parsed. "strip" removes <think>...</think>; "cut" keeps what
        follows the last </think>; without one, nothing of a reply that thinks or ended at the limit of tokens,
        and all of any other: servers may part thoughts and answer themselves, and not every model thinks.
    """

    name: str
    model: str = ""
    kind: str = "openai"
    order: Literal["text-first", "images-first"] = "text-first"
    system: Literal["message", "prefix"] = "message"
    image: ImageEncoding = ImageEncoding()
    temperature: float | None = None
    max_tokens: tuple[int, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    thinking: Literal["keep", "strip", "cut"] = "keep"
