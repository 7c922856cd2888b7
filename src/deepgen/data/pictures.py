"""Pictures where they are stored: opened only when a sample is used, and measured without being decoded."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from PIL import Image

from deepgen.errors import DataError, InputError
from deepgen.pipeline.intake import DECODING_ERRORS, FORMATS, ORIENTATION, check_file, open_picture
from deepgen.pipeline.sizes import Size
from deepgen.world.draw import draw
from deepgen.world.scenes import Scene
from deepgen.world.sprites import Sprites

READ_ERRORS = (InputError, DataError, OSError)
"""What reading one sample can raise; anything else is an error of ours."""


@contextmanager
def quiet() -> Iterator[None]:
    """No warning for each transparent or animated picture of a million. Not for use inside threads, around them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class StoredPicture(Protocol):
    """A picture that is not opened yet."""

    @property
    def name(self) -> str:
        """Path or id, for messages."""
        ...

    def open(self) -> Image.Image:
        """The upright RGB picture. Raises InputError, which names it."""
        ...

    def size(self) -> Size:
        """(width, height) of the upright picture, from its header. Raises InputError."""
        ...

    def content(self) -> bytes:
        """What identifies the picture's content, to find duplicates. Raises InputError or OSError."""
        ...


@dataclass(frozen=True)
class FilePicture:
    """A picture in a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def open(self) -> Image.Image:
        return open_picture(self.path, self.name)

    def size(self) -> Size:
        with check_file(self.path).open("rb") as file:
            return _header(file, self.name)

    def content(self) -> bytes:
        return check_file(self.path).read_bytes()


@dataclass(frozen=True)
class BytesPicture:
    """An encoded picture in memory."""

    data: bytes = field(repr=False)
    name: str = "a picture"

    def open(self) -> Image.Image:
        with _decoder(io.BytesIO(self.data), self.name) as opened:
            return open_picture(opened, self.name)

    def size(self) -> Size:
        return _header(io.BytesIO(self.data), self.name)

    def content(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class PartPicture:
    """An encoded picture inside a larger file, such as a tar shard."""

    path: Path
    offset: int
    length: int
    name: str

    def open(self) -> Image.Image:
        return BytesPicture(self.content(), self.name).open()

    def size(self) -> Size:
        return _header(io.BytesIO(self.content()), self.name)

    def content(self) -> bytes:
        return read_part(self.path, self.offset, self.length)


@dataclass(frozen=True)
class ScenePicture:
    """A scene of the picture world, drawn when it is opened."""

    scene: Scene
    sprites: Sprites = field(repr=False, compare=False)
    name: str = "a scene"

    def open(self) -> Image.Image:
        return Image.fromarray(draw(self.scene, self.sprites))

    def size(self) -> Size:
        return self.scene.width, self.scene.height

    def content(self) -> bytes:
        return repr(self.scene.to_json()).encode()


def read_part(path: Path, offset: int, length: int) -> bytes:
    """`length` bytes of a file from `offset`. Raises DataError where the file is shorter."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise DataError(f"{path}: ends before byte {offset + length}; download it again")
    return data


def _decoder(file: IO[bytes], name: str) -> Image.Image:
    Image.init()
    formats = tuple(one for one in FORMATS if one in Image.OPEN)
    try:
        return Image.open(file, formats=formats)
    except Image.DecompressionBombError:
        raise InputError(f"{name}: too many pixels; scale it down") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{name}: not an image that can be read ({', '.join(formats)})") from None
    except DECODING_ERRORS as error:
        raise InputError(f"{name}: cannot be read ({error})") from None


def _header(file: IO[bytes], name: str) -> Size:
    with _decoder(file, name) as image:
        try:
            turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        except DECODING_ERRORS:
            turned = False
        width, height = image.size
    return (height, width) if turned else (width, height)
