"""The pipeline: prompts and reference pictures in, pictures out."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image

from deepgen import __version__
from deepgen.checkpoints import GenerationDefaults, load_model, save_model
from deepgen.errors import InputError
from deepgen.flow.noise import keyed_noise
from deepgen.flow.sampler import Evaluation, SampleState, advance
from deepgen.flow.schedule import sigmas, timestep_of
from deepgen.model.bridge import Bridge
from deepgen.model.deepgen import Conditioning, DeepGenModel
from deepgen.model.dit import DiT
from deepgen.model.vlm import FusedVLM
from deepgen.pipeline.inputs import Request, check_settings, requests_of, seeds_of
from deepgen.pipeline.intake import References, to_pixels
from deepgen.pipeline.output import OUTPUT_TYPES, DeepGenOutput, stack_if_same, to_output
from deepgen.pipeline.shipped import resolve_model
from deepgen.pipeline.sizes import plan_reference

MAX_PROMPT_TOKENS = 1024
DECODED_AT_ONCE = 2**20  # pixels; bounds the VAE's memory at large batches

StepCallback = Callable[["DeepGenPipeline", int, torch.Tensor, dict[str, Any]], dict[str, Any] | None]
Generators = torch.Generator | list[torch.Generator]


@dataclass(frozen=True)
class Row:
    """What one side of one picture is conditioned on: a row of the call's conditioning, and clean latents."""

    index: int
    references: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Plan:
    """A call with everything decided: `pictures[i]` starts from `noise[i]`, prompt-major."""

    requests: list[Request]
    per_prompt: int
    steps: int
    guidance_scale: float
    noise: list[torch.Tensor]
    callback: StepCallback | None

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1.0


class DeepGenPipeline(DiffusionPipeline):
    """Draws pictures from prompts and edits pictures as instructions say.

    Args:
        vlm, connector, transformer, vae: the four networks.
        defaults: what the checkpoint prefers; the published model's values if not given.
        name: of the model, for the record in each picture's metadata.
    """

    def __init__(
        self,
        vlm: FusedVLM,
        connector: Bridge,
        transformer: DiT,
        vae: AutoencoderKL,
        defaults: GenerationDefaults | None = None,
        name: str = "deepgen",
    ) -> None:
        super().__init__()
        self.register_modules(vlm=vlm, connector=connector, transformer=transformer, vae=vae)
        self.model = DeepGenModel(vlm, connector, transformer, vae)
        self.defaults = defaults or GenerationDefaults()
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "nano",
        torch_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> "DeepGenPipeline":
        """Load a shipped model ("nano" or "deepgen-nano") or a checkpoint folder.

        Args:
            torch_dtype: of the weights; if not given, float32 on a CPU and bfloat16 elsewhere.
            device: if not given, the accelerator where there is one, otherwise the CPU.

        Raises:
            InputError: the model is not known.
            CheckpointError: the folder is not a complete checkpoint.
        """
        name, path = resolve_model(model)
        if device is None:
            device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
        device = torch.device(device)
        if torch_dtype is None:
            torch_dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        parts, defaults = load_model(path, torch_dtype, device)
        return cls(parts.vlm, parts.bridge, parts.dit, parts.vae, defaults, name)

    def save_pretrained(self, path: str | Path) -> None:
        """Save as a checkpoint folder that `from_pretrained` loads, in the weights' own dtype."""
        save_model(self.model, self.defaults, path, self.model.dit.dtype)

    def __call__(
        self,
        prompt: str | Sequence[str],
        image: References | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        seed: int | Sequence[int] | None = None,
        generator: Generators | None = None,
        latents: torch.Tensor | Sequence[torch.Tensor] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
    ) -> DeepGenOutput:
        """Draw `num_images_per_prompt` pictures of each prompt, in the order of the prompts.

        What is None is the checkpoint's default.

        Args:
            prompt: what to draw, or the change to make to `image`; at most 1,024 tokens each.
            image: reference pictures (PIL or paths); see `intake.references_of` for the shapes of lists.
            negative_prompt: what guidance leads away from.
            height, width: multiples of 32. An edit otherwise keeps the shape of its first reference.
            num_inference_steps: 1 to 1000.
            guidance_scale: 1 or less turns guidance off, which halves the work.
            seed: picture i of the call is drawn with seed + i; a list gives each its own. Random if None.
            generator: draws the starting noise in one call on its device, as the published pipeline does; a
                list holds one for each picture. Instead of seed.
            latents: starting noise itself, [n, C, H/8, W/8] (for the usual VAE) or a list of [C, h, w].
            output_type: "pil", "np" (float32 [n, H, W, 3] in [0, 1]), "pt" ([n, 3, H, W]) or "latent".
            callback_on_step_end: called as (pipeline, step, timestep, {"latents": ...}); a dictionary that it
                returns may hold other latents to go on with.

        Returns:
            DeepGenOutput, or the tuple (images, metadata) when return_dict is False.

        Raises:
            InputError: an argument cannot be used.
        """
        if output_type not in OUTPUT_TYPES:
            raise InputError(f"output_type is {output_type!r}; it must be one of {', '.join(OUTPUT_TYPES)}")
        steps = self.defaults.num_inference_steps if num_inference_steps is None else num_inference_steps
        scale = self.defaults.guidance_scale if guidance_scale is None else guidance_scale
        check_settings(steps, scale, num_images_per_prompt)
        requests = self._requests(prompt, image, negative_prompt, (width, height))
        wanted = [request for request in requests for _ in range(num_images_per_prompt)]
        check_settings(steps, scale, len(wanted))
        noise, seeds = self._starts(wanted, seed, generator, latents)
        plan = Plan(requests, num_images_per_prompt, steps, float(scale), noise, callback_on_step_end)
        drawn = self._draw(plan, decode=output_type != "latent")
        images = to_output(drawn, output_type)
        records = [self._record(plan, r, s) for r, s in zip(wanted, seeds, strict=True)]
        output = DeepGenOutput(images=images, metadata=records)
        return output if return_dict else output.to_tuple()

    def _requests(
        self,
        prompt: str | Sequence[str],
        image: References | None,
        negative_prompt: str | Sequence[str] | None,
        size: tuple[int | None, int | None],
    ) -> list[Request]:
        requests = requests_of(prompt, image, negative_prompt, size, self.defaults)
        for text in {text for r in requests for text in (r.prompt, r.negative_prompt)}:
            ids = self.model.vlm.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
            if len(ids) > MAX_PROMPT_TOKENS:
                raise InputError(f"a prompt of {len(ids)} tokens; shorten it to {MAX_PROMPT_TOKENS}")
        return requests

    def _starts(
        self,
        wanted: list[Request],
        seed: int | Sequence[int] | None,
        generator: Generators | None,
        latents: torch.Tensor | Sequence[torch.Tensor] | None,
    ) -> tuple[list[torch.Tensor], list[int] | list[None]]:
        """The starting noise of each picture, float32 [C, h, w], and its seed where it has one."""
        if sum(x is not None for x in (seed, generator, latents)) > 1:
            raise InputError("give only one of seed, generator and latents")
        channels, factor = self.model.dit.config["in_channels"], self.model.latent_scale
        shapes = [(channels, r.height // factor, r.width // factor) for r in wanted]
        unseeded = [None] * len(wanted)
        if latents is not None:
            if [tuple(x.shape) for x in latents] != shapes:
                got = [tuple(x.shape) for x in latents]
                raise InputError(f"latents of shapes {got} for pictures that need {shapes}")
            return [x.float() for x in latents], unseeded
        if generator is not None:
            return _noise_from(generator, shapes, self.model.dit.dtype), unseeded
        seeds = seeds_of(seed, len(wanted), drawn=secrets.randbelow(2**32))
        return [keyed_noise(shape, s, "init") for shape, s in zip(shapes, seeds, strict=True)], seeds

    @torch.inference_mode()
    def _draw(self, plan: Plan, decode: bool) -> list[torch.Tensor]:
        """The finished pictures [3, H, W] in [-1, 1], or their latents [C, h, w]."""
        conditioning, references = self._condition(plan)
        schedule = sigmas(plan.steps, self.defaults.shift)
        states = []
        for i, noise in enumerate(plan.noise):
            row = i // plan.per_prompt
            positive = Row(row, references[row])
            negative = Row(row + len(plan.requests), references[row]) if plan.guided else None
            latents = noise.to(self.model.device)
            states.append(SampleState(latents, schedule, positive, negative, plan.guidance_scale))
        self._sample(states, conditioning, plan)
        finished = [state.latents for state in states]
        return self._decode(finished) if decode else finished

    def _condition(self, plan: Plan) -> tuple[Conditioning, list[tuple[torch.Tensor, ...]]]:
        """Conditioning rows of the prompts, then of their negatives; and each prompt's reference latents."""
        pixels: list[list[torch.Tensor]] = []
        latents: list[tuple[torch.Tensor, ...]] = []
        known: dict[tuple[int, tuple[int, int]], tuple[torch.Tensor, torch.Tensor]] = {}
        for request in plan.requests:
            row = []
            for picture in request.references:
                size = plan_reference(picture.size, (request.width, request.height))
                key = (id(picture), size)
                if key not in known:
                    known[key] = self._read(picture, size)
                row.append(known[key])
            pixels.append([p for p, _ in row])
            latents.append(tuple(z for _, z in row))
        conditioning = self.model.condition(
            [r.prompt for r in plan.requests],
            pixels,
            self.defaults.padding,
            negatives=[r.negative_prompt for r in plan.requests],
            encode_negatives=plan.guided,
        )
        return conditioning, latents

    def _read(self, picture: Image.Image, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A reference as pixels [3, H, W] and as latents [C, h, w]."""
        pixels = to_pixels(picture, size).to(self.model.device)
        return pixels, self.model.encode(pixels[None])[0]

    def _sample(self, states: list[SampleState[Row]], conditioning: Conditioning, plan: Plan) -> None:
        """Take the states to the end, in place."""
        # The rows of a velocity batch are the same at every step, so they are gathered once.
        gathered: dict[tuple[int, ...], Conditioning] = {}

        def velocity(rows: list[Evaluation[Row]]) -> Sequence[torch.Tensor]:
            indices = tuple(row.condition.index for row in rows)
            if indices not in gathered:
                gathered[indices] = conditioning.rows(indices)
            references = [row.condition.references for row in rows]
            result = self.model.velocity(
                stack_if_same([row.latents for row in rows]),
                torch.tensor([row.timestep for row in rows], device=self.model.device),
                gathered[indices],
                references if any(references) else None,
            )
            return list(result)

        with self.progress_bar(total=plan.steps) as bar:
            for step in range(plan.steps):
                time = timestep_of(states[0].sigmas[step])
                advance(states, velocity)
                if plan.callback is not None:
                    self._call_back(plan.callback, step, time, states)
                bar.update()

    def _call_back(
        self, callback: StepCallback, step: int, time: torch.Tensor, states: list[SampleState[Row]]
    ) -> None:
        latents = stack_if_same([state.latents for state in states])
        answer = callback(self, step, time, {"latents": latents}) or {}
        for state, replaced in zip(states, answer.get("latents", latents), strict=True):
            state.latents = replaced.to(state.latents)

    def _decode(self, latents: list[torch.Tensor]) -> list[torch.Tensor]:
        """Pictures [3, H, W] of latents, those of one size decoded together as far as memory should allow."""
        by_shape: dict[torch.Size, list[int]] = {}
        for i, z in enumerate(latents):
            by_shape.setdefault(z.shape, []).append(i)
        decoded: dict[int, torch.Tensor] = {}
        for shape, places in by_shape.items():
            pixels = shape[1] * shape[2] * self.model.latent_scale**2
            at_once = max(1, DECODED_AT_ONCE // pixels)
            for start in range(0, len(places), at_once):
                part = places[start : start + at_once]
                pictures = self.model.decode(torch.stack([latents[i] for i in part]))
                decoded.update(zip(part, pictures, strict=True))
        return [decoded[i] for i in range(len(latents))]

    def _record(self, plan: Plan, request: Request, seed: int | None) -> dict[str, Any]:
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt if plan.guided else None,
            "seed": seed,
            "width": request.width,
            "height": request.height,
            "num_inference_steps": plan.steps,
            "guidance_scale": plan.guidance_scale,
            "shift": self.defaults.shift,
            "padding": self.defaults.padding,
            "reference_sizes": [list(picture.size) for picture in request.references],
            "dtype": str(self.model.dit.dtype).removeprefix("torch."),
            "model": self.name,
            "version": __version__,
        }


def _noise_from(
    generator: Generators, shapes: list[tuple[int, int, int]], dtype: torch.dtype
) -> list[torch.Tensor]:
    """Noise as diffusers draws it: one block from one generator, or one row from each of several."""
    generators = [generator] if isinstance(generator, torch.Generator) else generator
    if len(generators) not in (1, len(shapes)):
        raise InputError(
            f"{len(generators)} generators for {len(shapes)} pictures; give one, or one a picture"
        )
    if len(generators) == 1 and len(set(shapes)) > 1:
        raise InputError("one generator draws pictures of one size only; give seed, or a generator a picture")
    rows = len(shapes) // len(generators)
    blocks = [
        torch.randn((rows, *shape), generator=g, device=g.device, dtype=dtype)
        for g, shape in zip(generators, shapes, strict=False)
    ]
    return [row.float() for block in blocks for row in block]
