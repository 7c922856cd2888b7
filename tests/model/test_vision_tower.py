import pytest
import torch
import torch.nn.functional as F

from deepgen.model.vision import CLIP_MEAN, CLIP_STD, patch_grid, resize_for_vision, vision_embeds

PATCH, MERGE = 14, 2


def processor_rows(picture):
    """[patches, 3·2·14·14] in the order of Qwen's processor, of a normalised picture [3, H, W], by loops."""
    _, height, width = picture.shape
    side, rows = PATCH * MERGE, []
    for top in range(0, height, side):
        for left in range(0, width, side):
            for y in range(top, top + side, PATCH):
                for x in range(left, left + side, PATCH):
                    tile = picture[:, y : y + PATCH, x : x + PATCH]
                    rows.append(torch.stack([tile, tile], dim=1).flatten())
    return torch.stack(rows)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (256, 320), (192, 96)])
def test_it_equals_transformers_tower_picture_by_picture(tiny, height, width):
    visual = tiny.vlm.model.visual
    pixels = torch.rand(2, 3, height, width) * 2 - 1
    ours = vision_embeds(visual, pixels)
    for picture, embeds in zip(resize_for_vision(pixels), ours, strict=True):
        grid = torch.tensor([[1, picture.shape[1] // PATCH, picture.shape[2] // PATCH]])
        theirs = visual(processor_rows(picture), grid_thw=grid).pooler_output
        assert torch.allclose(embeds, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (288, 544), (512, 512)])
def test_one_picture_equals_transformers_tower_to_the_last_bit(tiny, height, width):
    visual = tiny.vlm.model.visual
    pixels = torch.rand(1, 3, height, width) * 2 - 1
    (small,) = resize_for_vision(pixels)
    grid = torch.tensor([[1, small.shape[1] // PATCH, small.shape[2] // PATCH]])
    assert torch.equal(
        vision_embeds(visual, pixels)[0], visual(processor_rows(small), grid_thw=grid).pooler_output
    )


def test_resizing_is_bilinear_without_antialiasing_and_then_normalised():
    torch.manual_seed(0)
    pixels = torch.rand(1, 3, 64, 96, dtype=torch.float64) * 2 - 1
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    position = (torch.arange(56, dtype=torch.float64) + 0.5) / 0.875 - 0.5
    low, part = position.floor().long(), position - position.floor()
    rows = pixels[0, :, low] * (1 - part)[:, None] + pixels[0, :, (low + 1).clamp(max=63)] * part[:, None]
    column = F.interpolate(rows, size=84, mode="linear", align_corners=False)
    assert torch.allclose(resize_for_vision(pixels)[0], (((column + 1) / 2) - mean) / std, atol=1e-6)


def test_the_picture_wrapper_gives_a_grid_and_refuses_odd_sizes(tiny):
    from deepgen.errors import InputError

    assert tiny.vlm.image_embeds(torch.zeros(2, 3, 64, 96)).shape == (2, 2, 3, 32)
    with pytest.raises(InputError, match="not multiples of 32"):
        tiny.vlm.image_embeds(torch.zeros(1, 3, 64, 90))


def test_a_picture_seen_while_drawing_can_be_trained_on_afterwards(tiny):
    patch_grid.cache_clear()
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        vision_embeds(tiny.vlm.model.visual, pixels)
    pixels.requires_grad_()
    vision_embeds(tiny.vlm.model.visual, pixels).sum().backward()
    assert pixels.grad is not None
