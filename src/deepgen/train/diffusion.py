"""Trains what `trainable` names of nano's VLM, bridge, think tokens and diffusion transformer, on a frozen VAE.

Base, alignment and joint fine-tuning are this stage with other parts trained (paper, sections 2 and 3): the base reads
prompts by a throw-away encoder, alignment trains bridge and think tokens, fine-tuning the transformer and adapters too.

Velocity matching (the published objective, paper section 2) with changes for a small model that has little time on
drawn pictures: noise levels are logit-normal and shifted, tokens of objects weigh more, samples come from a stream of
latents that is refreshed while training goes on, hidden matrices learn by Muon, and the middle of the transformer
also learns to name what each token shows (as REPA aligns it with a vision encoder, Yu et al. 2024,
arXiv:2410.06940; here the truth is known), with a weight that falls to zero over the run.
"""

import logging
import random
import time
from collections import defaultdict
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from deepgen.errors import ConfigError
from deepgen.flow.path import interpolate, velocity_target
from deepgen.flow.schedule import shift_sigma, timestep_of
from deepgen.model.bridge import Bridge
from deepgen.model.deepgen import DeepGenModel
from deepgen.model.dit import DiT
from deepgen.model.dit_blocks import plain_norm
from deepgen.model.prompts import edit_prompt, text_to_image_prompt, tokenize
from deepgen.model.vlm import FusedVLM
from deepgen.train.cache import PICTURES, Encoder, PairMaker, ShelfKey, Stream
from deepgen.train.captions import CaptionReader
from deepgen.train.conditioner import Conditioner, PromptBatch, drop_prompts
from deepgen.train.diffusion_run import DiffusionConfig, Run
from deepgen.train.feeds import load_sprites, start_feed
from deepgen.train.graphs import Replayed, Step
from deepgen.train.loop import (
    Metrics,
    apply_update,
)
from deepgen.train.optimizer import average_gradients
from deepgen.train.parallel import Ranks, start_ranks, stop_ranks
from deepgen.train.trainable import make_trainable
from deepgen.world.concepts import CONCEPTS
from deepgen.world.scenes import OBLONG, SQUARE

log = logging.getLogger("deepgen.train")
MOST_TOKENS = 256
"""Picture tokens of the largest picture, 256 × 256."""


def noise_levels(count: int, shift: float, device: torch.device) -> Tensor:
    """Logit-normal noise levels in (0, 1), moved towards noise by `shift` (SD3 paper, section 3.1)."""
    return shift_sigma(torch.randn(count, device=device).sigmoid(), shift)


def patchify(latents: Tensor, patch: int) -> Tensor:
    """[B, C, h, w] → [B, hw/p², p·p·C], features in the order (row, column, channel) of the transformer's output."""
    batch, channels, height, width = latents.shape
    tiles = latents.view(batch, channels, height // patch, patch, width // patch, patch)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


class Trainer:
    """The losses of bridge and transformer on rows of a shelf.

    Args:
        labeller: names what a token shows, from its state [D] behind the middle block.
        blanks: ids of the template around an empty text, by kind and picture size.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        conditioner: Conditioner | CaptionReader,
        dit: DiT,
        labeller: nn.Linear,
        blanks: dict[ShelfKey, Tensor],
    ) -> None:
        self.config, self.conditioner, self.dit, self.blanks = config, conditioner, dit, blanks
        self.labeller = labeller

    def losses(self, key: ShelfKey, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Velocity MSE and cross-entropy of the labels, weighted by token, of rows as `Shelf.take` gives them."""
        ids, lengths = drop_prompts(
            rows["ids"].long(), rows["lengths"], self.blanks[key], self.config.prompt_dropout
        )
        prompts = PromptBatch(ids, lengths, rows.get("vision"), key[1] // 32)
        context, context_lengths, pooled = self.conditioner(prompts)
        clean = rows["latents"].float()
        noise = torch.randn_like(clean)
        sigma = noise_levels(len(clean), self.config.noise_shift, clean.device)
        noisy = interpolate(clean, noise, sigma[:, None, None, None])
        tokens = self.dit.embed(noisy)
        count, pictures = tokens.shape[1], 1 + PICTURES[key[0]]
        if pictures > 1:
            sources = self.dit.embed(rows["sources"].float().flatten(0, 1))
            tokens = torch.cat((tokens, sources.reshape(len(clean), -1, sources.shape[-1])), dim=1)
        lengths = torch.full((len(clean),), tokens.shape[1], device=clean.device)
        # every picture size is filled to the square's, the largest: one shape a kind for the compiler
        tokens = F.pad(tokens, (0, 0, 0, MOST_TOKENS * pictures - tokens.shape[1]))
        if torch.is_autocast_enabled(tokens.device.type):
            tokens = tokens.to(
                torch.get_autocast_dtype(tokens.device.type)
            )  # half the traffic between blocks
        tap: list[Tensor] = []
        output = self.dit.forward_tokens(
            tokens, timestep_of(sigma), context, pooled, lengths, context_lengths, packed=False, tap=tap
        )
        error = (output[:, :count].float() - patchify(velocity_target(clean, noise), 2)).square().mean(-1)
        labels = self.labeller(plain_norm(tap[0][:, :count])).float().flatten(0, 1)
        surprise = F.cross_entropy(labels, rows["labels"].long().flatten(), reduction="none")
        weights = rows["weights"].float()
        share = weights / weights.sum()
        return (error * share).sum(), (surprise * share.flatten()).sum()

    def step(self, key: ShelfKey, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The losses, their gradients made. `rows` has `label_weight` [] beside what `losses` reads."""
        device = rows["ids"].device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            velocity, labels = self.losses(key, rows)
        (velocity + rows["label_weight"] * labels).backward()
        return velocity.detach(), labels.detach()


def choose_batches(
    stream: Stream, config: DiffusionConfig, rng: random.Random
) -> Iterator[tuple[ShelfKey, int]]:
    """Endless (shelf, batch size): kinds by their shares, picture sizes by their number of samples."""
    shares = config.shares
    while True:
        (kind,) = rng.choices(tuple(shares), tuple(shares.values()))
        keys = [key for key in stream.shelves if key[0] == kind]
        key = rng.choices(keys, [len(stream.shelves[k]) for k in keys])[0]
        yield key, config.batch_sizes[kind]


def blank_prompts(tokenizer: PreTrainedTokenizerFast, device: torch.device) -> dict[ShelfKey, Tensor]:
    """Ids of the templates around an empty text, by kind and picture size."""
    blanks: dict[ShelfKey, Tensor] = {}
    for width, height in (SQUARE, *OBLONG):
        for kind, pictures in PICTURES.items():
            tokens = [height * width // 1024] * pictures
            prompt = edit_prompt("", tokens) if pictures else text_to_image_prompt("")
            blanks[kind, height, width] = torch.tensor(tokenize(tokenizer, prompt), device=device)
    return blanks


def build_modules(config: DiffusionConfig, vlm_width: int) -> tuple[Bridge, DiT]:
    """Bridge and transformer, each from `init_from` if that has it, else new."""
    start, shape = config.init_from, config.transformer
    if start is not None and (start / "connector").is_dir():
        bridge = Bridge.from_pretrained(start / "connector", torch_dtype=torch.float32)
    else:
        bridge = Bridge(
            vlm_hidden_size=vlm_width,
            context_dim=shape.joint_attention_dim,
            pooled_dim=shape.pooled_projection_dim,
            **config.bridge.model_dump(),
        )
    if start is None:
        return bridge, DiT(**shape.model_dump())
    return bridge, DiT.from_pretrained(start / "transformer", torch_dtype=torch.float32)


def build_reader(config: DiffusionConfig, vocab_size: int) -> CaptionReader:
    if config.init_from is not None and (config.init_from / "reader").is_dir():
        return CaptionReader.from_pretrained(config.init_from / "reader", torch_dtype=torch.float32)
    shape = config.transformer
    return CaptionReader(vocab_size, shape.joint_attention_dim, shape.pooled_projection_dim)


def start_stream(
    config: DiffusionConfig, model: DeepGenModel, tokenizer: PreTrainedTokenizerFast, ranks: Ranks
) -> Stream:
    """The stream of samples, each process its own, filled so far that training can start."""
    device, vae = ranks.device, model.vae
    if vae.config.latents_mean is None:
        raise ConfigError(
            f"{config.vae} has no latents_mean: train it with `deepgen train train/nano_vae` first"
        )
    maker = PairMaker(tokenizer, config.shares, config.cache_chunk, config.lengths, config.emphasis)
    feed = start_feed(maker, config.sprites, f"{config.loop.seed}/{ranks.rank}", config.workers)
    encoder = Encoder(vae, model.vlm.model.visual, device)
    stream = Stream(feed, encoder, load_sprites(config.sprites), config.capacities)
    stream.fill(config.cache_fill)
    return stream


def build_model(
    config: DiffusionConfig,
    vlm: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    ranks: Ranks,
) -> DeepGenModel:
    """The whole model on the device, with what is trained in fp32 and marked as such."""
    bridge, dit = build_modules(config, vlm.config.text_config.hidden_size)
    vae = AutoencoderKL.from_pretrained(config.vae, torch_dtype=torch.float32)
    fused = FusedVLM(vlm.model, tokenizer, config.bridge.num_fused_layers)
    model = DeepGenModel(fused, bridge, dit, vae.eval())
    for part in make_trainable(model, config.trainable):
        log.info("%-12s %-6s %9d parameters, %9d trained", part.name, part.how, part.parameters, part.trained)
    return model.to(ranks.device)


def compile_blocks(blocks: list[nn.Module]) -> None:
    """Compiles each for the shapes that it meets: one a kind of samples."""
    # blocks share their limit of graphs: three kinds of blocks, each once for every kind of samples
    torch._dynamo.config.recompile_limit = 64
    for block in blocks:
        block.compile(dynamic=False)


def train_diffusion(config: DiffusionConfig) -> None:
    """Runs the stage; writes averaged weights of what it trained, and `state.pt`, into `output_dir`.

    Under torchrun each process draws samples of its own, `batch_size` of them an update, and gradients are averaged.
    """
    ranks = start_ranks(config.device)
    try:
        _train(config, ranks)
    finally:
        stop_ranks()


def _train(config: DiffusionConfig, ranks: Ranks) -> None:
    began = time.monotonic()
    torch.manual_seed(config.loop.seed)
    device = ranks.device
    tokenizer = AutoTokenizer.from_pretrained(config.vlm)
    vlm = Qwen2_5_VLForConditionalGeneration.from_pretrained(config.vlm, dtype=torch.float32).eval()
    model = build_model(config, vlm, tokenizer, ranks)
    dit = model.dit
    stream = start_stream(config, model, tokenizer, ranks)
    labeller = nn.Linear(config.transformer.caption_projection_dim, 1 + len(CONCEPTS)).to(device)
    reader = None
    if config.reader == "captions":
        reader = build_reader(config, len(tokenizer)).to(device)
    run = Run(config, model, vlm, labeller, reader)
    progress = run.resume(began)
    torch.manual_seed(config.loop.seed + ranks.rank + progress.step)  # noise of its own in each process
    conditioner = reader or Conditioner(model.vlm, model.bridge, config.compile)
    if config.compile:
        compile_blocks([*dit.transformer_blocks, *([reader] if reader else [])])
    trainer = Trainer(config, conditioner, dit, labeller, blank_prompts(tokenizer, device))
    step_of: Step = trainer.step
    if device.type == "cuda":
        step_of = Replayed(trainer.step, list(run.trained))
    metrics = Metrics(config.output_dir)
    label_weight = 0.0 if config.trainable.dit == "frozen" else config.label_weight
    chosen = choose_batches(stream, config, random.Random(f"{config.loop.seed}/{progress.step}"))
    sums: dict[str, list[Tensor]] = defaultdict(list)
    next_save = progress.elapsed + 60 * config.save_every_minutes
    for step in progress.updates("bridge and transformer"):
        key, size = next(chosen)
        shelf = stream.shelves[key]
        rows = shelf.take(torch.randint(len(shelf), (size,), device=device))
        rows["label_weight"] = torch.full((), label_weight * (1 - progress.fraction), device=device)
        velocity, labels = step_of(key, rows)
        average_gradients(run.trained, ranks)
        fresh = step % config.refresh_every_steps == 0
        norm = apply_update(run.optimizer, progress, meanwhile=stream.add if fresh else None)
        run.ema.update()
        sums[f"loss_{key[0]}"].append(velocity)
        sums["labels"].append(labels)
        if step % config.loop.log_every_steps == 0:
            losses = {name: torch.stack(values).mean().item() for name, values in sums.items()}
            rate, seconds = progress.learning_rate(), progress.elapsed
            if ranks.first:
                metrics.write(
                    stage="diffusion", step=step, seconds=seconds, rate=rate, norm=norm.item(), **losses
                )
            sums.clear()
        if progress.elapsed > next_save:
            if ranks.first:
                run.save(progress)
            next_save = progress.elapsed + 60 * config.save_every_minutes
    if not ranks.first:
        return
    run.save(progress)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        metrics.write(peak_gib=peak, device=torch.cuda.get_device_name())
