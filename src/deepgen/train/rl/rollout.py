"""Drawing the pictures of a rollout: stochastic steps inside the window, Euler steps elsewhere.

What is kept of a picture is its latents at the steps that are trained and behind them, and their log-probabilities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepgen.checkpoints import GenerationDefaults
from deepgen.flow.noise import keyed_noise
from deepgen.flow.schedule import sigmas as noise_levels
from deepgen.flow.sde import ode_rows, sde_step
from deepgen.model.deepgen import DeepGenModel
from deepgen.rewards.protocol import Picture, RewardInput
from deepgen.train.features import encode_all
from deepgen.train.parallel import ParallelConfig, Ranks, computing
from deepgen.train.rl.config import RLConfig, SamplerConfig
from deepgen.train.rl.groups import Group, Plan, Sources, open_sources, to_uint8
from deepgen.train.rl.policy import Encoded, Guidance, encode_prompts, flatten, velocity_rows
from deepgen.train.rl.window import Window

DECODED_AT_ONCE = 2**22
"""Pixels; bounds the VAE's memory."""


@dataclass(frozen=True)
class DrawnGroup:
    """A group with what it starts from, and the clean latents of its references."""

    group: Group
    sources: Sources
    latents: list[Tensor]


@dataclass(frozen=True)
class Drawn:
    """The pictures that one process drew in one rollout; n rows, those of a group side by side.

    Attributes:
        groups: own groups.
        owner: of each row, its place in `groups`.
        numbers: of each row, the picture's number in the rollout over all processes.
        shapes: of each row's latents.
        encoded: a row a group; of the policy as it was.
        states: by step: latents [n, M] before it, for steps that are trained and those behind them.
        log_probs: by trained step: [n], of the latents behind it.
        pictures: uint8, one a row.
    """

    groups: list[DrawnGroup]
    owner: list[int]
    numbers: list[int]
    shapes: list[torch.Size]
    encoded: Encoded
    states: dict[int, Tensor]
    log_probs: dict[int, Tensor]
    pictures: list[Picture]

    def __len__(self) -> int:
        return len(self.owner)

    def counts(self, rows: Sequence[int]) -> Tensor:
        """Real values of each row, int64 on the CPU."""
        return torch.tensor([self.shapes[i].numel() for i in rows])

    def references(self, rows: Sequence[int]) -> list[list[Tensor]]:
        return [self.groups[self.owner[i]].latents for i in rows]


@dataclass(frozen=True)
class Lanes:
    """Rows that are drawn together: of each its group, its number in that group, its latents' shape; their prompts."""

    groups: list[DrawnGroup]
    members: list[int]
    shapes: list[torch.Size]
    encoded: Encoded

    @property
    def counts(self) -> Tensor:
        return torch.tensor([shape.numel() for shape in self.shapes])

    def places_of(self, others: "Lanes") -> list[int]:
        """The row here of each of the others' groups."""
        found = {one.group.number: place for place, one in enumerate(self.groups)}
        return [found[one.group.number] for one in others.groups]


@dataclass(frozen=True)
class _Chunk:
    """What one batch of pictures leaves behind."""

    states: dict[int, Tensor]
    log_probs: dict[int, Tensor]
    latents: Tensor


class Drawer:
    """Draws blocks of groups with the model as it stands.

    Args:
        model: in evaluation mode.
        config: of the run.
        defaults: of the checkpoint.
        ranks: this process.
    """

    def __init__(
        self, model: DeepGenModel, config: RLConfig, defaults: GenerationDefaults, ranks: Ranks
    ) -> None:
        self.model, self.config, self.ranks = model, config, ranks
        sampler = config.sampler
        self.sigmas = noise_levels(sampler.num_inference_steps, sampler.shift or defaults.shift)
        self.padding = sampler.padding or ("none" if defaults.padding == "none" else "pair")
        self.guidance = guidance_of(sampler, defaults)
        self.area = config.area or defaults.area

    @property
    def sampler(self) -> SamplerConfig:
        return self.config.sampler

    @property
    def parallel(self) -> ParallelConfig:
        return self.config.parallel

    @torch.no_grad()
    def draw(
        self,
        groups: Sequence[Group],
        plan: Plan,
        window: Window,
        submit: Callable[[list[RewardInput]], None],
    ) -> Drawn:
        """This process's part of a rollout; `submit` is handed each block as soon as it is drawn.

        Args:
            groups: of the whole rollout, in the order in which they are drawn.
            plan: of the rollout.
            window: of steps.
            submit: takes whole groups.
        """
        own: list[DrawnGroup] = []
        owner: list[int] = []
        numbers: list[int] = []
        encodings: list[Encoded] = []
        chunks: list[_Chunk] = []
        pictures: list[Picture] = []
        size = max(self._shape(group).numel() for group in groups)
        for block in plan.own_blocks(self.ranks.rank):
            opened = self._open([groups[i] for i in block])
            encoded = self.encode(opened)
            rows = [i for i in range(len(block)) for _ in range(plan.group_size)]
            shown: list[Picture] = []
            for start in range(0, len(rows), plan.at_once):
                chosen = rows[start : start + plan.at_once]
                places = [(row, (start + i) % plan.group_size) for i, row in enumerate(chosen)]
                full = shared = self._lanes(opened, encoded, places)
                if self.sampler.share_noise and window.noised.start > 0:
                    shared = self._lanes(opened, encoded, [(row, 0) for row in dict.fromkeys(chosen)])
                chunk = self._chunk(full, shared, window, size)
                shown += self._decode(chunk.latents, full.shapes)
                chunks.append(chunk)
            submit([_input(opened[i], picture) for i, picture in zip(rows, shown, strict=True)])
            owner += [len(own) + i for i in rows]
            numbers += range(block.start * plan.group_size, block.stop * plan.group_size)
            own += opened
            encodings.append(encoded)
            pictures += shown
        return Drawn(
            own,
            owner,
            numbers,
            [self._shape(own[i].group) for i in owner],
            Encoded.join(encodings),
            _joined([chunk.states for chunk in chunks]),
            _joined([chunk.log_probs for chunk in chunks]),
            pictures,
        )

    def encode(self, groups: Sequence[DrawnGroup]) -> Encoded:
        """Prompts of groups by the model as it stands, with gradients where they are wanted."""
        device = self.ranks.device
        texts = [one.group.prompt.text for one in groups]
        references = [[x.to(device) for x in one.sources.references] for one in groups]
        with computing(self.parallel, self.ranks):
            return encode_prompts(self.model, texts, references, self.padding, self.guidance)

    def velocity(
        self,
        latents: Tensor,
        shapes: Sequence[torch.Size],
        sigma: Tensor,
        encoded: Encoded,
        references: Sequence[Sequence[Tensor]],
    ) -> Tensor:
        """See `velocity_rows`; in the compute type of the run."""
        with computing(self.parallel, self.ranks):
            return velocity_rows(self.model, latents, shapes, sigma, encoded, references, self.guidance.scale)

    def _shape(self, group: Group) -> torch.Size:
        scale = self.model.latent_scale
        width, height = group.size
        return torch.Size((self.model.dit.out_channels, height // scale, width // scale))

    def _open(self, groups: Sequence[Group]) -> list[DrawnGroup]:
        sources = [open_sources(group, self.area) for group in groups]
        flat = [x.to(self.ranks.device) for one in sources for x in one.references]
        latents = iter(encode_all(self.model, flat))
        return [
            DrawnGroup(group, one, [next(latents) for _ in one.references])
            for group, one in zip(groups, sources, strict=True)
        ]

    def _lanes(
        self, groups: Sequence[DrawnGroup], encoded: Encoded, places: Sequence[tuple[int, int]]
    ) -> Lanes:
        """Rows of a block: `places` are (group, member of that group)."""
        rows = [place for place, _ in places]
        chosen = [groups[i] for i in rows]
        shapes = [self._shape(one.group) for one in chosen]
        return Lanes(chosen, [member for _, member in places], shapes, encoded.rows(rows))

    def _chunk(self, full: Lanes, shared: Lanes, window: Window, size: int) -> _Chunk:
        """Draw one batch. Up to the window the pictures of a group are one where they start alike: `shared`."""
        device, sigmas = self.ranks.device, self.sigmas
        lanes = shared
        latents = self.noise(lanes, "start", 0, size)
        states: dict[int, Tensor] = {}
        log_probs: dict[int, Tensor] = {}
        kept = {i for step in window.trained for i in (step, step + 1)}
        for step in range(len(sigmas) - 1):
            if lanes is not full and step == window.noised.start:
                latents, lanes = latents[shared.places_of(full)], full
            now, then = (sigmas[i].expand(len(lanes.groups)).to(device) for i in (step, step + 1))
            if step in kept:
                states[step] = latents
            references = [one.latents for one in lanes.groups]
            velocity = self.velocity(latents, lanes.shapes, now, lanes.encoded, references)
            if step not in window.noised:
                latents = ode_rows(latents, velocity, now, then)
                continue
            move = sde_step(self.sampler.kind, latents, velocity, now, then, self.sampler.eta)
            latents = move.draw(self.noise(lanes, "step", step, size))
            if step in window.trained:
                log_probs[step] = move.log_prob(latents, lanes.counts.to(device))
        return _Chunk(states, log_probs, latents)

    def noise(self, lanes: Lanes, role: str, step: int, size: int) -> Tensor:
        """Standard normal rows [B, size] of prompt, member and step; a group's "start" is one where that is shared."""
        known: dict[str, Tensor] = {}
        keys = []
        for one, member, shape in zip(lanes.groups, lanes.members, lanes.shapes, strict=True):
            alone = role == "step" or not self.sampler.share_noise
            key = f"rl {role} {one.group.number}" + (f" {member}" if alone else "")
            if key not in known:
                known[key] = keyed_noise(shape, self.config.seed, key, step)
            keys.append(key)
        return flatten([known[key] for key in keys], size).to(self.ranks.device, non_blocking=True)

    def _decode(self, latents: Tensor, shapes: Sequence[torch.Size]) -> list[Picture]:
        """Pictures of finished latents; those of one size together."""
        found: dict[int, Picture] = {}
        scale = self.model.latent_scale
        for shape in dict.fromkeys(shapes):
            rows = [i for i, one in enumerate(shapes) if one == shape]
            at_once = max(1, DECODED_AT_ONCE // (shape[-1] * shape[-2] * scale**2))
            for start in range(0, len(rows), at_once):
                some = rows[start : start + at_once]
                pixels = self.model.decode(latents[some, : shape.numel()].view(len(some), *shape))
                found.update(zip(some, to_uint8(pixels), strict=True))
        return [found[i] for i in range(len(shapes))]


def guidance_of(sampler: SamplerConfig, defaults: GenerationDefaults) -> Guidance:
    """The guidance of a run; negative prompts are the checkpoint's unless given."""
    given = sampler.negative_prompt
    return Guidance(
        sampler.guidance_scale,
        defaults.negative_prompt if given is None else given,
        defaults.negative_edit_prompt if given is None else given,
    )


def _input(one: DrawnGroup, picture: Picture) -> RewardInput:
    prompt = one.group.prompt
    return RewardInput(
        picture,
        prompt.text,
        f"{one.group.number}",
        one.sources.shown,
        prompt.metadata,
        prompt.family,
        one.sources.target,
    )


def _joined(parts: Sequence[dict[int, Tensor]]) -> dict[int, Tensor]:
    """Rows of all parts, by step."""
    return {step: torch.cat([part[step] for part in parts]) for step in parts[0]}
