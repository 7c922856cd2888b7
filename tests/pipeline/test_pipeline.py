"""What a call draws, with the tiny random model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from deepgen import DeepGenPipeline
from deepgen.errors import InputError
from deepgen.flow.noise import keyed_noise
from deepgen.flow.schedule import sigmas

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
SOURCE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("name", ["t2i_single", "edit_single"])
def test_a_call_draws_what_the_published_pipeline_draws(name):
    pipe = DeepGenPipeline.from_pretrained(GOLDEN / "diffusers", device="cpu")
    cases = json.loads((GOLDEN / "cases" / "cases.json").read_text())
    case = next(c for c in cases if c["name"] == name)
    tensors = load_file(GOLDEN / "cases" / f"{name}.safetensors")
    source = None
    if "source_0_0" in tensors:
        levels = (tensors["source_0_0"].permute(1, 2, 0) + 1) * 127.5
        source = Image.fromarray(levels.round().byte().numpy())
    keys = ("height", "width", "num_inference_steps", "guidance_scale")
    given = {key: case[key] for key in keys}
    result = pipe(case["prompts"][0], source, latents=tensors["init_latents"], output_type="pt", **given)
    # No negative prompt is passed: the defaults must be the published ones.
    expected = (tensors["pixels"] / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(result.images, expected, atol=1e-4, rtol=0)


def test_a_picture_of_a_batch_can_be_redrawn_alone(pipe):
    batch = pipe(["a cat", "a longer prompt about a dog"], num_images_per_prompt=2, seed=5, output_type="np")
    assert [record["seed"] for record in batch.metadata] == [5, 6, 7, 8]
    alone = pipe("a longer prompt about a dog", seed=7, output_type="np")
    assert np.abs(batch.images[2] - alone.images[0]).max() < 1 / 255
    assert np.abs(batch.images[2] - batch.images[3]).max() > 1 / 255


def test_a_list_of_seeds_gives_each_picture_its_own(pipe):
    listed = pipe("a cat", num_images_per_prompt=3, seed=[9, 4, 9], output_type="np").images
    single = pipe("a cat", seed=4, output_type="np").images[0]
    assert np.abs(listed[1] - single).max() < 1 / 255
    assert np.abs(listed[0] - listed[2]).max() < 1 / 255
    with pytest.raises(InputError, match="2 seeds for 3 pictures"):
        pipe("a cat", num_images_per_prompt=3, seed=[1, 2])


def test_the_seed_not_given_is_drawn_and_recorded(pipe):
    first, second = (pipe("a cat", output_type="np") for _ in range(2))
    assert first.metadata[0]["seed"] != second.metadata[0]["seed"]
    again = pipe("a cat", seed=first.metadata[0]["seed"], output_type="np")
    assert np.array_equal(first.images, again.images)


def test_the_noise_is_keyed_and_a_generator_draws_in_one_call(pipe):
    keyed = pipe("a cat", seed=3, output_type="latent").images
    given = pipe("a cat", latents=keyed_noise((1, 16, 8, 8), 0, "x"), output_type="latent").images
    same = pipe("a cat", latents=keyed_noise((16, 8, 8), 3, "init")[None], output_type="latent").images
    assert torch.equal(keyed, same) and not torch.equal(keyed, given)
    drawn = pipe(["a", "b"], generator=torch.Generator().manual_seed(1), output_type="latent")
    block = torch.randn((2, 16, 8, 8), generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn.images, pipe(["a", "b"], latents=block, output_type="latent").images)
    assert drawn.metadata[0]["seed"] is None


def test_output_types_hold_the_same_picture(pipe):
    outputs = {kind: pipe("a cat", seed=1, output_type=kind).images for kind in ("pil", "np", "pt", "latent")}
    array = outputs["np"]
    assert array.dtype == np.float32 and array.shape == (1, 64, 64, 3)
    assert array.min() >= 0 and array.max() <= 1
    assert np.array_equal(np.asarray(outputs["pil"][0]), (array[0] * 255).round())
    assert np.array_equal(outputs["pt"][0].permute(1, 2, 0).numpy(), array[0])
    assert outputs["latent"].shape == (1, 16, 8, 8)
    outputs["latent"].requires_grad_()  # an ordinary tensor, not one of inference mode


def test_prompts_of_different_sizes_share_a_call(pipe):
    wide = SOURCE.resize((300, 100))
    both = pipe(["make it red", "a cat"], image=[wide, None], seed=2, output_type="np")
    assert [image.shape for image in both.images] == [(32, 96, 3), (64, 64, 3)]
    alone = pipe("make it red", image=wide, seed=2, output_type="np")
    assert np.abs(both.images[0] - alone.images[0]).max() < 1 / 255


def test_an_edit_sees_its_picture_and_every_reference(pipe):
    def draw(image):
        return pipe("make it red", image=image, seed=2, output_type="np", width=64, height=64).images

    one, two = draw(SOURCE), draw([SOURCE, SOURCE.rotate(90)])
    other = draw(SOURCE.rotate(90))
    assert np.abs(one - other).max() > 1e-4 and np.abs(one - two).max() > 1e-4


def test_negative_prompts_come_from_the_checkpoint_unless_given(pipe):
    records = pipe(["a", "b"], image=[SOURCE, None], seed=1).metadata
    assert [r["negative_prompt"] for r in records] == ["spoilt", ""]
    given = pipe("a", negative_prompt="blurry", seed=1).metadata[0]
    assert given["negative_prompt"] == "blurry"
    assert pipe("a", guidance_scale=1.0, seed=1).metadata[0]["negative_prompt"] is None


def test_guidance_of_one_ignores_the_negative_prompt(pipe):
    def draw(negative, scale):
        return pipe("a", negative_prompt=negative, guidance_scale=scale, seed=1, output_type="np").images

    assert np.array_equal(draw("x", 1.0), draw("a longer one", 1.0))
    assert not np.array_equal(draw("x", 3.0), draw("a longer one", 3.0))


def test_a_callback_sees_every_step_and_may_change_the_latents(pipe):
    seen = []

    def callback(pipeline, step, timestep, values):
        seen.append((step, float(timestep), values["latents"].shape))
        return {"latents": torch.zeros_like(values["latents"])}

    result = pipe("a cat", num_inference_steps=3, callback_on_step_end=callback, output_type="latent")
    assert [s for s, _, _ in seen] == [0, 1, 2]
    assert seen[0][1] == 1000 and seen[0][2] == (1, 16, 8, 8)
    assert result.images.abs().max() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": "  "}, "empty"),
        ({"prompt": []}, "no prompt"),
        ({"prompt": 3}, "text"),
        ({"prompt": "\udcff"}, "UTF-8"),
        ({"prompt": "x " * 2000}, "tokens; shorten it to 1024"),
        ({"width": 250}, "nearest is 256x64"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"guidance_scale": 1e300}, "from 0 to 100"),
        ({"num_images_per_prompt": 0}, "1 to 256 pictures"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 1, "generator": torch.Generator()}, "only one of"),
        ({"latents": torch.zeros(1, 16, 4, 8)}, "latents of shapes"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1 prompts"),
        ({"latents": [3]}, "latents must be"),
        ({"generator": [3]}, "generator must be"),
        ({"image": 3}, "image"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_in_one_line(pipe, arguments, words):
    with pytest.raises(InputError, match=words) as caught:
        pipe(**{"prompt": "a cat", **arguments})
    assert "\n" not in str(caught.value)


def test_a_saved_pipeline_draws_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "again")
    again = DeepGenPipeline.from_pretrained(tmp_path / "again", device="cpu")
    first, second = (p("a cat", seed=1, output_type="np").images for p in (pipe, again))
    assert np.array_equal(first, second)


def test_it_is_a_diffusers_pipeline_of_four_components(pipe):
    assert set(pipe.components) == {"vlm", "connector", "transformer", "vae"}
    pipe.scheduler.set_timesteps(7)
    assert torch.equal(pipe.scheduler.sigmas, sigmas(7, pipe.defaults.shift))
    with pytest.raises(AttributeError):
        pipe.scheduler = None
    images, records = pipe("a cat", seed=1, return_dict=False)
    assert len(images) == len(records) == 1
    assert pipe.to("cpu") is pipe
