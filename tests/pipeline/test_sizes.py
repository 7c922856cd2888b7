"""Sizes: what is refused with which advice, and what is planned."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deepgen.errors import InputError
from deepgen.pipeline.sizes import check_size, parse_size, plan_reference, plan_size, plan_target

sides = st.integers(1, 8000)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((250, 256), "256x256"),
        ((0, 64), "32x64"),
        ((-5, 32), "32x32"),
        ((47, 48), "32x64"),
        ((9999, 2048), "4096x2048"),
    ],
)
def test_a_size_off_the_grid_is_refused_with_the_nearest(size, nearest):
    with pytest.raises(InputError, match=f"nearest is {nearest}$"):
        check_size(*size)


def test_a_size_of_another_type_or_too_long_is_refused():
    with pytest.raises(InputError, match="whole number"):
        check_size(256.0, 256)
    with pytest.raises(InputError, match="8:1"):
        check_size(2048, 32)


def test_the_models_own_sizes_are_kept():
    for size in [(256, 256), (192, 320), (320, 192), (224, 288)]:
        assert plan_size(*size, area=256 * 256) == size


def test_a_photograph_is_planned_to_the_area_with_its_aspect():
    assert plan_size(4000, 3000, area=512 * 512) == (608, 448)
    assert plan_size(1920, 1080, area=512 * 512) == (672, 384)
    assert plan_size(250, 250, area=256 * 256) == (256, 256)


@given(sides, sides, st.sampled_from([256, 512, 1024]))
def test_a_planned_size_is_valid_near_the_area_and_stable(width, height, side):
    assume(max(width, height) <= 8 * min(width, height))
    planned = plan_size(width, height, side * side)
    check_size(*planned)
    assert 0.7 < planned[0] * planned[1] / side**2 < 1.35
    assert plan_size(*planned, side * side) == planned


@given(sides, sides, st.sampled_from([256, 512, 1024]))
def test_a_planned_size_keeps_the_aspect_better_than_rounding_up_does(width, height, side):
    assume(max(width, height) <= 4 * min(width, height))
    planned = plan_size(width, height, side * side)
    kept = (width, height) == planned
    assert kept or abs(math.log(planned[0] / planned[1] * height / width)) < 24 / side


@given(sides, sides, st.sampled_from([64, 256, 512]), st.sampled_from(["aspect", "square", "area"]))
def test_an_edits_first_reference_is_read_at_the_size_that_is_drawn(width, height, side, resize):
    assume(max(width, height) <= 8 * min(width, height))
    target = plan_target((width, height), side * side, resize)
    check_size(*target)
    assert plan_reference((width, height), target, side * side, resize) == target


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 768), (608, 448)),
        ((1280, 720), (704, 384)),
        ((1920, 1080), (704, 384)),
        ((1536, 1024), (640, 448)),
        ((333, 333), (512, 512)),
    ],
)
def test_the_published_training_rounds_each_side_up(size, expected):
    assert plan_target(size, 512 * 512, "area") == expected
    # Each picture for itself, whatever is drawn.
    assert plan_reference(size, (512, 512), 512 * 512, "area") == expected


def test_square_squashes_and_none_leaves_as_it_is():
    assert plan_target((1000, 300), 512 * 512, "square") == (512, 512)
    assert plan_reference((1000, 300), (512, 512), 512 * 512, "square") == (512, 512)
    assert plan_target((96, 32), 512 * 512, "none") == (96, 32)
    assert plan_reference((64, 320), (96, 32), 512 * 512, "none") == (64, 320)
    for call in (
        lambda: plan_target((100, 64), 4096, "none"),
        lambda: plan_reference((100, 64), (64, 64), 1, "none"),
    ):
        with pytest.raises(InputError, match="100x64 cannot stay as it is"):
            call()


def test_a_reference_takes_the_pictures_size_unless_its_shape_differs():
    assert plan_reference((250, 260), target=(256, 256), area=256 * 256) == (256, 256)
    assert plan_reference((400, 100), target=(256, 256), area=256 * 256) == (512, 128)


def test_a_size_is_read_from_text():
    assert parse_size("320x192") == (320, 192) and parse_size(" 256 ") == (256, 256)
    for text in ("", "x", "-3", "1x", "٣٢", "9" * 400, "10 x 10"):
        with pytest.raises(InputError, match="320x192 or 256"):
            parse_size(text)
