"""Sizes: what is refused with which advice, and what is planned."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepgen.errors import InputError
from deepgen.pipeline.sizes import check_size, plan_reference, plan_size

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
    assert plan_size(4000, 3000, area=512 * 512) == (576, 448)
    assert plan_size(250, 250, area=256 * 256) == (256, 256)


@settings(max_examples=200, deadline=None)
@given(sides, sides, st.sampled_from([256, 512, 1024]))
def test_a_planned_size_is_valid_near_the_area_and_stable(width, height, side):
    if max(width, height) > 8 * min(width, height):
        return
    planned = plan_size(width, height, side * side)
    check_size(*planned)
    assert 0.7 < planned[0] * planned[1] / side**2 < 1.35
    assert plan_size(*planned, side * side) == planned


def test_a_reference_takes_the_pictures_size_unless_its_shape_differs():
    assert plan_reference((250, 260), target=(256, 256)) == (256, 256)
    assert plan_reference((400, 100), target=(256, 256)) == (512, 128)
