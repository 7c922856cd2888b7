"""What is sent: order, system text, and pictures as the profile wants them."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepgen.errors import DataError, InputError
from deepgen.scorers.calls import ImageEncoding, JudgeCall, JudgeImage, JudgeProfile
from deepgen.scorers.encode import data_url, encode, open_image
from deepgen.scorers.endpoint import Endpoint, messages

PROFILE = JudgeProfile("j", "m")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A PNG of 40x20 whose left half is red and whose right half is blue."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20, 0] = pixels[:, 20:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def kinds(content: list[dict[str, object]]) -> list[object]:
    return [part["type"] for part in content]


def test_order_and_system_follow_the_profile(photo: Path) -> None:
    call = JudgeCall("q", "text", (JudgeImage(photo), JudgeImage(photo)), system="rules")
    system, user = messages(call, PROFILE)
    assert (system["role"], system["content"]) == ("system", [{"type": "text", "text": "rules"}])
    assert kinds(user["content"]) == ["text", "image_url", "image_url"]
    (user,) = messages(call, replace(PROFILE, order="images-first", system="prefix"))
    assert kinds(user["content"]) == ["image_url", "image_url", "text"]
    assert user["content"][2]["text"] == "rules\ntext"


def test_a_file_is_sent_as_it_lies_on_disk(photo: Path) -> None:
    content, mime = encode(JudgeImage(photo), ImageEncoding("file"))
    assert content == photo.read_bytes() and mime == "image/png"
    assert encode(JudgeImage(photo), ImageEncoding("file", mime="image/jpeg"))[1] == "image/jpeg"
    url = data_url(JudgeImage(photo), ImageEncoding("file"))
    assert url == f"data:image/png;base64,{base64.b64encode(photo.read_bytes()).decode()}"


def test_jpeg_of_a_quality_is_what_pil_makes(photo: Path) -> None:
    expected = io.BytesIO()
    with Image.open(photo) as opened:
        opened.convert("RGB").save(expected, "JPEG", quality=95)
    how = ImageEncoding("jpeg", quality=95, detail="high")
    assert encode(JudgeImage(photo), how) == (expected.getvalue(), "image/jpeg")
    (user,) = messages(JudgeCall("q", "t", (JudgeImage(photo),)), replace(PROFILE, image=how))
    assert user["content"][1]["image_url"]["detail"] == "high"


def size_of(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as opened:
        return opened.size


def test_crop_stretch_and_limit(photo: Path, tmp_path: Path) -> None:
    Image.new("RGB", (10, 30)).save(tmp_path / "other.png")
    right_half = JudgeImage(photo, crop=(20, 0, 40, 20))
    assert open_image(right_half).getcolors() == [(400, (0, 0, 255))]
    assert size_of(encode(right_half, ImageEncoding("file"))[0]) == (20, 20)
    assert size_of(encode(JudgeImage(photo, like=tmp_path / "other.png"), ImageEncoding())[0]) == (10, 30)
    assert size_of(encode(JudgeImage(photo), ImageEncoding("jpeg", max_side=20))[0]) == (20, 10)
    assert size_of(encode(JudgeImage(photo), ImageEncoding("file", max_side=20))[0]) == (20, 10)
    assert size_of(encode(JudgeImage(photo), ImageEncoding("file", max_side=40))[0]) == (40, 20)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    for name in ("notes.png", "gone.png"):
        with pytest.raises(DataError, match=name):
            encode(JudgeImage(tmp_path / name), ImageEncoding())
        with pytest.raises(DataError, match=name):
            open_image(JudgeImage(tmp_path / name))


def test_addresses_are_completed_and_nonsense_is_refused() -> None:
    assert Endpoint("http://h:1/v1/").address == "http://h:1/v1/chat/completions"
    whole = "https://x.azure.com/openai/deployments/d/chat/completions?api-version=1"
    assert Endpoint(whole).address == whole
    for nonsense in ("localhost:8000", "ftp://x", "http://"):
        with pytest.raises(InputError, match="must be like"):
            Endpoint(nonsense)
