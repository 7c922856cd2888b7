"""Golden cases of our own making, computed by `naive`, held from every layout: batches, several references of several
sizes, no guidance, adapters, losses of edits."""

import json
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from deepgen.cli import build_app

from .conftest import DIFFUSERS, GOLDEN
from .naive import Naive

LONG = "blurry, low quality, low resolution, distorted, deformed, broken content"
GRADIENTS = (
    "meta_queries",
    "projector_1.weight",
    "connector.layers.1.mlp.fc2.bias",
    "transformer.proj_out.weight",
)


@dataclass
class Call:
    """A published call: prompts with their negatives and the sizes (height, width) of their references."""

    prompts: list[str]
    negatives: list[str]
    sizes: list[list[tuple[int, int]]]
    height: int = 64
    width: int = 64
    steps: int = 2
    scale: float = 4.0


CALLS = {
    "t2i_batch": Call(["a red cube on a blue table", "a dog", "x"], ["", "ugly", ""], [[], [], []], 32, 96),
    "t2i_free": Call(["a dog", "熊 🐻"], ["", LONG], [[], []], scale=1.0),
    "edit_batch": Call(
        ["make it blue", "put the thing of picture 1 into picture 2, please"],
        [LONG, ""],
        [[(96, 64)], [(64, 64), (32, 96), (64, 64)]],
    ),
    "edit_free": Call(["make it blue"], [LONG], [[(256, 288)]], scale=1.0),
}


def picture(height, width, generator):
    """An exact uint8 picture [3, H, W] in [-1, 1]."""
    return torch.randint(0, 256, (3, height, width), generator=generator) / 127.5 - 1


def sample_case(naive, name, call):
    """(entry of cases.json, tensors) of a call."""
    generator = torch.Generator().manual_seed(len(name))
    noise = torch.randn(len(call.prompts), 16, call.height // 8, call.width // 8, generator=generator)
    references = [[picture(*size, generator) for size in row] for row in call.sizes]
    found = naive.sample(call.prompts, call.negatives, references, noise, call.steps, call.scale)
    entry = {
        **{"name": name, "kind": "sample", "prompts": call.prompts, "negative_prompts": call.negatives},
        **{"height": call.height, "width": call.width, "num_inference_steps": call.steps},
        **{"guidance_scale": call.scale, "padding": "batch"},
    }
    given = {f"source_{i}_{j}": p for i, row in enumerate(references) for j, p in enumerate(row)}
    return entry, {"init_latents": noise, **given, **{n: v.float() for n, v in found.items()}}


def loss_case(naive):
    """An edit step: two targets of two sizes, with two references and one."""
    generator = torch.Generator().manual_seed(0)
    prompts, uniform = ["make it red and round", "add a tree"], torch.tensor([0.77, 0.031])
    targets = [picture(64, 64, generator), picture(32, 96, generator)]
    references = [[picture(64, 32, generator), picture(64, 64, generator)], [picture(32, 96, generator)]]
    noise = [torch.randn(16, p.shape[1] // 8, p.shape[2] // 8, generator=generator) for p in targets]
    loss, gradients = naive.loss(prompts, references, targets, noise, uniform, GRADIENTS)
    given = {f"source_{i}_{j}": p for i, row in enumerate(references) for j, p in enumerate(row)}
    given |= {f"target_pixels_{i}": p for i, p in enumerate(targets)}
    given |= {f"noise_{i}": p for i, p in enumerate(noise)}
    expected = {"loss": loss.reshape(1), **{f"grad.{n}": v for n, v in gradients.items()}}
    entry = {"name": "loss_edit", "kind": "loss", "prompts": prompts}
    return entry, {"u": uniform, **given, **{n: v.float() for n, v in expected.items()}}


def velocity_case(naive):
    """The transformer alone on three targets, with two references, none and one."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    targets = [drawn(16, 8, 8), drawn(16, 4, 24), drawn(16, 12, 4)]
    references = [[drawn(16, 4, 4), drawn(16, 8, 2)], [], [drawn(16, 12, 4)]]
    times, context, pooled = torch.tensor([1000.0, 3.5, 420.0]), drawn(3, 7, 40), drawn(3, 24)
    given = {f"target_{i}": z for i, z in enumerate(targets)}
    given |= {f"reference_{i}_{j}": z for i, row in enumerate(references) for j, z in enumerate(row)}
    expected = {}
    for i, (target, row) in enumerate(zip(targets, references, strict=True)):
        clean = [z.double() for z in row]
        found = naive.velocity(target.double(), times[i], clean, context[i].double(), pooled[i].double())
        expected[f"velocity_{i}"] = found.float()
    entry = {"name": "dit_some", "kind": "velocity"}
    return entry, {"timestep": times, "context": context, "pooled": pooled, **given, **expected}


def written(folder, cases):
    (folder / "cases.json").write_text(json.dumps([entry for entry, _ in cases]))
    for entry, tensors in cases:
        save_file({n: v.contiguous() for n, v in tensors.items()}, folder / f"{entry['name']}.safetensors")
    return folder


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    naive = Naive(DIFFUSERS)
    made = [sample_case(naive, name, call) for name, call in CALLS.items()]
    return written(tmp_path_factory.mktemp("cases"), [*made, loss_case(naive), velocity_case(naive)])


@pytest.fixture(scope="module")
def cases_lora(tmp_path_factory):
    naive = Naive(DIFFUSERS, load_file(GOLDEN / "lora.safetensors"))
    names = ("t2i_batch", "edit_batch", "edit_free")
    made = [sample_case(naive, name, CALLS[name]) for name in names]
    return written(tmp_path_factory.mktemp("cases_lora"), made)


def verify(cases, model, **options):
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    arguments = ["verify", str(cases), "--model", str(model), *words]
    result = CliRunner().invoke(build_app(arguments), arguments)
    count = sum(len(expected_of(path)) for path in cases.glob("*.safetensors"))
    assert result.exit_code == 0 and f"{count} of {count} tensors" in result.output, result.output


def expected_of(path):
    """Names of the tensors that a case expects."""
    given = ("init_latents", "source_", "target_", "noise_", "reference_", "timestep")
    if path.stem.startswith("dit_"):
        given = (*given, "context", "pooled")
    return [name for name in load_file(path) if not name.startswith(given) and name != "u"]


def test_the_reference_gives_the_golden_states_to_the_last_bit():
    golden = load_file(GOLDEN / "cases" / "t2i_single.safetensors")["stacked_hidden"]
    naive = Naive(DIFFUSERS)
    with torch.no_grad():
        states = naive.fused(["a red cube on a blue table", ""], [[], []], naive.bridge["meta_queries"])
    # Other processors sum in another order.
    assert (states - golden).abs().max() < 1e-5


def test_published_calls_hold_from_the_diffusers_and_the_native_layout(layouts, cases):
    verify(cases, layouts.diffusers)
    verify(cases, layouts.file("model.pt", layouts.native), **layouts.bases)


def test_calls_with_adapters_hold_from_every_layout_that_has_them(layouts, cases_lora):
    trained, buffer = layouts.trained_and_buffer()
    verify(cases_lora, layouts.file("model.pt", {**layouts.native, **layouts.lora}), **layouts.bases)
    verify(cases_lora, layouts.deepspeed("iter_4.pth", {**trained, **layouts.lora}, buffer), **layouts.bases)
    trainer = layouts.file("checkpoint-7/model.safetensors", layouts.native).parent
    adapters = layouts.file("sft.safetensors", layouts.lora)
    verify(cases_lora, trainer, lora=adapters, **layouts.bases)
    verify(cases_lora, layouts.diffusers, lora=layouts.peft("peft", layouts.lora))


def test_calls_with_adapters_do_not_hold_without_them(layouts, cases_lora):
    with pytest.raises(AssertionError, match="TOO FAR"):
        verify(cases_lora, layouts.diffusers)
