"""Inputs and scores as JSON, pictures as PNG in base64; nothing that arrives is ever run."""

import base64
import binascii
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from deepgen.errors import InputError, RewardError
from deepgen.rewards.protocol import Picture, RewardInput, Score

MOST_PIXELS = 1 << 26
"""Of a picture that is accepted: a small file may unpack to any size."""


def input_to_json(one: RewardInput) -> dict[str, Any]:
    """A RewardInput as JSON values."""
    return {
        "picture": _encode(one.picture),
        "prompt": one.prompt,
        "group": one.group,
        "references": [_encode(picture) for picture in one.references],
        "metadata": dict(one.metadata),
        "family": one.family,
        "target": None if one.target is None else _encode(one.target),
    }


def input_from_json(data: Any) -> RewardInput:
    """The inverse; only `picture` and `prompt` must be there. Raises InputError."""
    if not isinstance(data, dict):
        raise InputError("an input must be an object")
    texts = {name: data.get(name, "") for name in ("prompt", "group", "family")}
    references, metadata = data.get("references", []), data.get("metadata", {})
    if "prompt" not in data or not all(isinstance(text, str) for text in texts.values()):
        raise InputError("prompt must be a text, and so must group and family")
    if not isinstance(references, list) or not isinstance(metadata, dict):
        raise InputError("references must be a list, metadata an object")
    target = data.get("target")
    return RewardInput(
        decode_picture(data.get("picture")),
        references=tuple(decode_picture(one) for one in references),
        metadata=metadata,
        target=None if target is None else decode_picture(target),
        **texts,
    )


def score_to_json(score: Score) -> dict[str, Any]:
    """A Score as JSON values."""
    return {"value": score.value, "reason": score.reason, "failed": score.failed}


def scores_from_json(data: Any, count: int) -> list[Score]:
    """The scores of a reply. Raises RewardError where it does not hold `count` of them: never guess which is whose."""
    rows = data.get("scores") if isinstance(data, Mapping) else None
    if not isinstance(rows, list) or len(rows) != count:
        raise RewardError(f"the reply does not hold {count} scores: {json.dumps(data)[:120]}")
    return [_score(row) for row in rows]


def _score(row: Any) -> Score:
    value = row.get("value", "missing") if isinstance(row, Mapping) else "missing"
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if value is not None and not number:
        raise RewardError(f"the reply holds a score that is none: {json.dumps(row)[:120]}")
    if value is None:
        return Score(None, str(row.get("reason", "")), row.get("failed") is True)
    return Score.of(float(value))


def decode_picture(text: Any) -> Picture:
    """uint8 [H, W, 3] from base64 of a PNG, JPEG or WEBP. Raises InputError."""
    if not isinstance(text, str):
        raise InputError("a picture must be base64 of a PNG, JPEG or WEBP")
    try:
        content = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise InputError(f"a picture of {opened.width}x{opened.height} is too large")
            return np.asarray(opened.convert("RGB"))
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"not base64 of a PNG, JPEG or WEBP ({error})") from error


def groups_kept_together(batch: Sequence[RewardInput], at_once: int) -> list[list[int]]:
    """Places in parts of about `at_once`, no group divided: the order is that of the groups' first inputs."""
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(batch):
        groups.setdefault(one.group, []).append(place)
    parts: list[list[int]] = []
    for places in groups.values():
        if parts and len(parts[-1]) + len(places) <= at_once:
            parts[-1] += places
        else:
            parts.append(list(places))
    return parts


def _encode(picture: Picture) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()
