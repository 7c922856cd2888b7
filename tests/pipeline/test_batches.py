"""One call with samples that differ in everything draws each as it would be alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from deepgen import DeepGenPipeline
from deepgen.errors import InputError


def noise_picture(width, height, seed=0):
    levels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(levels)


WIDE, TALL, SMALL = noise_picture(130, 61), noise_picture(33, 90, seed=1), noise_picture(20, 20, seed=2)
SAMPLES = [  # prompt, references, width, height
    ("a cat", [], None, None),
    ("make it red, and then describe at length what it has become", [WIDE], None, None),
    ("join them", [TALL, WIDE, SMALL], 96, 64),
    ("a wide picture", [], 128, 32),
    ("again", [SMALL, TALL, WIDE, SMALL, TALL, WIDE, SMALL, WIDE], None, 32),
    ("turn it", [TALL], 64, None),
]


def draw(pipe, rows, **settings):
    prompts, references, widths, heights = (list(column) for column in zip(*rows, strict=True))
    return pipe(prompts, references, width=widths, height=heights, output_type="pt", **settings).images


def differences(pipe, rows, **settings):
    """Of each sample of a batch from itself alone, the largest of any value."""
    seeds = [10 * i for i in range(len(rows))]
    batch = draw(pipe, rows, seed=seeds, **settings)
    alone = [draw(pipe, [row], seed=seed, **settings)[0] for row, seed in zip(rows, seeds, strict=True)]
    return [float((one - other).abs().max()) for one, other in zip(batch, alone, strict=True)]


@pytest.mark.parametrize("padding", ["none", "pair"])
@pytest.mark.parametrize("resize", ["aspect", "square", "area"])
def test_a_mixed_batch_equals_its_samples_alone(tiny_checkpoint, padding, resize):
    pipe = pipeline_with(tiny_checkpoint, padding)
    assert max(differences(pipe, SAMPLES, resize=resize)) < 1 / 255


def test_a_mixed_batch_in_bf16_is_within_40_db_of_its_samples_alone(tiny_checkpoint):
    pipe = pipeline_with(tiny_checkpoint, "none", torch.bfloat16)
    seeds = list(range(len(SAMPLES)))
    batch = draw(pipe, SAMPLES, seed=seeds)
    for row, together, seed in zip(SAMPLES, batch, seeds, strict=True):
        error = (together - draw(pipe, [row], seed=seed)[0]).square().mean()
        assert -10 * torch.log10(error) > 40, row[0]


def test_unguided_and_repeated_samples_of_a_batch_equal_themselves_alone(pipe):
    assert max(differences(pipe, SAMPLES[:3], guidance_scale=1.0)) < 1 / 255
    images = pipe([row[0] for row in SAMPLES[1:3]], [WIDE, TALL], seed=3, num_images_per_prompt=2).images
    again = pipe(SAMPLES[2][0], TALL, seed=6).images[0]
    assert np.abs(np.asarray(images[3], int) - np.asarray(again, int)).max() <= 1


def test_kept_sizes_differ_within_a_batch(pipe):
    rows = [("a", [WIDE]), ("b", []), ("c", [TALL, WIDE])]
    result = pipe([r[0] for r in rows], [r[1] for r in rows], keep_size=True, seed=1)
    assert [image.size for image in result.images] == [WIDE.size, (64, 64), TALL.size]
    assert [(r["width"], r["height"]) for r in result.metadata] == [(64, 32), (64, 64), (32, 96)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": [64, 64, 64]}, "3 widths for 2 prompts"),
        ({"height": [64, "b"]}, "whole number"),
        ({"width": [64, 10**400]}, "nearest is 4096x64"),
        ({"resize": "crop"}, "aspect, square, area, none"),
        ({"keep_size": True}, "there is none"),
        ({"image": [WIDE, None], "resize": "none"}, "130x61 cannot stay as it is"),
        ({"image": [WIDE, None], "keep_size": True, "output_type": "latent"}, "latent"),
        ({"prompt": ["a", "b " * 1100]}, "prompt 2 has 2200 tokens; shorten it to 1024"),
        ({"negative_prompt": ["a", "b " * 1100]}, "negative prompt 2 has 2200 tokens"),
    ],
)
def test_what_a_batch_cannot_be_is_refused_in_one_line(pipe, arguments, words):
    with pytest.raises(InputError, match=words) as caught:
        pipe(**{"prompt": ["a", "b"], **arguments})
    assert "\n" not in str(caught.value)


def test_a_prompt_of_1024_tokens_is_drawn_and_one_of_1025_is_not(pipe):
    assert len(pipe("b " * 512, num_inference_steps=1, seed=1).images) == 1
    with pytest.raises(InputError, match="the prompt has 1025 tokens; shorten it to 1024"):
        pipe("b " * 512 + "b")


def pipeline_with(checkpoint, padding, dtype=torch.float32) -> DeepGenPipeline:
    pipeline = DeepGenPipeline.from_pretrained(checkpoint, torch_dtype=dtype, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.defaults = replace(pipeline.defaults, padding=padding)
    return pipeline
