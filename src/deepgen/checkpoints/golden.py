"""Golden cases: the published model's inputs and outputs, against which a checkpoint's numbers are held.

A folder of cases is a cases.json, a list of objects with `name` and `kind`, and NAME.safetensors for each:
`sample` (the whole way from prompts to pixels), `velocity` (the transformer alone) and `loss` (a training
step with gradients under native names). Tensors of samples that differ in size are numbered: NAME_0, NAME_1, ...
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepgen.checkpoints.safetensors_file import read_file
from deepgen.errors import CheckpointError
from deepgen.flow.sampler import Evaluation, SampleState, advance
from deepgen.flow.schedule import sigmas
from deepgen.model.deepgen import Conditioning, DeepGenModel

ABSOLUTE_TOLERANCE = 1e-4
RELATIVE_TOLERANCE = 1e-5
"""Of the largest value, where that is more: with the golden adapters states reach 36, and another order of the same
float32 sums (as rows of other lengths in the batch make it) moves them by up to 4e-4."""
GRADIENT_TOLERANCE = 1e-3
"""Of the largest value of the gradient."""

INPUTS = re.compile(
    r"init_latents(_\d+)?|(source|reference)_\d+_\d+|(target|target_pixels|noise)_\d+|timestep|u"
)
"""Names of tensors that a case gives; `context` and `pooled` too where the transformer runs alone."""

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
    """How far one tensor of a case is off; `largest` is NaN for one that the case expects and nothing computes."""

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
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error})") from None
    if not isinstance(entries, list) or not entries:
        raise CheckpointError(f"{path} must hold a list of cases")
    return [_read_case(path, entry) for entry in entries]


def _read_case(path: Path, entry: Any) -> GoldenCase:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise CheckpointError(f"{path} has a case without a name")
    name, kind = entry["name"], entry.get("kind")
    tensors = path.parent / f"{name}.safetensors"
    if kind not in RUNNERS:
        raise CheckpointError(
            f"case {name} in {path} is of unknown kind {kind!r}; known: {', '.join(RUNNERS)}"
        )
    absent = [key for key in SETTINGS[kind] if key not in entry]
    if absent:
        raise CheckpointError(f"case {name} in {path} lacks {', '.join(absent)}")
    if not tensors.exists():
        raise CheckpointError(f"{tensors} is missing, which {path} names")
    return GoldenCase(name, kind, entry, read_file(tensors))


def run_case(case: GoldenCase, model: DeepGenModel, shift: float, loss_fn: LossFn) -> list[Difference]:
    """Compute a case and compare every expected tensor.

    Args:
        case: from `read_cases`.
        model: in fp32, for the tolerances to make sense.
        shift: of the checkpoint's noise schedule.
        loss_fn: the training objective (passed in: this package knows nothing of training).

    Raises:
        CheckpointError: the case lacks an input.
    """
    try:
        results = RUNNERS[case.kind](case, model, shift, loss_fn)
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"case {case.name} lacks an input: {error}") from None
    given = ("context", "pooled") if case.kind == "velocity" else ()
    expected = [name for name in case.tensors if not INPUTS.fullmatch(name) and name not in given]
    if not expected:
        raise CheckpointError(f"case {case.name} expects nothing; its tensors are all inputs")
    return [
        Difference(case.name, name, *_compare(name, results.get(name), case.tensors[name]))
        for name in expected
    ]


def _compare(name: str, result: Tensor | None, expected: Tensor) -> tuple[float, float]:
    scale = expected.abs().max().item() if expected.numel() else 0.0
    is_gradient = name.startswith("grad.")
    tolerance = (
        GRADIENT_TOLERANCE * scale if is_gradient else max(ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE * scale)
    )
    if result is None:
        return float("nan"), tolerance
    if result.numel() == expected.numel() == 1:
        result = result.reshape(expected.shape)
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


def _numbered(name: str, values: Sequence[Tensor]) -> Tensors:
    """Values as NAME_0, NAME_1, ... and, where they have one shape, also as NAME."""
    found = {f"{name}_{i}": value for i, value in enumerate(values)}
    if len({value.shape for value in values}) == 1:
        found[name] = torch.stack(list(values))
    return found


def _stack_if_same(values: Sequence[Tensor]) -> Tensor | list[Tensor]:
    return torch.stack(list(values)) if len({value.shape for value in values}) == 1 else list(values)


@torch.no_grad()
def _run_sample(case: GoldenCase, model: DeepGenModel, shift: float, loss_fn: LossFn) -> Tensors:
    settings, prompts = case.settings, list(case.settings["prompts"])
    negatives = settings.get("negative_prompts")
    count = len(prompts)
    sources = _pictures(case, "source", count)
    # Without guidance too: the published code encodes both sides together, so the pads depend on them.
    fused = model.fuse(
        prompts, sources, settings.get("padding", "batch"), None if negatives is None else list(negatives)
    )
    context, pooled = model.bridge(fused.states, fused.lengths)
    conditioning = Conditioning(context, fused.lengths, pooled)
    references = _encode_all(model, sources)
    scale, steps = float(settings["guidance_scale"]), int(settings["num_inference_steps"])
    starts = _series(case.tensors, "init_latents") or list(case.tensors["init_latents"])
    states = [
        SampleState(latents, sigmas(steps, shift), i, None if negatives is None else i + count, scale)
        for i, latents in enumerate(starts)
    ]
    first: list[list[Tensor]] = []

    def velocity(rows: list[Evaluation[int]]) -> Sequence[Tensor]:
        chosen = [row.condition for row in rows]
        result = model.velocity(
            _stack_if_same([row.latents for row in rows]),
            torch.tensor([row.timestep for row in rows]),
            conditioning.rows(chosen),
            [references[i % count] for i in chosen],
        )
        first.append(list(result))
        return list(result)

    for _ in range(steps):
        advance(states, velocity)
    latents = [state.latents for state in states]
    pixels = [model.decode(z[None])[0] for z in latents]
    rows = {
        name: len(case.tensors[name])
        for name in ("stacked_hidden", "pooled", "sequence")
        if name in case.tensors
    }
    return {
        "stacked_hidden": fused.states[: rows.get("stacked_hidden")],
        "pooled": pooled[: rows.get("pooled")],
        "sequence": context[: rows.get("sequence")],
        **_numbered("first_velocity", first[0]),
        **_numbered("final_latents", latents),
        **_numbered("pixels", pixels),
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
    model.zero_grad()
    return {"loss": loss.detach().reshape(1), **gradients}


def native_parameters(model: DeepGenModel) -> dict[str, torch.nn.Parameter]:
    """The trained parameters under the names of the published native checkpoints."""
    named = dict(model.bridge.named_parameters())
    named.update({f"transformer.{name}": value for name, value in model.dit.named_parameters()})
    return named


SETTINGS = {
    "sample": ("prompts", "num_inference_steps", "guidance_scale"),
    "velocity": (),
    "loss": ("prompts",),
}
"""What a case of each kind must say."""

RUNNERS: dict[str, Callable[[GoldenCase, DeepGenModel, float, LossFn], Tensors]] = {
    "sample": _run_sample,
    "velocity": _run_velocity,
    "loss": _run_loss,
}
