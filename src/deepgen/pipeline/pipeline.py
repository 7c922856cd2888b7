"""The pipeline: prompts and reference pictures in, pictures out."""

import secrets
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image

from deepgen import __version__
from deepgen.checkpoints import GenerationDefaults, open_checkpoint, save_model
from deepgen.checkpoints.towers import rebuild_rotary
from deepgen.errors import InputError
from deepgen.flow.sampler import Evaluation, SampleState, advance
from deepgen.flow.schedule import sigmas, timestep_of
from deepgen.model.bridge import Bridge
from deepgen.model.deepgen import Conditioning, DeepGenModel
from deepgen.model.dit import DiT
from deepgen.model.vlm import FusedVLM
from deepgen.pipeline.inputs import Request, Side, Sizing, check_lengths, check_settings, requests_of
from deepgen.pipeline.intake import References, to_pixels
from deepgen.pipeline.offload import Offload, check_devices, has_room
from deepgen.pipeline.output import OUTPUT_TYPES, DeepGenOutput, resize_back, stack_if_same, to_output
from deepgen.pipeline.records import record_of, weights_hash
from deepgen.pipeline.shipped import resolve_model
from deepgen.pipeline.sizes import Resize
from deepgen.pipeline.starts import Generators, Start

DECODED_AT_ONCE = 2**20  # pixels; bounds the VAE's memory at large batches

StepCallback = Callable[["DeepGenPipeline", int, torch.Tensor, dict[str, Any]], dict[str, Any] | None]


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
        self._scheduler = FlowMatchEulerDiscreteScheduler(shift=self.defaults.shift)
        self.name = name
        self._offload: Offload | None = None

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "nano",
        base_vlm: str | Path | None = None,
        base_dit: str | Path | None = None,
        lora: str | Path | None = None,
        torch_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> "DeepGenPipeline":
        """Load a shipped model ("nano" or "deepgen-nano") or a checkpoint of any published layout.

        `model`, `base_vlm`, `base_dit` and `lora` are paths, or `org/name[@revision]` on the hub.

        Args:
            model: a folder or file.
            base_vlm: Qwen2.5-VL-3B-Instruct, for checkpoints without a VLM.
            base_dit: UniPic2-SD3.5M-Kontext-2B, for checkpoints without VAE and schedule.
            lora: adapters to merge: a checkpoint that holds some of the VLM, or a peft folder.
            torch_dtype: of the weights; if not given, float32 on a CPU and bfloat16 elsewhere.
            device: if not given, the accelerator where there is one with room for the weights, otherwise the CPU.

        Raises:
            InputError: the model or the device is not known.
            CheckpointError: the checkpoint is incomplete or damaged.
        """
        check_devices([device])
        name, path = resolve_model(model)
        checkpoint = open_checkpoint(path, base_vlm, base_dit, lora)
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        wanted = torch.device(device or accelerator or "cpu")
        if torch_dtype is None:
            torch_dtype = torch.float32 if wanted.type == "cpu" else torch.bfloat16
        if device is None and not has_room(wanted, checkpoint.nbytes(torch_dtype)):
            warnings.warn(
                f"{name} does not fit on {wanted}: it stays on the CPU; enable_model_cpu_offload() draws with one "
                "network at a time on the accelerator",
                stacklevel=2,
            )
            wanted = torch.device("cpu")
        parts, defaults = checkpoint.load(torch_dtype, wanted)
        return cls(parts.vlm, parts.bridge, parts.dit, parts.vae, defaults, name)

    def to(self, *args: Any, **kwargs: Any) -> "DeepGenPipeline":
        """Move or cast the networks, as diffusers' `to`; ends offloading.

        Raises:
            InputError: there is no such device.
        """
        check_devices((*args, *kwargs.values()))
        if self._offload is not None:
            self._offload.remove()
            self._offload = None
        super().to(*args, **kwargs)
        # The rotary frequencies are computed in fp32 whatever the weights are: a cast would round them.
        rebuild_rotary(self.model.vlm.model, self.model.vlm.device)
        return self

    def enable_model_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """Keep only the network that is computing on the accelerator, the others in host memory.

        Args:
            gpu_id: which of several accelerators.
            device: its kind; if not given, the one there is. Without any, the pipeline stays on the CPU.

        Raises:
            InputError: there is no such device.
        """
        found = device or torch.accelerator.current_accelerator(check_available=True)
        self.to("cpu")
        if found is None:
            warnings.warn("there is no accelerator: the pipeline stays on the CPU", stacklevel=2)
            return
        kind = torch.device(found)
        target = kind if gpu_id is None else torch.device(kind.type, gpu_id)
        check_devices([target])
        self._offload = Offload(self.components, target)

    @property
    def drawing_device(self) -> torch.device:
        """Where the networks compute, wherever their weights rest."""
        return self.model.device if self._offload is None else self._offload.device

    @property
    def scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        """diffusers' description of the noise levels, for code that reads it; the levels are the same to the last
        bit. Pictures are advanced by `flow.sampler`, so another scheduler cannot be put in its place."""
        return self._scheduler

    def save_pretrained(self, path: str | Path) -> None:
        """Save as a checkpoint folder that `from_pretrained` loads, in the weights' own dtype."""
        save_model(self.model, self.defaults, path, self.model.dit.dtype)

    def __call__(
        self,
        prompt: str | Sequence[str],
        image: References | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        height: Side = None,
        width: Side = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        seed: int | Sequence[int] | None = None,
        generator: Generators | None = None,
        latents: torch.Tensor | Sequence[torch.Tensor] | None = None,
        resize: Resize = "aspect",
        keep_size: bool = False,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
    ) -> DeepGenOutput:
        """Draw `num_images_per_prompt` pictures of each prompt, in the order of the prompts.

        What is None is the checkpoint's default. Prompts of one call may differ in everything that is given as a
        list; each is drawn as it would be alone, up to the rounding of matrix products of another shape (below
        1/255 a value in float32).

        Args:
            prompt: what to draw, or the change to make to `image`; at most 1,024 tokens each.
            image: reference pictures (PIL or paths); see `intake.references_of` for the shapes of lists.
            negative_prompt: what guidance leads away from.
            height, width: multiples of 32, one for all or a list with one (or None) a prompt. An edit otherwise
                keeps the shape of its first reference, as far as `resize` lets it.
            num_inference_steps: 1 to 1000.
            guidance_scale: 1 or less turns guidance off, which halves the work.
            seed: picture i of the call is drawn with seed + i; a list gives each its own. Random if None.
            generator: draws the starting noise in one call on its device, as the published pipeline does; a
                list holds one for each picture. Instead of seed.
            latents: starting noise itself, [n, C, H/8, W/8] (for the usual VAE) or a list of [C, h, w].
            resize: how references are read: "aspect" (own shape, on the grid of 32), or as published: "square",
                "area", "none"; see `sizes.Resize`.
            keep_size: bring edits back to exactly the size of their first reference.
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
        if keep_size and output_type == "latent":
            raise InputError("keep_size resizes pictures; it cannot be used with output_type='latent'")
        sizing = Sizing(width, height, resize, keep_size)
        requests = requests_of(prompt, image, negative_prompt, sizing, self.defaults)
        check_lengths(requests, self.model.vlm.tokenizer)
        wanted = [request for request in requests for _ in range(num_images_per_prompt)]
        check_settings(steps, scale, len(wanted))
        channels, factor = self.model.dit.config["in_channels"], self.model.latent_scale
        shapes = [(channels, r.height // factor, r.width // factor) for r in wanted]
        start = Start(seed, generator, latents)
        noise, seeds = start.noise(shapes, self.model.dit.dtype, drawn=secrets.randbelow(2**32))
        plan = Plan(requests, num_images_per_prompt, steps, float(scale), noise, callback_on_step_end)
        drawn = self._draw(plan, decode=output_type != "latent")
        if keep_size:
            drawn = [
                resize_back(p, r.output_size or (r.width, r.height))
                for p, r in zip(drawn, wanted, strict=True)
            ]
        images = to_output(drawn, output_type)
        records = self._records(plan, seeds, {"resize": resize, "keep_size": keep_size})
        output = DeepGenOutput(images=images, metadata=records)
        return output if return_dict else output.to_tuple()

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
            for picture, size in zip(request.references, request.reference_sizes, strict=True):
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

    def _records(
        self, plan: Plan, seeds: Sequence[int | None], sizing: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """How each picture was made. The negative prompt decides the pads even where guidance is off."""
        with_negative = plan.guided or self.defaults.padding != "none"
        requests = [record_of(request, with_negative) for request in plan.requests]
        shared = {
            "num_inference_steps": plan.steps,
            "guidance_scale": plan.guidance_scale,
            "shift": self.defaults.shift,
            "padding": self.defaults.padding,
            **sizing,
            "batch_size": len(plan.noise),
            "dtype": str(self.model.dit.dtype).removeprefix("torch."),
            "device": self.drawing_device.type,
            "model": self.name,
            "weights": weights_hash(self.model),
            "version": __version__,
        }
        return [requests[i // plan.per_prompt] | {"seed": seed} | shared for i, seed in enumerate(seeds)]
