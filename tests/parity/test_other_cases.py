"""Cases of the golden format beyond the shipped ones: batches, several references, mixed sizes, no guidance.

What a sample of a batch must be is known where its pads are the same as alone: its golden numbers, or what the model
computes for it alone.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from deepgen.checkpoints import load_model, open_checkpoint
from deepgen.checkpoints.golden import GoldenCase, _run_sample, read_cases
from deepgen.cli import build_app

GOLDEN = Path(__file__).parent / "golden"
MODEL = GOLDEN / "diffusers"


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL)[0]


def golden(name, folder="cases"):
    (case,) = (case for case in read_cases(GOLDEN / folder) if case.name == name)
    return case


def verify(folder, case, model=MODEL):
    """Write the case and run the command on it."""
    (folder / "cases.json").write_text(json.dumps([{**case.settings, "name": case.name, "kind": case.kind}]))
    save_file({n: t.contiguous() for n, t in case.tensors.items()}, folder / f"{case.name}.safetensors")
    arguments = ["verify", str(folder), "--model", str(model)]
    return CliRunner().invoke(build_app(arguments), arguments)


def drawn(model, prompts, noise, sources=(), **settings):
    """What the model computes for a case, by name."""
    tensors = {f"init_latents_{i}": x for i, x in enumerate(noise)}
    tensors |= {f"source_{i}_{j}": x for i, row in enumerate(sources) for j, x in enumerate(row)}
    values = {**golden("t2i_single").settings, "prompts": prompts, "negative_prompts": [""] * len(prompts)}
    values |= settings
    return tensors, values, _run_sample(GoldenCase("x", "sample", values, tensors), model, 3.0, None)


def picture(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator) / 127.5 - 1


def test_a_batch_holds_the_golden_numbers_of_the_sample_in_it(tmp_path, model):
    case = golden("t2i_single")
    prompts, tensors = [*case.settings["prompts"], "a cat"], case.tensors
    noise = torch.cat([tensors["init_latents"], torch.randn(1, 16, 8, 8)])
    _, settings, found = drawn(model, prompts, noise)
    expected = {"init_latents": noise}
    for name in ("pooled", "sequence", "stacked_hidden"):
        value = found[name].clone()
        value[[0, 2]] = tensors[name]
        expected[name] = value
    for name in ("final_latents", "pixels"):
        value = found[name].clone()
        value[0] = tensors[name][0]
        expected[name] = value
    velocity = found["first_velocity"].clone()
    velocity[[0, 2]] = tensors["first_velocity"]
    result = verify(
        tmp_path, GoldenCase("batch", "sample", settings, {**expected, "first_velocity": velocity})
    )
    assert result.exit_code == 0 and "6 of 6" in result.output, result.output


def test_samples_of_different_sizes_and_references_are_what_they_are_alone(tmp_path, model):
    prompts = ["make it blue", "make it pink"]
    noise = [torch.randn(16, 8, 8), torch.randn(16, 4, 12)]
    sources = [[picture(64, 64, 0), picture(32, 96, 1)], [picture(96, 64, 2)]]
    options = {"padding": "none", "guidance_scale": 3.0}
    tensors, settings, _ = drawn(model, prompts, noise, sources, **options)
    for i in range(2):
        _, _, alone = drawn(model, prompts[i : i + 1], noise[i : i + 1], sources[i : i + 1], **options)
        tensors |= {f"{name}_{i}": alone[f"{name}_0"] for name in ("final_latents", "pixels")}
    result = verify(tmp_path, GoldenCase("mixed", "sample", settings, tensors))
    assert result.exit_code == 0 and "4 of 4" in result.output, result.output


@pytest.mark.parametrize("negatives", [{"negative_prompts": ["a long negative prompt, ugly"]}, {}])
def test_without_guidance_the_negative_prompt_only_pads(tmp_path, model, negatives):
    settings = {**golden("t2i_single").settings, "guidance_scale": 1.0, "prompts": ["a cat"]}
    settings = {k: v for k, v in settings.items() if k not in ("negative_prompts", "padding")} | negatives
    noise = torch.randn(1, 16, 8, 8)
    found = _run_sample(GoldenCase("x", "sample", settings, {"init_latents": noise}), model, 3.0, None)
    assert len(found["first_velocity"]) == 1 and len(found["pooled"]) == 1 + len(negatives)
    kept = {"init_latents": noise, "pixels": found["pixels"], "sequence": found["sequence"]}
    result = verify(tmp_path, GoldenCase("free", "sample", settings, kept))
    assert result.exit_code == 0 and "2 of 2" in result.output, result.output


def test_an_edits_loss_runs_over_samples_of_different_sizes(tmp_path, model):
    from deepgen.train.objective import noisy_batch, training_loss, uniform_sigmas

    targets, sources = [picture(64, 64, 3), picture(32, 64, 4)], [[picture(64, 32, 5)], []]
    noise, uniform = [torch.randn(16, 8, 8), torch.randn(16, 4, 8)], torch.tensor([0.2, 0.7])
    latents = [model.encode(x[None])[0] for x in targets]
    references = [[model.encode(x[None])[0] for x in row] for row in sources]
    conditioning = model.condition(["make it red", "a dog"], sources, "batch")
    batch = noisy_batch(latents, noise, uniform_sigmas(uniform, 3.0))
    loss = training_loss(model, conditioning, batch, references).mean().detach()
    tensors = {"u": uniform, "source_0_0": sources[0][0], "loss": loss}
    tensors |= {f"target_pixels_{i}": x for i, x in enumerate(targets)}
    tensors |= {f"noise_{i}": x for i, x in enumerate(noise)}
    case = GoldenCase("edit_loss", "loss", {"prompts": ["make it red", "a dog"]}, tensors)
    result = verify(tmp_path, case)
    assert result.exit_code == 0 and "1 of 1" in result.output, result.output


def test_what_a_case_expects_and_nothing_computes_does_not_hold(tmp_path):
    case = golden("dit_ragged")
    more = {**case.tensors, "velocity_7": case.tensors["velocity_0"].clone()}
    result = verify(tmp_path, GoldenCase("x", "velocity", {}, more))
    assert result.exit_code == 1 and "velocity_7" in result.output


def test_a_case_of_inputs_only_is_refused(tmp_path):
    case = golden("dit_ragged")
    given = {n: t for n, t in case.tensors.items() if not n.startswith("velocity")}
    result = verify(tmp_path, GoldenCase("x", "velocity", {}, given))
    assert result.exit_code != 0 and "expects nothing" in str(result.exception)


def test_merged_adapters_draw_what_adapters_beside_their_layers_draw():
    checkpoint = open_checkpoint(MODEL, lora=GOLDEN / "lora.safetensors")
    beside, merged = (checkpoint.load(merge=merge)[0] for merge in (False, True))
    sources, noise = [[picture(64, 64, 6)]], torch.randn(1, 16, 8, 8)
    (_, _, one), (_, _, two) = (drawn(m, ["make it blue"], noise, sources) for m in (beside, merged))
    assert (one["stacked_hidden"] - two["stacked_hidden"]).abs().max() < 1e-3
    assert (one["pixels"] - two["pixels"]).abs().max() < 1e-4
    case = golden("t2i_lora", "cases_lora")
    _, _, found = drawn(merged, case.settings["prompts"], case.tensors["init_latents"])
    assert (found["pixels"] - case.tensors["pixels"]).abs().max() < 1e-4
