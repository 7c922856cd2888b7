"""Sprites: packing, loading, resizing, recolouring, the cache."""

import hashlib
import io
import json
import shutil
import tarfile
import timeit
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepgen.cli.world_fetch import Package, fetch_sprites, unpack
from deepgen.errors import DataError, InputError
from deepgen.world.colours import (
    COLOURS,
    dominant_hue,
    hsv_to_rgb,
    hue_distance,
    nearest_colour,
    recolour,
    rgb_to_hsv,
)
from deepgen.world.concepts import CONCEPTS
from deepgen.world.sprites import SIDE, STYLES, Sprites, _encode, ink, pack, square


@pytest.fixture(scope="module")
def shapes() -> Sprites:
    return Sprites.procedural()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip packed from a folder where every concept's drawing is the same small off-centre disc."""
    folder = tmp_path_factory.mktemp("art")
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[10:30, 5:45] = (200, 30, 30, 255)
    for style in STYLES:
        (folder / style).mkdir()
        for concept in CONCEPTS.values():
            Image.fromarray(picture).save(folder / style / f"{concept.code.upper()}-fe0f.png")
    return pack(folder, folder / "sprites.zip")


def test_every_concept_has_its_own_generated_shape_in_every_style(shapes: Sprites) -> None:
    for style in STYLES:
        seen = {shapes.get(name, style, None, 48).tobytes() for name in CONCEPTS}
        assert len(seen) == len(CONCEPTS)


def test_generated_shapes_are_rgba_squares_of_the_asked_size(shapes: Sprites) -> None:
    for size in (1, 17, SIDE, 300):
        picture = shapes.get("apple", "flat", None, size)
        assert picture.shape == (size, size, 4) and picture.dtype == np.uint8


def test_resizing_keeps_the_colour_of_half_transparent_edges(tmp_path: Path) -> None:
    sprites = Sprites.procedural()
    original = sprites.get("apple", "flat")
    body = np.median(original[original[..., 3] == 255][:, :3], axis=0)
    small = sprites.get("apple", "flat", None, 50)
    edge = small[(small[..., 3] > 60) & (small[..., 3] < 200)][:, :3].astype(int)
    assert len(edge) > 20
    assert np.median(np.abs(edge - body)) <= 6  # black from the transparent side would pull it far down


def test_results_are_shared_and_cannot_be_written_to(shapes: Sprites) -> None:
    first = shapes.get("car", "3d", "green", 60)
    assert shapes.get("car", "3d", "green", 60) is first
    with pytest.raises(ValueError):
        first[0, 0] = 0


def test_the_cache_drops_the_least_recently_used_but_answers_alike() -> None:
    sprites = Sprites.procedural(cache_mb=1)
    kept = sprites.get("apple", "flat", None, 100)
    before, used = kept.copy(), sprites.get("car", "flat", None, 100)
    for name in list(CONCEPTS)[1:60]:
        sprites.get(name, "flat", None, 100)
        assert sprites.get("car", "flat", None, 100) is used
    again = sprites.get("apple", "flat", None, 100)
    assert again is not kept and np.array_equal(again, before)
    assert sum(picture.nbytes for picture in sprites._cache.values()) <= 2**20


def test_a_cached_sprite_comes_in_under_two_microseconds(shapes: Sprites) -> None:
    shapes.get("car", "flat", None, 64)
    runs = timeit.repeat(lambda: shapes.get("car", "flat", None, 64), number=20_000, repeat=5)
    assert min(runs) / 20_000 < 2e-6


def test_unknown_concept_style_colour_and_size_are_named(shapes: Sprites) -> None:
    for args, word in (
        (("gremlin", "3d"), "gremlin"),
        (("car", "cubist"), "cubist"),
        (("car", "3d", "mauve"), "mauve"),
        (("car", "3d", None, 0), "0"),
    ):
        with pytest.raises(InputError, match=word):
            shapes.get(*args)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_recoloured_sprite_has_the_hue_of_its_name(shapes: Sprites, colour: str) -> None:
    for name in ("anchor", "heart", "tractor"):
        hue = dominant_hue(recolour(np.array(shapes.get(name, "flat")), colour))
        assert hue is not None
        assert abs(float(hue_distance(np.float32(hue), COLOURS[colour].hue))) < 5


def test_recolouring_leaves_other_hues_greys_and_alpha_alone() -> None:
    picture = np.zeros((30, 30, 4), np.uint8)
    picture[:20] = (220, 20, 30, 255)
    picture[20:25] = (20, 60, 220, 255)
    picture[25:28] = (128, 128, 128, 90)
    green = recolour(picture, "green")
    assert np.array_equal(green[20:], picture[20:])
    assert np.array_equal(green[..., 3], picture[..., 3])
    assert green[0, 0, 1] > 2 * green[0, 0, 0]


def test_the_natural_colour_gives_the_unchanged_drawing(shapes: Sprites) -> None:
    natural = [c for c in CONCEPTS.values() if c.natural]
    assert natural
    for concept in natural:
        assert np.array_equal(
            shapes.get(concept.name, "3d", concept.natural, 40), shapes.get(concept.name, "3d", None, 40)
        )


def test_hsv_conversion_is_its_own_inverse() -> None:
    rgb = np.random.default_rng(0).random((500, 3), dtype=np.float32)
    assert np.abs(hsv_to_rgb(*rgb_to_hsv(rgb)) - rgb).max() < 1e-5


def test_a_packed_drawing_fills_its_square_and_is_centred() -> None:
    image = Image.new("RGBA", (100, 100))
    image.paste((255, 0, 0, 255), (60, 10, 100, 30))
    box = square(image).getchannel("A").getbbox()
    assert box is not None and box[0] <= 3 and box[2] >= SIDE - 3
    assert abs((box[1] + box[3]) / 2 - SIDE / 2) <= 1 and abs((box[3] - box[1]) - 94) <= 2


def test_packed_sprites_load_with_all_styles(packed: Path) -> None:
    sprites = Sprites.load(packed)
    for style in STYLES:
        picture = sprites.get("apple", style, None, SIDE)
        assert tuple(picture[SIDE // 2, SIDE // 2]) == (200, 30, 30, 255)


def test_a_noto_drawing_of_another_colour_is_painted_in_the_natural_one(packed: Path) -> None:
    sprites = Sprites.load(packed)
    assert CONCEPTS["tent"].natural == "green"
    noto, flat = (dominant_hue(np.array(sprites.get("tent", style))) for style in ("noto", "flat"))
    assert noto is not None and nearest_colour(noto) == "green"
    assert flat is not None and nearest_colour(flat) == "red"


def test_ink_goes_around_the_shapes_and_needs_the_known_form() -> None:
    svg = '<svg width="32" viewBox="0 0 32 33" fill="none"><path d="M0 0H9V9Z" fill="#F00"/></svg>'
    inked = ink(svg)
    assert 'stroke="#202020"' in inked and 'viewBox="-1 -1 34 35"' in inked and inked.endswith(svg[40:])
    with pytest.raises(DataError, match="32 units"):
        ink(svg.replace("0 0 32 33", "0 0 64 64"))


def test_icons_of_one_json_become_files_by_their_codes(tmp_path: Path) -> None:
    files = {
        "chars": {"1F34E-fe0f": "apple", "1f34f": "second-name"},
        "icons": {"width": 8, "height": 8, "icons": {"apple": {"body": '<path d="M0 0h8v8z"/>'}}},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        for name in files:
            tar.add(tmp_path / f"{name}.json", f"package/{name}.json")
    digest = hashlib.sha256((tmp_path / "a.tgz").read_bytes()).hexdigest()
    unpack(tmp_path / "a.tgz", Package("art", "1.0.0", digest, folder=None), tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "1F34E-fe0f.svg" and 'viewBox="0 0 8 8"><path' in path.read_text()


def test_soft_drawings_are_stored_lossy_and_plain_ones_exactly() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    noise[..., 3] = 255
    plain = np.full((SIDE, SIDE, 4), (250, 30, 30, 255), np.uint8)
    assert len(_encode(Image.fromarray(noise))) < noise.nbytes / 2
    with Image.open(io.BytesIO(_encode(Image.fromarray(plain)))) as image:
        assert np.array_equal(np.array(image.convert("RGBA")), plain)


def test_packing_twice_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    again = pack(packed.parent, tmp_path / "again.zip")
    assert again.read_bytes() == packed.read_bytes()


def test_a_missing_drawing_is_named(packed: Path, tmp_path: Path) -> None:
    gone = f"flat/{CONCEPTS['car'].code}.webp"
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(tmp_path / "less.zip", "w") as new:
        for name in old.namelist():
            if name != gone:
                new.writestr(name, old.read(name))
    with pytest.raises(DataError, match=gone):
        Sprites.load(tmp_path / "less.zip")


def test_broken_and_absent_zips_say_how_to_mend_them(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="world fetch"):
        Sprites.load(tmp_path / "none.zip")
    for cut in (0, 1000, packed.stat().st_size - 100):
        (tmp_path / "cut.zip").write_bytes(packed.read_bytes()[:cut])
        with pytest.raises(DataError, match="world fetch"):
            Sprites.load(tmp_path / "cut.zip")


def test_a_package_with_another_checksum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(b"drawing")
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "a.webp", "package/assets/1f34e.webp")
        tar.add(tmp_path / "a.webp", "package/README.md")
        tar.add(tmp_path / "a.webp", "../../evil.webp")
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(DataError, match="sha256"):
        unpack(archive, Package("art", "1.0.0", "0" * 64), tmp_path / "out")
    unpack(archive, Package("art", "1.0.0", right), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1f34e.webp"]


def test_fetching_without_npm_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="npm"):
        fetch_sprites(tmp_path / "sprites.zip")
