"""What frozen networks made of the data, kept on disk: latents of pictures, states of prompts.

An entry is found by its content (the pixels, the prompt), never by a path, so that a changed picture is a new entry. A
folder belongs to one producer, that is to the exact weights and settings, and refuses every other.
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from deepgen.errors import DataError

Settings = Mapping[str, str | int | float | bool | None]


def weights_digest(module: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of all parameters and stored buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def content_key(*parts: str | Tensor) -> str:
    """A key that depends on every text and on every value, type and shape of the tensors."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        if isinstance(part, str):
            data = part.encode()
            digest.update(f"text {len(data)} ".encode() + data)
        else:
            digest.update(f"tensor {part.dtype} {tuple(part.shape)} ".encode())
            digest.update(_bytes_of(part))
    return digest.hexdigest()


class FeatureCache:
    """Tensors by content, of one producer; several processes may read and write at once."""

    def __init__(self, folder: Path, producer: Settings) -> None:
        """
        Args:
            folder: made where it does not exist.
            producer: everything that decides the values: `weights_digest` of the network, number type, settings.

        Raises:
            DataError: the folder holds what another producer made; names what differs.
        """
        self.folder = folder
        wanted = dict(producer)
        manifest = folder / "producer.json"
        if not manifest.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            if any(path.suffix != ".draft" and path != manifest for path in folder.iterdir()):
                raise DataError(f"{folder}: holds files but no producer.json; choose an empty folder")
            _write_first(manifest, json.dumps(wanted, indent=1, sort_keys=True))
        try:
            found = json.loads(manifest.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{manifest}: damaged ({error}); delete {folder}") from error
        differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        if differing:
            raise DataError(
                f"{folder}: made by another producer ({', '.join(differing)} differ); choose another folder"
            )

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of an entry, on the CPU; None where there is none. Raises DataError for a damaged file."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path}: damaged ({error}); delete it") from error

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep an entry; it appears whole or not at all. Raises DataError: no space, or no permission."""
        path = self._path(key)
        draft = path.with_name(f"{uuid.uuid4().hex}.draft")
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        try:
            path.parent.mkdir(exist_ok=True)
            draft.write_bytes(data)
            os.replace(draft, path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise DataError(f"{path}: cannot be written ({error.strerror})") from error

    def of_pictures(
        self,
        pictures: Sequence[Tensor],
        make: Callable[[list[Tensor]], Sequence[Tensor]],
        device: torch.device,
    ) -> list[Tensor]:
        """What `make` gives for each picture [3, H, W], on a device; those not kept yet come from one call of it."""
        keys = [content_key(picture) for picture in pictures]
        entries = {key: self.get(key) for key in keys}
        new = {key: picture for key, picture in zip(keys, pictures, strict=True) if entries[key] is None}
        if new:
            for key, values in zip(new, make(list(new.values())), strict=True):
                entries[key] = {"values": values}
                self.put(key, {"values": values})
        return [found["values"].to(device) for key in keys if (found := entries[key]) is not None]


def _write_first(path: Path, text: str) -> None:
    """Write a file unless another process was faster; it appears whole."""
    draft = path.with_name(f"{uuid.uuid4().hex}.draft")
    draft.write_text(text, encoding="utf-8")
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
