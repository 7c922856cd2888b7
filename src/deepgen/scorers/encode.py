"""Pictures as a judge is sent them."""

import base64
import io

from PIL import Image, ImageOps

from deepgen.errors import DataError
from deepgen.scorers.calls import ImageEncoding, JudgeImage

FORMATS = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}


def encode(image: JudgeImage, how: ImageEncoding) -> tuple[bytes, str]:
    """The bytes that are sent and their MIME type. Raises DataError where a file is missing or no picture."""
    untouched = image.like is None and image.crop is None
    try:
        content = image.path.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            mime = FORMATS.get(opened.format or "")
            longest = max(opened.size)
            shrinks = how.max_side is not None and longest > how.max_side
            if how.format == "file" and untouched and not shrinks and mime is not None:
                return content, how.mime or mime
            picture = prepare(opened, image, how.max_side)
    except OSError as error:
        raise DataError(f"{image.path}: cannot be read as a picture ({error})") from error
    file = io.BytesIO()
    if how.format == "jpeg":
        picture.save(file, "JPEG", quality=how.quality)
        return file.getvalue(), how.mime or "image/jpeg"
    picture.save(file, "PNG")
    return file.getvalue(), how.mime or "image/png"


def prepare(opened: Image.Image, image: JudgeImage, max_side: int | None) -> Image.Image:
    """Upright RGB, cropped, stretched to the size of `image.like`, and shrunk to `max_side`, in that order."""
    picture = ImageOps.exif_transpose(opened).convert("RGB")
    if image.crop is not None:
        picture = picture.crop(image.crop)
    if image.like is not None:
        with Image.open(image.like) as other:
            picture = picture.resize(other.size)
    if max_side is not None:
        picture.thumbnail((max_side, max_side))
    return picture


def open_image(image: JudgeImage) -> Image.Image:
    """The picture as RGB, for a scorer on this machine. Raises DataError."""
    try:
        with Image.open(image.path) as opened:
            return prepare(opened, image, None)
    except OSError as error:
        raise DataError(f"{image.path}: cannot be read as a picture ({error})") from error


def data_url(image: JudgeImage, how: ImageEncoding) -> str:
    """`data:MIME;base64,...` of the picture."""
    content, mime = encode(image, how)
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
