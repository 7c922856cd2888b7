"""Pictures that users bring."""

import numpy as np
import pytest
import torch
from PIL import Image

from deepgen.errors import InputError
from deepgen.pipeline import intake
from deepgen.pipeline.intake import open_picture, references_of, to_pixels


def test_transparency_is_laid_over_white():
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert open_picture(half).getpixel((0, 0)) == (255, 127, 127)
    palette = Image.new("P", (4, 4))
    palette.info["transparency"] = 0
    assert open_picture(palette).getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_turns_the_picture_upright(tmp_path):
    picture = Image.new("RGB", (40, 20), "blue")
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (20, 40)


def test_sixteen_bit_greys_keep_their_upper_bits():
    grey = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert open_picture(grey).getpixel((0, 0)) == (128, 128, 128)


def test_a_file_that_is_no_picture_or_missing_is_named(tmp_path):
    text = tmp_path / "notes.png"
    text.write_text("not a picture")
    with pytest.raises(InputError, match=r"notes\.png: not an image"):
        open_picture(text)
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        open_picture(tmp_path / "gone.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_file_cut_short_is_refused(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=f"cut.{suffix}"):
        open_picture(cut)


def test_a_picture_too_large_or_too_long_is_refused(monkeypatch):
    with pytest.raises(InputError, match="8:1"):
        open_picture(Image.new("RGB", (100, 10)))
    monkeypatch.setattr(intake, "MAX_PIXELS", 1_000)
    with pytest.raises(InputError, match="megapixels"):
        open_picture(Image.new("RGB", (40, 40)))


def test_lists_of_references_go_to_the_prompts_they_belong_to():
    a, b = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    assert [len(r) for r in references_of([a, b], 1)] == [2]
    assert [len(r) for r in references_of([a, b], 2)] == [1, 1]
    assert [len(r) for r in references_of([[a, b], None, b], 3)] == [2, 0, 1]
    assert [len(r) for r in references_of(a, 3)] == [1, 1, 1]
    with pytest.raises(InputError, match="2 images for 3 prompts"):
        references_of([a, b], 3)
    with pytest.raises(InputError, match="9 reference images, at most 8"):
        references_of([a] * 9, 1)
    with pytest.raises(InputError, match="PIL image or a file's path"):
        references_of([3], 1)


def test_pixels_span_minus_one_to_one_and_take_the_size_asked_for():
    pixels = to_pixels(Image.new("RGB", (10, 20), (0, 255, 0)), (64, 32))
    assert pixels.shape == (3, 32, 64) and pixels.dtype == torch.float32
    assert pixels[0].eq(-1).all() and pixels[1].eq(1).all()
