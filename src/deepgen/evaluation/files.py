"""Files that appear whole or not at all, and names that any id can have."""

import contextlib
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote


def write_bytes(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename; makes the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """UTF-8; see write_bytes."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Indented, keys in their order; see write_bytes."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """One value a line; see write_bytes."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def file_name(text: str) -> str:
    """A name that a file can have, different for different texts; plain ids stay as they are."""
    name = quote(text, safe=" +@=,()")
    return name if name.strip(".") else name.replace(".", "%2E")
