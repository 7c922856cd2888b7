"""Which weights a local scorer has: part of the key of its replies, so that other weights are other scorers."""

import hashlib
from pathlib import Path
from typing import Any

from deepgen.errors import CheckpointError, InputError


def folder_identity(folder: Path) -> str:
    """A short hash of a model's configuration and weights. Raises InputError where there is no such folder."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no model's folder (config.json is missing)")
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def require_whole(loaded: tuple[Any, dict[str, Any]], folder: Path) -> Any:
    """The model of `from_pretrained(..., output_loading_info=True)`. Raises CheckpointError for missing tensors."""
    model, report = loaded
    wrong = [*report.get("missing_keys", ()), *(str(k) for k in report.get("mismatched_keys", ()))]
    if wrong:
        raise CheckpointError(f"{folder}: lacks {len(wrong)} tensors, such as {sorted(wrong)[0]}")
    return model
