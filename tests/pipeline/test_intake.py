"""Pictures that users bring."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from deepgen.errors import InputError
from deepgen.pipeline.intake import open_picture, references_of, to_pixels


def test_transparency_is_laid_over_white_and_said(recwarn):
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    with pytest.warns(UserWarning, match="the image: its transparent parts are laid over white"):
        assert open_picture(half).getpixel((0, 0)) == (255, 127, 127)
    palette = Image.new("P", (4, 4))
    palette.info["transparency"] = 0
    with pytest.warns(UserWarning, match="transparent parts"):
        assert open_picture(palette).getpixel((0, 0)) == (255, 255, 255)
    assert open_picture(Image.new("RGBA", (4, 4), "red")).getpixel((0, 0)) == (255, 0, 0)
    assert recwarn.list == []


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright_as_pillow_does(tmp_path, suffix, orientation):
    picture = Image.effect_noise((40, 24), 90).convert("RGB").resize((160, 96))
    exif = picture.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    picture.save(path, exif=exif)
    assert open_picture(path).size == ((96, 160) if orientation > 4 else (160, 96))
    with Image.open(path) as opened:
        assert np.array_equal(open_picture(path), ImageOps.exif_transpose(opened).convert("RGB"))


def test_damaged_exif_data_does_not_cost_the_picture(tmp_path):
    Image.new("RGB", (40, 20), "blue").save(tmp_path / "a.png", exif=b"garbage")
    with pytest.warns(UserWarning, match=r"a\.png: its EXIF data is damaged"):
        assert open_picture(tmp_path / "a.png").size == (40, 20)


@pytest.mark.parametrize("suffix", ["png", "tiff", "ppm", "jp2"])
def test_sixteen_bit_greys_keep_their_upper_bits(tmp_path, suffix):
    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(levels).save(tmp_path / f"deep.{suffix}")
    read = np.asarray(open_picture(tmp_path / f"deep.{suffix}"))
    assert all(np.array_equal(read[..., c], levels >> 8) for c in range(3))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pictures_whose_range_nobody_knows_are_refused(mode):
    with pytest.raises(InputError, match=r"32 bits a value.*8 or 16 bits"):
        open_picture(Image.new(mode, (4, 4)))


MODES = [
    "1",
    "L",
    "P",
    "LA",
    "La",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I;16",
]


@pytest.mark.filterwarnings("ignore:.*transparent parts")
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode):
    picture = open_picture(Image.new(mode, (6, 4)))
    assert picture.mode == "RGB" and picture.size == (6, 4)


def test_cmyk_grey_and_palette_files_keep_their_colours(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    assert np.abs(np.subtract(open_picture(tmp_path / "a.jpg").getpixel((3, 3)), (255, 0, 0))).max() < 6
    Image.new("L", (8, 8), 77).save(tmp_path / "b.png")
    assert open_picture(tmp_path / "b.png").getpixel((3, 3)) == (77, 77, 77)
    Image.new("RGB", (8, 8), (10, 200, 30)).convert("P").save(tmp_path / "c.gif")
    assert np.abs(np.subtract(open_picture(tmp_path / "c.gif").getpixel((3, 3)), (10, 200, 30))).max() < 26


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_of_an_animation_the_first_frame_is_taken_and_said(tmp_path, suffix):
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    red.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[blue], duration=100)
    with pytest.warns(UserWarning, match="several frames; the first is taken"):
        pixel = open_picture(tmp_path / f"a.{suffix}").getpixel((0, 0))
    assert np.abs(np.subtract(pixel, (255, 0, 0))).max() < 6


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


def test_a_picture_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    Image.new("1", (9000, 8000)).save(path)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"huge.png: 9000x8000 is more than 64 megapixels"):
        open_picture(path)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(InputError, match="64 megapixels"):
        open_picture(tmp_path / "bomb.png")


def test_a_text_bomb_inside_a_picture_is_refused(tmp_path):
    info = PngInfo()
    info.add_text("comment", "x" * 10_000_000, zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(InputError, match=r"a\.png: "):
        open_picture(tmp_path / "a.png")


def test_a_picture_too_long_is_refused():
    assert open_picture(Image.new("RGB", (80, 10))).size == (80, 10)
    with pytest.raises(InputError, match="81x10 is longer than 8:1"):
        open_picture(Image.new("RGB", (81, 10)))


def test_decoders_that_start_other_programs_are_never_reached(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    with pytest.raises(InputError, match="not an image file"):
        open_picture(tmp_path / "a.eps")


def test_a_path_that_is_no_file_is_refused(tmp_path):
    for path, words in (
        (tmp_path, "not a file"),
        (tmp_path / ("x" * 300), "name too long"),
        ("a\0b", "no such file"),
    ):
        with pytest.raises(InputError, match=words):
            open_picture(path)


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
