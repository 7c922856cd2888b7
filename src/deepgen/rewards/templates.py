"""What judges are asked, in our words, and how their answers are read. A file of the user's may replace a wording."""

import re
from pathlib import Path
from typing import Literal

from deepgen.errors import InputError

FIELD = "{prompt}"

PREFERENCE = """You see two pictures, Image 1 and Image 2. Both were drawn for this request:

<request>
{prompt}
</request>

Decide which one serves the request better. Look first at whether everything that is asked for is there: each thing, how
many, in which colour, where, and any text exactly as it is spelled. Where both do that equally well, look at faults of
the drawing, and then at how good it looks. Which of them comes first says nothing.

Think as long as you need. Then end with exactly one of these lines:
<answer>Image 1 is better</answer>
<answer>Image 2 is better</answer>
<answer>Tie</answer>"""

EDIT_INSTRUCTION = """The last picture was made from the ones before it by this instruction:

<request>
{prompt}
</request>

Was the instruction carried out, all of it, and nothing that it does not ask for? Think as long as you need. Then end
with exactly one of these lines:
<answer>yes</answer>
<answer>no</answer>"""

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_TIE = re.compile(r"\s*(a )?(tie|draw|equal\w*|both( images)? are equal\w*( good)?)\W*\s*", re.IGNORECASE)

Outcome = Literal["first", "second", "tie"]


def read_template(path: Path | None, default: str) -> str:
    """A template's text. Raises InputError where it cannot be read or has no place for the prompt."""
    if path is None:
        return default
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"template {path}: cannot be read as text ({error})") from error
    if FIELD not in text:
        raise InputError(f"template {path}: has no {FIELD}")
    return text


def fill(template: str, prompt: str) -> str:
    """The template with the prompt; other braces are left alone, they may be JSON."""
    return template.replace(FIELD, prompt)


def prompt_in(template: str, text: str) -> str | None:
    """The prompt that `fill` put there; None where the text is not of this template."""
    parts = [re.escape(part) for part in template.strip().split(FIELD)]
    pattern = parts[0] + "(?P<prompt>.*)" + "(?P=prompt)".join(parts[1:])
    match = re.fullmatch(pattern, text.strip(), re.DOTALL)
    return match["prompt"].strip() if match else None


def read_preference(reply: str) -> Outcome | None:
    """Which picture the last answer prefers; None where it cannot be read, which is no tie."""
    said = _last_answer(reply)
    if said is None:
        return None
    first, second = ("image 1 is better" in said.lower(), "image 2 is better" in said.lower())
    if first != second:
        return "first" if first else "second"
    return "tie" if not first and _TIE.fullmatch(said) else None


def read_yes(reply: str) -> bool | None:
    """Whether the last answer is yes; None where it is neither yes nor no."""
    said = (_last_answer(reply) or "").strip(" .!\n").lower()
    return {"yes": True, "no": False}.get(said)


def _last_answer(reply: str) -> str | None:
    """Models that think aloud may quote the form of an answer first."""
    found = _ANSWER.findall(reply)
    return found[-1] if found else None
