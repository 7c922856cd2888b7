"""Files of prompts: a text file with one a line, or JSON lines that say more about each picture."""

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from deepgen.errors import InputError
from deepgen.pipeline.inputs import check_prompt
from deepgen.pipeline.intake import check_count, check_file
from deepgen.pipeline.sizes import Size, check_size, parse_size

KEYS = ("prompt", "image", "seed", "size", "out")


@dataclass(frozen=True)
class Job:
    """One line of a file of prompts.

    Attributes:
        line: its number, from 1.
        prompt: what to draw, or how to change the pictures.
        images: reference pictures; relative ones are found from the file's folder.
        seed, size: of the picture, where the line says; size is (width, height).
        out: where it goes, relative to the output folder; ends in .png and stays inside.
    """

    line: int
    prompt: str
    images: tuple[Path, ...] = ()
    seed: int | None = None
    size: Size | None = None
    out: str = ""


def read_jobs(path: Path) -> list[Job]:
    """The jobs of a .txt or .jsonl file; blank lines count but ask for nothing.

    A line of .jsonl is an object with "prompt" and, if wanted, "image" (a path or a list of them), "seed",
    "size" ("320x192" or 256) and "out" (the picture's name). Pictures are named after their line otherwise.

    Raises:
        InputError: names the line that cannot be used.
    """
    reader = {".txt": _text_job, ".jsonl": _json_job}.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: prompts are read from .txt (one a line) or .jsonl")
    try:
        text = check_file(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    # Not splitlines(), which also splits at characters that a prompt may hold.
    lines = [line.strip() for line in text.split("\n")]
    jobs = []
    for number, line in enumerate(lines, start=1):
        if line:
            jobs.append(_job(path, number, line, reader))
    if not jobs:
        raise InputError(f"{path}: holds no prompt")
    return jobs


def _job(path: Path, number: int, line: str, reader: Callable[[Path, int, str], Job]) -> Job:
    try:
        job = reader(path, number, line)
        check_prompt(job.prompt)
        check_count(job.images, "the prompt")
        for image in job.images:
            check_file(image)
        if job.size is not None:
            check_size(*job.size)
        return job
    except InputError as error:
        raise InputError(f"{path}, line {number}: {error}") from None


def _text_job(path: Path, number: int, line: str) -> Job:
    return Job(number, line, out=f"{number:04}.png")


def _json_job(path: Path, number: int, line: str) -> Job:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError("not JSON") from None
    if not isinstance(values, dict):
        raise InputError('not an object such as {"prompt": "a cat"}')
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r}; known: {', '.join(KEYS)}")
    if "prompt" not in values:
        raise InputError('has no "prompt"')
    return Job(
        number,
        values["prompt"],
        _images(values.get("image"), path.parent),
        _seed(values.get("seed")),
        _size(values.get("size")),
        _out(values.get("out", f"{number:04}.png")),
    )


def _is_name(value: Any) -> bool:
    """Whether it is text that can stand in a path: not empty, no control characters, no lone surrogates."""
    return (
        isinstance(value, str)
        and bool(value)
        and not any(unicodedata.category(character) in ("Cc", "Cs") for character in value)
    )


def _images(value: Any, folder: Path) -> tuple[Path, ...]:
    names = [] if value is None else value if isinstance(value, list) else [value]
    if not all(_is_name(name) for name in names):
        raise InputError('"image" must be a path or a list of paths')
    return tuple(folder / name for name in names)


def _seed(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise InputError('"seed" must be a whole number')
    return value


def _size(value: Any) -> Size | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError('"size" must be such as "320x192" or 256')
    return parse_size(str(value)) if isinstance(value, str) else (value, value)


def _out(value: Any) -> str:
    """A relative name that stays inside the folder on every system, with .png at its end."""
    if not _is_name(value):
        raise InputError(f'"out" must be a name without control characters, got {value!r}')
    path, on_windows = PurePosixPath(value), PureWindowsPath(value)
    if path.is_absolute() or on_windows.anchor or ".." in {*path.parts, *on_windows.parts}:
        raise InputError(f'"out" must stay inside the output folder: {value!r}')
    if not path.name:
        raise InputError(f'"out" must be a name: {value!r}')
    return str(path if path.suffix.lower() == ".png" else path.with_name(f"{path.name}.png"))
