import dataclasses
import itertools
import random

import numpy as np
import pytest
import torch

from deepgen.errors import InputError
from deepgen.world.draw import Atlas, draw, draw_batch
from deepgen.world.plans import CATEGORIES
from deepgen.world.sampling import sample_scene
from deepgen.world.scenes import PALETTE, SQUARE, Background, Object, Scene, Word
from deepgen.world.sprites import Sprites
from deepgen.world.words import FONTS, WORD_HEIGHTS, glyphs

SPRITES = Sprites.procedural()
EMPTY = Scene(64, 96, "3d", Background("plain", ("orange",)))


def test_an_empty_scene_is_its_background() -> None:
    picture = draw(EMPTY, SPRITES)
    assert picture.shape == (96, 64, 3) and picture.dtype == np.uint8
    assert (picture == PALETTE["orange"]).all()


@pytest.mark.parametrize(("direction", "axis"), [("vertical", 0), ("horizontal", 1)])
def test_a_gradient_runs_from_its_first_colour_to_its_second(direction: str, axis: int) -> None:
    scene = dataclasses.replace(EMPTY, background=Background("gradient", ("black", "white"), direction))
    picture = np.moveaxis(draw(scene, SPRITES), axis, 0).astype(int)
    assert (picture[0] == PALETTE["black"]).all() and (picture[-1] == PALETTE["white"]).all()
    assert (np.diff(picture, axis=0) >= 0).all()


def test_a_checker_alternates_every_32_pixels() -> None:
    picture = draw(dataclasses.replace(EMPTY, background=Background("checker", ("red", "blue"))), SPRITES)
    assert tuple(picture[0, 0]) == tuple(picture[32, 32]) == PALETTE["red"]
    assert tuple(picture[0, 32]) == tuple(picture[32, 0]) == PALETTE["blue"]


def test_a_sprite_is_blended_by_its_alpha_at_its_place() -> None:
    scene = dataclasses.replace(EMPTY, objects=(Object("dog", 8, 20, 44),))
    picture, sprite = draw(scene, SPRITES), SPRITES.get("dog", "3d", None, 44).astype(float)
    alpha = sprite[..., 3:] / 255
    expected = sprite[..., :3] * alpha + np.array(PALETTE["orange"]) * (1 - alpha)
    assert np.abs(picture[20:64, 8:52] - expected).max() <= 0.51
    assert (picture[:20] == PALETTE["orange"]).all() and (picture[:, 52:] == PALETTE["orange"]).all()


@pytest.mark.parametrize("font", FONTS)
def test_letters_are_as_high_as_asked_and_in_their_colour(font: str) -> None:
    for height in WORD_HEIGHTS:
        mask = np.array(glyphs("HEN", height, font))
        assert abs(mask.shape[0] - height) <= 2 + 2 * (font == "bold") * (height // 16)
    scene = Scene(256, 96, "3d", Background(), words=(Word("HEN", 20, 20, 40, font, "red"),))
    inside = draw(scene, SPRITES)[20:60, 20:130]
    assert (inside == PALETTE["red"]).all(axis=-1).mean() > 0.08


def test_fonts_differ() -> None:
    plain, bold, slanted = (np.array(glyphs("HEN", 40, font)) for font in FONTS)
    assert bold.mean() > plain.mean() and slanted.shape[1] > plain.shape[1] + 4


def test_the_batch_equals_single_drawings() -> None:
    rng = random.Random(1)
    scenes = [sample_scene(rng, category, "test") for category in CATEGORIES * 6]
    scenes = [scene for scene in scenes if (scene.width, scene.height) == SQUARE]
    scenes.append(Scene(*SQUARE, "flat", Background("checker", ("red", "white"))))
    batch = draw_batch(scenes, SPRITES)
    assert batch.shape == (len(scenes), 3, 256, 256) and batch.dtype == torch.uint8
    single = np.stack([draw(scene, SPRITES) for scene in scenes]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(batch.numpy(), single)


def test_a_batch_of_two_sizes_is_refused() -> None:
    with pytest.raises(InputError, match="one size"):
        draw_batch([EMPTY, Scene(96, 64, "3d")], SPRITES)


def test_a_full_atlas_starts_again_and_still_holds_what_is_asked() -> None:
    atlas = Atlas(SPRITES, torch.device("cpu"), limit=3 * 44 * 44)
    keys = [("sprite", name, "3d", None, 44) for name in ("dog", "cat", "apple", "owl", "cat")]
    for first, second in itertools.pairwise(keys):
        atlas.load({first, second})
        for key in (first, second):
            offset, width, height = atlas.entry(key)
            texels = atlas.texels[offset : offset + width * height].numpy().reshape(height, width, 4)
            np.testing.assert_array_equal(texels, SPRITES.get(key[1], "3d", None, 44))


@pytest.mark.gpu
def test_a_gpu_draws_the_same_bytes() -> None:
    rng = random.Random(2)
    scenes = [sample_scene(rng, category, "test") for category in CATEGORIES * 6]
    scenes = [scene for scene in scenes if (scene.width, scene.height) == SQUARE]
    torch.testing.assert_close(
        draw_batch(scenes, SPRITES, "cuda").cpu(), draw_batch(scenes, SPRITES), rtol=0, atol=0
    )
