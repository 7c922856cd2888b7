"""Golden cases: the published model's inputs and outputs, against which a checkpoint's numbers are held.

A folder of cases is a cases.json, a list of objects with `name` and `kind`, and NAME.safetensors for each:
`sample` (the whole way from prompts to pixels), `velocity` (the transformer alone) and `loss` (a training
step with gradients under native names).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepgen.checkpoints.tensors import read_file
from deepgen.errors import CheckpointError
from deepgen.flow.sampler import Evaluation, SampleState, advance
from deepgen.flow.schedule import sigmas
from deepgen.model.deepgen import Conditioning, DeepGenModel

ABSOLUTE_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
"""Of the largest value of the gradient."""

Tensors = dict[str, Tensor]
LossFn = Callable[[DeepGenModel, Conditioning, "LossInputs"], Tensor]


@dataclass(frozen=True)
class LossInputs:
    """What a training step needs beside the conditioning.

    Attributes:
        clean, noise: latents [C, h, w] of each sample.
        references: for each sample its clean reference latents.
        uniform: draws in [0, 1) behind the timesteps, [B].
        shift: of the noise schedule.
    """

    clean: list[Tensor]
    noise: list[Tensor]
    references: list[list[Tensor]]
    uniform: Tensor
    shift: float


@dataclass(frozen=True)
class GoldenCase:
    """One case: its settings and tensors, inputs and expectations alike."""

    name: str
    kind: str
    settings: dict[str, Any]
    tensors: Tensors


@dataclass(frozen=True)
class Difference:
    """How far one tensor of a case is off."""

    case: str
    tensor: str
    largest: float
    tolerance: float

    @property
    def holds(self) -> bool:
        # Written so that a NaN does not pass.
        return self.largest <= self.tolerance


def read_cases(folder: Path) -> list[GoldenCase]:
    """The cases of a folder.

    Raises:
        CheckpointError: cases.json or a case's tensors are missing, or a kind is unknown.
    """
    path = folder / "cases.json"
    if not path.exists():
        raise CheckpointError(f"{path} is missing; give a folder of golden cases")
    cases = []
    for entry in json.loads(path.read_text(encoding="utf-8")):
        name, kind = entry["name"], entry["kind"]
        tensors = folder / f"{name}.safetensors"
        if kind not in RUNNERS:
            raise CheckpointError(
                f"case {name} in {path} is of unknown kind {kind!r}; known: {', '.join(RUNNERS)}"
            )
        if not tensors.exists():
            raise CheckpointError(f"{tensors} is missing, which {path} names")
        cases.append(GoldenCase(name, kind, entry, read_file(tensors)))
    return cases


def run_case(case: GoldenCase, model: DeepGenModel, shift: float, loss_fn: LossFn) -> list[Difference]:
    """Compute a case and compare every expected tensor.

    Args:
        case: from `read_cases`.
        model: in fp32, for the tolerances to make sense.
        shift: of the checkpoint's noise schedule.
        loss_fn: the training objective (passed in: this package knows nothing of training).
    """
    results = RUNNERS[case.kind](case, model, shift, loss_fn)
    return [
        Difference(case.name, name, *_compare(name, result, case.tensors[name]))
        for name, result in results.items()
        if name in case.tensors
    ]


def _compare(name: str, result: Tensor, expected: Tensor) -> tuple[float, float]:
    scale = expected.abs().max().item() if name.startswith("grad.") else None
    tolerance = ABSOLUTE_TOLERANCE if scale is None else GRADIENT_TOLERANCE * scale
    if result.shape != expected.shape:
        return float("inf"), tolerance
    return (result.detach().cpu().float() - expected.float()).abs().max().item(), tolerance


def _series(tensors: Tensors, prefix: str) -> list[Tensor]:
    """PREFIX_0, PREFIX_1, … as far as they go."""
    found: list[Tensor] = []
    while f"{prefix}_{len(found)}" in tensors:
        found.append(tensors[f"{prefix}_{len(found)}"])
    return found


def _pictures(case: GoldenCase, prefix: str, samples: int) -> list[list[Tensor]]:
    return [_series(case.tensors, f"{prefix}_{i}") for i in range(samples)]


def _encode_all(model: DeepGenModel, pictures: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    return [[model.encode(picture[None])[0] for picture in row] for row in pictures]


@torch.no_grad()
def _run_sample(case: GoldenCase, model: DeepGenModel, shift: float, loss_fn: LossFn) -> Tensors:
    settings, prompts = case.settings, list(case.settings["prompts"])
    count = len(prompts)
    sources = _pictures(case, "source", count)
    fused = model.fuse(prompts, sources, settings["padding"], list(settings["negative_prompts"]))
    context, pooled = model.bridge(fused.states, fused.lengths)
    conditioning = Conditioning(context, fused.lengths, pooled)
    references = _encode_all(model, sources)
    scale = float(settings["guidance_scale"])
    states = [
        SampleState(latents, sigmas(settings["num_inference_steps"], shift), i, i + count, scale)
        for i, latents in enumerate(case.tensors["init_latents"])
    ]
    first: list[Tensor] = []

    def velocity(rows: list[Evaluation[int]]) -> Sequence[Tensor]:
        chosen = [row.condition for row in rows]
        result = model.velocity(
            torch.stack([row.latents for row in rows]),
            torch.tensor([row.timestep for row in rows]),
            conditioning.rows(chosen),
            [references[i % count] for i in chosen],
        )
        first.append(torch.stack(list(result)))
        return list(result)

    for _ in range(settings["num_inference_steps"]):
        advance(states, velocity)
    latents = torch.stack([state.latents for state in states])
    rows = {
        name: len(case.tensors[name])
        for name in ("stacked_hidden", "pooled", "sequence")
        if name in case.tensors
    }
    return {
        "stacked_hidden": fused.states[: rows.get("stacked_hidden")],
        "pooled": pooled[: rows.get("pooled")],
        "sequence": context[: rows.get("sequence")],
        "first_velocity": first[0],
        "final_latents": latents,
        "pixels": model.decode(latents),
    }


@torch.no_grad()
def _run_velocity(case: GoldenCase, model: DeepGenModel, shift: float, loss_fn: LossFn) -> Tensors:
    tensors = case.tensors
    targets = _series(tensors, "target")
    context = tensors["context"]
    conditioning = Conditioning(context, torch.full((len(context),), context.shape[1]), tensors["pooled"])
    references = _pictures(case, "reference", len(targets))
    velocities = model.velocity(targets, tensors["timestep"], conditioning, references)
    return {f"velocity_{i}": velocity for i, velocity in enumerate(velocities)}


def _run_loss(case: GoldenCase, model: DeepGenModel, shift: float, loss_fn: LossFn) -> Tensors:
    tensors, prompts = case.tensors, list(case.settings["prompts"])
    sources = _pictures(case, "source", len(prompts))
    with torch.no_grad():
        clean = [model.encode(pixels[None])[0] for pixels in _series(tensors, "target_pixels")]
        references = _encode_all(model, sources)
    model.zero_grad()
    conditioning = model.condition(prompts, sources, padding="batch")
    inputs = LossInputs(clean, _series(tensors, "noise"), references, tensors["u"], shift)
    loss = loss_fn(model, conditioning, inputs)
    loss.backward()
    gradients = {
        f"grad.{name}": parameter.grad
        for name, parameter in native_parameters(model).items()
        if parameter.grad is not None
    }
    results = {"loss": loss.detach().reshape(1), **gradients}
    wanted = {name for name in tensors if name.startswith("grad.")}
    absent = sorted(wanted - set(results))
    if absent:
        raise CheckpointError(f"case {case.name} expects {absent[0]}, but this model has no such gradient")
    model.zero_grad()
    return results


def native_parameters(model: DeepGenModel) -> dict[str, torch.nn.Parameter]:
    """The trained parameters under the names of the published native checkpoints."""
    named = dict(model.bridge.named_parameters())
    named.update({f"transformer.{name}": value for name, value in model.dit.named_parameters()})
    return named


RUNNERS: dict[str, Callable[[GoldenCase, DeepGenModel, float, LossFn], Tensors]] = {
    "sample": _run_sample,
    "velocity": _run_velocity,
    "loss": _run_loss,
}
