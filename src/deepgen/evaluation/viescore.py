"""VIEScore (Ku et al. 2024, arXiv 2312.14867) for edited pictures: what its judge is asked, and how its replies are
read."""

import json
import re
from typing import Any

from deepgen.evaluation.benchmark import ParseError
from deepgen.evaluation.sources import text_sha256

# The judge's prompts are VIEScore's for edited pictures: Copyright (c) 2024 Max W.F. Ku, MIT licence (see NOTICE).
_CONTEXT = """\
You are a professional digital artist. You will have to evaluate the effectiveness of the AI-generated image(s) based on given rules.
All the input images are AI-generated. All human in the images are AI-generated too. so you need not worry about the privacy confidentials.

You will have to give your output in this way (Keep your reasoning concise and short.):
{
"score" : [...],
"reasoning" : "..."
}
"""  # noqa: E501
SEMANTICS_PROMPT = (
    _CONTEXT
    + """\
RULES:

Two images will be provided: The first being the original AI-generated image and the second being an edited version of the first.
The objective is to evaluate how successfully the editing instruction has been executed in the second image.

Note that sometimes the two images might look identical due to the failure of image edit.


From scale 0 to 10:\x20
A score from 0 to 10 will be given based on the success of the editing. (0 indicates that the scene in the edited image does not follow the editing instruction at all. 10 indicates that the scene in the edited image follow the editing instruction text perfectly.)
A second score from 0 to 10 will rate the degree of overediting in the second image. (0 indicates that the scene in the edited image is completely different from the original. 10 indicates that the edited image can be recognized as a minimal edited yet effective version of original.)
Put the score in a list such that output score = [score1, score2], where 'score1' evaluates the editing success and 'score2' evaluates the degree of overediting.

Editing instruction: <instruction>
"""  # noqa: E501
)
QUALITY_PROMPT = (
    _CONTEXT
    + """\
RULES:

The image is an AI-generated image.
The objective is to evaluate how successfully the image has been generated.

From scale 0 to 10:\x20
A score from 0 to 10 will be given based on image naturalness.\x20
(
    0 indicates that the scene in the image does not look natural at all or give a unnatural feeling such as wrong sense of distance, or wrong shadow, or wrong lighting.\x20
    10 indicates that the image looks natural.
)
A second score from 0 to 10 will rate the image artifacts.\x20
(
    0 indicates that the image contains a large portion of distortion, or watermark, or scratches, or blurred faces, or unusual body parts, or subjects not harmonized.\x20
    10 indicates the image has no artifacts.
)
Put the score in a list such that output score = [naturalness, artifacts]
"""  # noqa: E501
)
# As they are called in the published code, before an instruction is put in; with their hashes.
PROMPTS = {
    "SC_prompt": SEMANTICS_PROMPT,
    "PQ_prompt": QUALITY_PROMPT,
    "SC_sha256": text_sha256(SEMANTICS_PROMPT),
    "PQ_sha256": text_sha256(QUALITY_PROMPT),
}


def official_reply(reply: str) -> dict[str, Any] | None:
    """What the published parser makes of a first reply; None for its False.

    Between two ||V^=^V|| if there are exactly two, else from the first { to the last }; without braces a list of two
    integers "[a, b]" or a single integer up to 10. JSON that does not parse is repaired by two substitutions, which
    hardly ever help.
    """
    mark = "||V^=^V||"
    start, end = reply.find("{"), reply.rfind("}") + 1
    if reply.count(mark) == 2:
        start, end = reply.find(mark) + len(mark), reply.rfind(mark)
    elif start == -1 or end == 0:
        return _bare_scores(reply)
    text = reply[start:end].strip().replace("\n", "")
    if start == end:
        return None
    try:
        found = json.loads(text)
        if not isinstance(found["score"], list):
            found["score"] = [found["score"]]
        return dict(found)
    except (ValueError, KeyError, TypeError, RecursionError):
        return _repaired(text)


def _bare_scores(reply: str) -> dict[str, Any] | None:
    listed = reply[reply.find("[") : reply.rfind("]") + 1]
    try:
        if re.match(r"^\[\d+, ?\d+\]$", listed):
            return {"score": json.loads(listed), "reasoning": "System: output is simply a list of scores"}
        number = int(reply)
    except ValueError:
        return None
    return (
        {"score": [number], "reasoning": "System: output is simply a number"} if 0 <= number <= 10 else None
    )


def _repaired(text: str) -> dict[str, Any] | None:
    def value_of(match: re.Match[str]) -> str:
        key, value, comma = match[1], match[2].strip(), match[3]
        if re.match(r"^-?\d+(\.\d+)?$", value):
            value = f"[{value}]"
        elif not re.match(r"^(true|false|null)$", value, re.IGNORECASE):
            value = f'"{value}"'
        return f"{key}: {value}{comma}"

    quoted = re.sub(r"(\w+):", r'"\1":', text)
    try:
        found = json.loads(re.sub(r'(".*?"):(.*?)(,|})', value_of, quoted))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def two_scores(reply: str) -> list[float]:
    """The last "score": [a, b] of a reply, or a reply that is nothing but [a, b]; 0 to 10 each.

    Raises ParseError where there is none, or one that is not two numbers of the scale.
    """
    found = re.findall(r"[\"']?scores?[\"']?\s*[:=]\s*(\[[^\[\]]*\])", reply, re.IGNORECASE)
    found = found or re.findall(r"\A\s*(\[[^\[\]]*\])\s*\Z", reply)
    if not found:
        raise ParseError("the reply has no list of scores")
    numbers = re.fullmatch(r"\[\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*,?\s*\]", found[-1])
    if numbers is None:
        raise ParseError(f"{found[-1][:60]} is not a list of two scores")
    scores = [float(number) for number in numbers.groups()]
    if not all(0 <= score <= 10 for score in scores):
        raise ParseError(f"a score of {found[-1]} is not between 0 and 10")
    return scores
