"""From any layout into ours."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from deepgen.checkpoints.checkpoint import Checkpoint
from deepgen.checkpoints.lora import save_peft_folder
from deepgen.checkpoints.own_layout import ADAPTERS
from deepgen.checkpoints.save import save_model
from deepgen.errors import InputError, OutputError

SHARD_BYTES = 2_000_000_000


def convert(
    checkpoint: Checkpoint, target: Path, dtype: torch.dtype | None = None, merge: bool = False
) -> None:
    """Write an opened checkpoint in our layout; the folder appears whole or not at all.

    Args:
        checkpoint: complete.
        target: a folder that is not there yet, or empty.
        dtype: of the weights on disk; None keeps each as it is stored, so that nothing is lost.
        merge: adapters into the weights. Otherwise they are kept beside them, in peft's format, and merged by
            loading: merging rounds every weight once more.

    Raises:
        InputError: the target holds something.
        OutputError: no space, or no permission to write there.
        CheckpointError: the checkpoint is incomplete or damaged.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already; give a new folder")
    temporary = _draft(target)
    try:
        model, defaults = checkpoint.load(dtype, merge=merge)
        adapters = {
            name: adapter for part in checkpoint.parts.values() for name, adapter in part.adapters.items()
        }
        with _told(target):
            save_model(model, defaults, temporary, shard_bytes=SHARD_BYTES)
            if adapters and not merge:
                save_peft_folder(adapters, temporary / ADAPTERS)
            if target.exists():
                target.rmdir()
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _draft(target: Path) -> Path:
    """A folder beside the target; made before anything is read, so that a place where none can be is told at once."""
    with _told(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
        # mkdtemp makes the folder private; give it what an ordinary new one would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
    return temporary


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """Failures to write as OutputError, which names the target."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from None
