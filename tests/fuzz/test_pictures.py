"""Picture files of every format, whole and broken, and references of every mode and size."""

import io

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from deepgen import DeepGenPipeline
from deepgen.errors import DeepGenError
from deepgen.pipeline.intake import MAX_PIXELS, open_picture

# Pillow's and ours: half of the pictures are transparent, animated or damaged.
pytestmark = pytest.mark.filterwarnings("ignore")

FILE_MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "GIF": ["L", "P", "RGB", "RGBA"],
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB"],
    "AVIF": ["RGB", "RGBA"],
    "JPEG2000": ["L", "LA", "RGB", "RGBA", "I;16"],
    "PPM": ["1", "L", "RGB", "I;16"],
    "TGA": ["RGB"],
}
ALL_MODES = sorted({mode for modes in FILE_MODES.values() for mode in modes})


@st.composite
def pictures(draw, modes=tuple(ALL_MODES)):
    """A PIL image of noise."""
    mode = draw(st.sampled_from(modes))
    width, height = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    rng = np.random.default_rng(draw(st.integers(0, 3)))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width), np.uint16))
    noise = Image.frombytes("RGBA", (width, height), rng.bytes(4 * width * height))
    if mode == "LAB":
        return Image.new("LAB", noise.size, (9, 99, 199))
    return (
        noise.quantize(16)
        if mode == "P"
        else noise.convert(mode if mode in ("RGBA", "LA") else "RGB").convert(mode)
    )


@st.composite
def picture_files(draw):
    """The bytes of a picture file as it should be: turned, animated, transparent or not."""
    kind = draw(st.sampled_from(sorted(FILE_MODES)))
    image = draw(pictures(tuple(FILE_MODES[kind])))
    options = {}
    if kind in ("JPEG", "PNG", "WEBP", "TIFF") and draw(st.booleans()):
        exif = image.getexif()
        exif[0x0112] = draw(st.integers(0, 9))
        options["exif"] = exif
    if kind in ("GIF", "PNG", "WEBP", "TIFF") and draw(st.booleans()):
        options |= {"save_all": True, "append_images": [image.copy() for _ in range(2)]}
    if kind in ("PNG", "GIF") and image.mode == "P" and draw(st.booleans()):
        options["transparency"] = draw(st.integers(0, 15))
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def assert_usable(picture):
    width, height = picture.size
    assert picture.mode == "RGB" and 0 < width * height <= MAX_PIXELS
    assert max(width, height) <= 8 * min(width, height)
    assert len(picture.tobytes()) == 3 * width * height


@given(st.data())
def test_any_file_is_read_as_a_usable_picture_or_refused(tmp_path, broken, witness, data):
    path = tmp_path / "in.png"
    path.write_bytes(data.draw(broken(st.one_of(picture_files(), st.binary(max_size=200)))))
    try:
        with witness.only_within(None):
            picture = open_picture(path)
    except DeepGenError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert_usable(picture)


@given(picture_files())
def test_every_whole_file_is_read_unless_a_limit_of_ours_forbids_it(tmp_path, content):
    path = tmp_path / "in.png"
    path.write_bytes(content)
    with Image.open(io.BytesIO(content)) as opened:
        format, mode, size = opened.format, opened.mode, opened.size
    try:
        assert_usable(open_picture(path))
    except DeepGenError:
        too_long = max(size) > 8 * min(size)
        assert too_long or mode in ("I", "F") or format == "TGA"


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint):
    pipeline = DeepGenPipeline.from_pretrained(tiny_checkpoint, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@given(
    st.lists(pictures(), max_size=9),
    st.sampled_from([None, 32, 64]),
    st.sampled_from(["aspect", "square", "area", "none"]),
    st.booleans(),
)
@example([Image.new("RGB", (8, 64))] * 8, None, "aspect", True)
def test_any_references_give_a_picture_or_a_refusal(tiny, references, width, resize, keep_size):
    try:
        result = tiny("a", references, width=width, resize=resize, keep_size=keep_size, seed=1)
    except DeepGenError as error:
        assert "\n" not in str(error)
        return
    record = result.metadata[0]
    kept = references[0].size if keep_size else (record["width"], record["height"])
    assert result.images[0].size == kept


@settings(max_examples=settings.default.max_examples // 10)  # four calls each
@given(st.lists(st.lists(pictures(("RGB",)), max_size=2), min_size=2, max_size=3))
def test_samples_of_any_references_equal_themselves_alone(tiny, samples):
    assume(all(max(p.size) <= 8 * min(p.size) for pictures in samples for p in pictures))
    batch = tiny(["a"] * len(samples), samples, seed=5, output_type="np").images
    for i, pictures in enumerate(samples):
        alone = tiny("a", pictures, seed=5 + i, output_type="np").images[0]
        assert np.abs(batch[i] - alone).max() < 1 / 255
