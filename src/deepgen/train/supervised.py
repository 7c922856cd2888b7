"""The supervised objective on a batch of data: conditioning, keyed noise and levels, the loss of each sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepgen.data.batch import TrainBatch
from deepgen.data.cache import FeatureCache
from deepgen.flow.noise import key_generator
from deepgen.model.deepgen import Conditioning, DeepGenModel, Padding
from deepgen.model.vlm import with_pads
from deepgen.train.features import Caches, embed_all, encode_all
from deepgen.train.objective import noisy_batch, training_loss, uniform_sigmas


@dataclass(frozen=True)
class Objective:
    """What decides a sample's loss beside the sample.

    Attributes:
        seed: of levels and noise.
        shift: of the noise levels.
        padding: pads that the bridge sees.
        role: keeps validation's draws apart from training's.
    """

    seed: int
    shift: float
    padding: Padding
    role: str = "train"


@dataclass(frozen=True)
class Draws:
    """Random values of a batch: `uniform` [B] in [0, 1), behind the levels; `noise` [C, h, w] a sample."""

    uniform: Tensor
    noise: list[Tensor]


@dataclass(frozen=True)
class BatchLoss:
    """Losses [B] with gradients, noise levels [B] on the CPU, the batch's tasks, and the draws behind the losses."""

    losses: Tensor
    sigmas: Tensor
    tasks: list[str]
    draws: Draws


def draws_for(objective: Objective, samples: Sequence[int], shapes: Sequence[torch.Size]) -> Draws:
    """Draws keyed by the number of each sample in the whole run.

    So they differ between processes (the published code repeats them on all) and are the same however many processes
    there are.

    Args:
        objective: seed and role.
        samples: numbers of the samples in the run's order.
        shapes: of their latents.
    """
    uniform, noise = [], []
    for number, shape in zip(samples, shapes, strict=True):
        generator = key_generator(objective.seed, objective.role, number)
        uniform.append(torch.rand((), generator=generator))
        noise.append(torch.randn(shape, generator=generator))
    return Draws(torch.stack(uniform), noise)


def condition(
    model: DeepGenModel,
    prompts: Sequence[str],
    references: Sequence[Sequence[Tensor]],
    padding: Padding,
    cache: FeatureCache | None = None,
) -> Conditioning:
    """`DeepGenModel.condition` of prompts alone, by a row of calls that does not depend on the samples.

    Sharded models need that: there the state of a pad is asked for whenever padding could need it. "pair" pads up to
    the negative prompt, of which training has none: it adds nothing here. `cache` is of the pictures' embeddings.
    """
    fused = model.fuse(prompts, references, "none", embeds=embed_all(model, references, cache))
    states, lengths = fused.states, fused.lengths
    if padding == "batch":
        pad = model.vlm.pad_row(model.vlm.tokenizer.pad_token_id)
        states, lengths = with_pads(states, lengths, lengths.max() - lengths, pad)
    context, pooled = model.bridge(states, lengths)
    return Conditioning(context, lengths, pooled)


def batch_loss(
    model: DeepGenModel,
    batch: TrainBatch,
    objective: Objective,
    samples: Sequence[int],
    caches: Caches | None = None,
) -> BatchLoss:
    """The published objective on a batch (`objective.training_loss`), with the draws of these samples.

    Args:
        model: with gradients where they are wanted.
        batch: of one task or mixed, of any sizes.
        objective: see there.
        samples: number of each sample in the run's order.
        caches: of what the frozen networks make of the pictures.
    """
    caches = caches or Caches()
    device = model.vae.device
    # What comes from the host goes first, while the device has nothing else to do. Caches look at pixels there.
    if caches.latents is None:
        batch = batch.to(device)
    channels, scale = model.vae.config.latent_channels, model.latent_scale
    shapes = [torch.Size((channels, p.shape[-2] // scale, p.shape[-1] // scale)) for p in batch.targets]
    draws = draws_for(objective, samples, shapes)
    noise = [x.to(device, non_blocking=True) for x in draws.noise]
    sigma = uniform_sigmas(draws.uniform, objective.shift)
    counts = [len(row) for row in batch.references]
    pictures = [*batch.targets, *(p for row in batch.references for p in row)]
    latents = encode_all(model, pictures, caches.latents)
    size = len(batch.targets)
    clean, flat = latents[:size], latents[size:]
    references, start = [], 0
    for count in counts:
        references.append(flat[start : start + count])
        start += count
    conditioning = condition(model, batch.prompts, batch.references, objective.padding, caches.embeds)
    losses = training_loss(
        model, conditioning, noisy_batch(clean, noise, sigma), references if any(counts) else None
    )
    return BatchLoss(losses, sigma, list(batch.tasks), draws)
