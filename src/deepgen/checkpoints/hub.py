"""Checkpoints by name: `org/name[@revision]`, through huggingface_hub, its cache and its offline mode.

Only the files that loading reads are fetched, and each new weight file is held against its sha256.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from deepgen.checkpoints.checkpoint_files import (
    DEEPSPEED_FILES,
    DIFFUSERS_FILES,
    DIT_FILES,
    NATIVE_FILES,
    PEFT_FILES,
    RL_FILES,
    VLM_FILES,
)
from deepgen.errors import CheckpointError, InputError

Role = Literal["model", "vlm", "dit", "lora"]
HUB_NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?")
WANTED: dict[Role, tuple[tuple[str, ...], ...]] = {
    "model": (DIFFUSERS_FILES, NATIVE_FILES, RL_FILES, DEEPSPEED_FILES),
    "vlm": (VLM_FILES,),
    "dit": (DIT_FILES,),
    "lora": (PEFT_FILES, NATIVE_FILES, RL_FILES, DEEPSPEED_FILES),
}
"""What each argument may be, as groups of file names with `*`; the first group of which a repository has anything
is fetched."""
SHA256 = re.compile(r"[0-9a-f]{64}")
KNOWN_SHA256 = {
    ("deepgenteam/DeepGen-1.0-diffusers", "85c2ed257b9406d8531965c68e140dc7fdb81382"): {
        "transformer/diffusion_pytorch_model.safetensors": (
            "54078ee51ab477275e94b610249ea912d6f80d24256c4197fe48945eef706883"
        ),
        "connector/model.safetensors": "425ce59f596eeb573f9cd52138b775df47ce69c60d2782fb32cac5498ed208f3",
        "vae/diffusion_pytorch_model.safetensors": (
            "5a170129752b4ad4ab98996d2e59097c8c693afc31a5964bd2ad60896686c1e2"
        ),
        "vlm/model-00001-of-00002.safetensors": (
            "d6f11cc9c30184ce92605f25ac1e6b6644ee217e7b86a28282b3c9b17de3e609"
        ),
        "vlm/model-00002-of-00002.safetensors": (
            "c675c19a231b0ead141d8d3a05fe930892ddf17f1324d75bb94d2a42a79f7ebc"
        ),
    }
}
"""Of published weights, by repository and commit."""
UNREACHABLE: tuple[Any, ...] = (*HfHubHTTPError.__bases__, ValueError, LookupError)
"""The first base is the error of the HTTP library, which changed between versions of the hub's."""


def is_hub_name(text: str) -> bool:
    """Whether a text has the form of a name on the hub."""
    return HUB_NAME.fullmatch(text) is not None


def locate(model: str | Path, role: Role) -> Path:
    """The file or folder of a path, or of a name on the hub: what is here goes first.

    Args:
        model: a path or `org/name[@revision]`.
        role: what it is needed as, which decides what is fetched.

    Raises:
        InputError: no such file, folder, repository or revision.
        CheckpointError: the hub cannot be reached and the cache does not have it, or a download is damaged.
    """
    path = Path(model).expanduser()
    if path.exists():
        return path
    match = HUB_NAME.fullmatch(str(model))
    if match is None:
        raise InputError(f"{model}: no such file or folder")
    return _fetch(match["repo"], match["revision"], role)


def _fetch(repo: str, revision: str | None, role: Role) -> Path:
    for patterns in WANTED[role]:
        folder = _snapshot(repo, revision, patterns)
        if _holds_any(folder, patterns):
            return folder
        # The commit is known now: the other groups come from the same one.
        revision = folder.name
    raise CheckpointError(
        f"{repo} on the hub has no file that is needed here; is it another model's repository?"
    )


def _holds_any(folder: Path, patterns: Sequence[str]) -> bool:
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))


def _snapshot(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder of a commit in the cache, with the files of these patterns."""
    blobs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"), "blobs")
    before = {path.name for path in blobs.glob("*")}
    name = repo if revision is None else f"{repo}@{revision}"
    try:
        with _without_empty_warning():
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except GatedRepoError:
        raise CheckpointError(
            f"{repo} asks for its terms to be accepted: do so on its page, then log in with `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"{repo} on the hub has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{name}: no such file or folder here, and no such repository on the hub (or a private one: log in "
            "with `hf auth login`)"
        ) from None
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name}: no such file or folder here, not completely in the hub's cache, and the hub is offline or "
            f"cannot be reached ({_first_line(error)})"
        ) from None
    except UNREACHABLE as error:
        raise CheckpointError(f"{name} cannot be fetched from the hub: {_first_line(error)}") from None
    _check_sums(repo, folder, before)
    return folder


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _without_empty_warning() -> Iterator[None]:
    """A group of files that a repository lacks is not worth the hub library's warning."""
    logger = logging.getLogger("huggingface_hub._snapshot_download")

    def keep(record: logging.LogRecord) -> bool:
        return "No files matched" not in record.getMessage()

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _check_sums(repo: str, folder: Path, before: set[str]) -> None:
    """Hold new files against their sha256: the hub names a large file in its cache by it.

    A file that is wrong leaves the cache, so that the next attempt fetches it again. Raises CheckpointError.
    """
    known = KNOWN_SHA256.get((repo, folder.name), {})
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        blob = path.resolve()
        name = path.relative_to(folder).as_posix()
        expected = known.get(name) or (blob.name if SHA256.fullmatch(blob.name) else None)
        if expected is None or blob.name in before:
            continue
        with blob.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            path.unlink()
            blob.unlink(missing_ok=True)
            raise CheckpointError(
                f"{name} of {repo} arrived damaged (its sha256 is {found[:12]}…, not {expected[:12]}…); try again"
            )
