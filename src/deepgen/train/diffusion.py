"""Trains nano's bridge, think tokens and diffusion transformer together on a frozen VLM and VAE.

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
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from deepgen.config import Config
from deepgen.errors import ConfigError
from deepgen.flow.path import interpolate, velocity_target
from deepgen.flow.schedule import shift_sigma, timestep_of
from deepgen.model.bridge import Bridge
from deepgen.model.dit import DiT
from deepgen.model.dit_blocks import AdaptiveNorm, plain_norm
from deepgen.model.prompts import edit_prompt, text_to_image_prompt, tokenize
from deepgen.model.vlm import FusedVLM
from deepgen.train.cache import Encoder, PairMaker, ShelfKey, Stream
from deepgen.train.conditioner import Conditioner, PromptBatch, drop_prompts
from deepgen.train.feeds import load_sprites, start_feed
from deepgen.train.loop import (
    Ema,
    LoopConfig,
    Metrics,
    Progress,
    StageConfig,
    apply_update,
    load_state,
    save_state,
)
from deepgen.train.muon import MuonAdamW, hidden_matrices
from deepgen.world.concepts import CONCEPTS
from deepgen.world.scenes import OBLONG, SQUARE

log = logging.getLogger("deepgen.train")
MOST_TOKENS = 256
"""Picture tokens of the largest picture, 256 × 256."""


class BridgeShape(Config):
    """Sizes of the bridge; `context_dim` and `pooled_dim` must be the transformer's."""

    num_fused_layers: int = 6
    hidden_size: int = 160
    intermediate_size: int = 448
    num_layers: int = 3
    num_heads: int = 5
    num_queries: int = 32


class DitShape(Config):
    """Sizes of the diffusion transformer, in diffusers' names."""

    sample_size: int = 32
    patch_size: int = 2
    in_channels: int = 16
    out_channels: int = 16
    num_layers: int = 8
    attention_head_dim: int = 32
    num_attention_heads: int = 6
    joint_attention_dim: int = 160
    caption_projection_dim: int = 192
    pooled_projection_dim: int = 160
    pos_embed_max_size: int = 24
    dual_attention_layers: tuple[int, ...] = (0, 1, 2)
    qk_norm: str = "rms_norm"


class DiffusionConfig(StageConfig):
    """`deepgen train nano_diffusion`."""

    stage: str = "diffusion"
    vlm: Path
    vae: Path
    init_from: Path | None = Field(None, description="folder with connector/ and transformer/ to start from")
    compile: bool = False
    batch_size: int = Field(512, gt=0)
    edit_batch_size: int = Field(384, gt=0)
    edit_share: float = Field(0.25, ge=0, le=1, description="share of the updates that are edits")
    cache_text: int = Field(
        160_000, ge=0, description="text→image samples kept on the device, per picture size"
    )
    cache_edit: int = Field(50_000, ge=0, description="edits kept on the device, per picture size")
    cache_fill: float = Field(0.15, gt=0, le=1, description="share of the cache that is made before training")
    refresh_every_steps: int = Field(2, gt=0, description="updates between two fresh chunks")
    cache_chunk: int = Field(128, gt=0, description="samples of one kind and size drawn and encoded at once")
    text_tokens: int = Field(
        56, multiple_of=8, description="prompts of text→image samples are at most this long"
    )
    edit_tokens: int = Field(96, multiple_of=8, description="prompts of edits, picture included")
    prompt_dropout: float = 0.1
    save_every_minutes: float = Field(
        2.0, gt=0, description="how often the averaged weights and the state are written"
    )
    noise_shift: float = 2.0
    label_weight: float = Field(0.1, ge=0, description="of the loss on what each token shows, at the start")
    bridge: BridgeShape = BridgeShape()
    transformer: DitShape = DitShape()


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
        conditioner: Conditioner,
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
        sources = rows.get("sources")
        tokens = self.dit.embed(noisy)
        count = tokens.shape[1]
        if sources is not None:
            tokens = torch.cat((tokens, self.dit.embed(sources.float())), dim=1)
        lengths = torch.full((len(clean),), tokens.shape[1], device=clean.device)
        # every picture size is filled to the square's, the largest: one shape a kind for the compiler
        tokens = F.pad(tokens, (0, 0, 0, MOST_TOKENS * (1 if sources is None else 2) - tokens.shape[1]))
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


def choose_batches(
    stream: Stream, config: DiffusionConfig, rng: random.Random
) -> Iterator[tuple[ShelfKey, int]]:
    """Endless (shelf, batch size): edits by `edit_share`, picture sizes by their number of samples."""
    while True:
        kind = "edit" if rng.random() < config.edit_share else "text"
        keys = [key for key in stream.shelves if key[0] == kind]
        key = rng.choices(keys, [len(stream.shelves[k]) for k in keys])[0]
        yield key, config.edit_batch_size if kind == "edit" else config.batch_size


def blank_prompts(tokenizer: PreTrainedTokenizerFast, device: torch.device) -> dict[ShelfKey, Tensor]:
    """Ids of the templates around an empty text, by kind and picture size."""
    blanks: dict[ShelfKey, Tensor] = {}
    for width, height in (SQUARE, *OBLONG):
        prompts = {"text": text_to_image_prompt(""), "edit": edit_prompt("", [height * width // 1024])}
        for kind, prompt in prompts.items():
            blanks[kind, height, width] = torch.tensor(tokenize(tokenizer, prompt), device=device)
    return blanks


def build_modules(config: DiffusionConfig, vlm_width: int) -> tuple[Bridge, DiT]:
    if config.init_from is not None:
        trained = Bridge.from_pretrained(config.init_from / "connector", torch_dtype=torch.float32)
        return trained, DiT.from_pretrained(config.init_from / "transformer", torch_dtype=torch.float32)
    shape = config.transformer
    bridge = Bridge(
        vlm_hidden_size=vlm_width,
        context_dim=shape.joint_attention_dim,
        pooled_dim=shape.pooled_projection_dim,
        **config.bridge.model_dump(),
    )
    return bridge, DiT(**shape.model_dump())


def start_stream(
    config: DiffusionConfig, vlm: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> Stream:
    """The stream of samples, filled so far that training can start."""
    device = torch.device(config.device)
    vae = AutoencoderKL.from_pretrained(config.vae, torch_dtype=torch.float32).to(device).eval()
    if vae.config.latents_mean is None:
        raise ConfigError(
            f"{config.vae} has no latents_mean: train it with `deepgen train train/nano_vae` first"
        )
    lengths = {"text": config.text_tokens, "edit": config.edit_tokens}
    maker = PairMaker(tokenizer, config.edit_share, config.cache_chunk, lengths)
    feed = start_feed(maker, config.sprites, config.loop.seed, config.workers)
    encoder = Encoder(vae.to(memory_format=torch.channels_last), vlm.model.visual, device)
    capacity = {"text": config.cache_text, "edit": config.cache_edit}
    stream = Stream(feed, encoder, load_sprites(config.sprites), capacity)
    stream.fill(config.cache_fill)
    return stream


def train_diffusion(config: DiffusionConfig) -> None:
    """Runs the stage; writes `connector/` and `transformer/` (averaged weights) and `state.pt` into `output_dir`."""
    began = time.monotonic()
    torch.manual_seed(config.loop.seed)
    device = torch.device(config.device)
    tokenizer = AutoTokenizer.from_pretrained(config.vlm)
    vlm = (
        Qwen2_5_VLForConditionalGeneration.from_pretrained(config.vlm, dtype=torch.float32).to(device).eval()
    )
    vlm.requires_grad_(False)
    stream = start_stream(config, vlm, tokenizer)
    bridge, dit = build_modules(config, vlm.config.text_config.hidden_size)
    labeller = nn.Linear(config.transformer.caption_projection_dim, 1 + len(CONCEPTS))
    trained = nn.ModuleList([bridge.to(device), dit.to(device), labeller.to(device)])
    sizes = [sum(p.numel() for p in module.parameters()) / 1e6 for module in trained]
    log.info("bridge %.2f M, transformer %.2f M, labels %.2f M parameters", *sizes)
    ema = Ema(trained, config.loop.ema_decay)
    run = Run(config, bridge, dit, labeller, make_hybrid(bridge, dit, labeller, config.loop), ema)
    progress = run.resume(began)
    conditioner = Conditioner(
        FusedVLM(vlm.model, tokenizer, config.bridge.num_fused_layers), bridge, config.compile
    )
    if config.compile:
        for block in dit.transformer_blocks:
            block.compile(dynamic=False)
    trainer = Trainer(config, conditioner, dit, labeller, blank_prompts(tokenizer, device))
    metrics = Metrics(config.output_dir)
    chosen = choose_batches(stream, config, random.Random(f"{config.loop.seed}/{progress.step}"))
    sums: dict[str, list[Tensor]] = defaultdict(list)
    next_save = progress.elapsed + 60 * config.save_every_minutes
    for step in progress.updates("bridge and transformer"):
        key, size = next(chosen)
        shelf = stream.shelves[key]
        rows = shelf.take(torch.randint(len(shelf), (size,), device=device))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            velocity, labels = trainer.losses(key, rows)
            loss = velocity + config.label_weight * (1 - progress.fraction) * labels
        loss.backward()
        if step % config.refresh_every_steps == 0:
            stream.add()  # while the device works on the gradients
        norm = apply_update(run.optimizer, progress)
        run.ema.update()
        sums[f"loss_{key[0]}"].append(velocity.detach())
        sums["labels"].append(labels.detach())
        if step % config.loop.log_every_steps == 0:
            losses = {name: torch.stack(values).mean().item() for name, values in sums.items()}
            rate, seconds = progress.learning_rate(), progress.elapsed
            metrics.write(
                stage="diffusion", step=step, seconds=seconds, rate=rate, norm=norm.item(), **losses
            )
            sums.clear()
        if progress.elapsed > next_save:
            run.save(progress)
            next_save = progress.elapsed + 60 * config.save_every_minutes
    run.save(progress)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        metrics.write(peak_gib=peak, device=torch.cuda.get_device_name())


def make_hybrid(bridge: Bridge, dit: DiT, labeller: nn.Linear, config: LoopConfig) -> MuonAdamW:
    """Muon for the matrices of bridge layers and transformer blocks; AdamW for the modulation, which starts at zero,
    for embeddings, heads, biases and norms. Weight decay on parameters of two or more dimensions."""
    blocks = [m for b in dit.transformer_blocks for m in b.children() if not isinstance(m, AdaptiveNorm)]
    matrices = hidden_matrices([*blocks, *bridge.connector.layers])
    taken = {id(p) for p in matrices}
    rest = [p for m in (bridge, dit, labeller) for p in m.parameters() if id(p) not in taken]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "muon": True},
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    return MuonAdamW(groups, lr=config.learning_rate, betas=config.betas, fused=rest[0].is_cuda)


@dataclass
class Run:
    """What a continued run needs: the trained modules, their optimizer and averages."""

    config: DiffusionConfig
    bridge: Bridge
    dit: DiT
    labeller: nn.Linear
    optimizer: torch.optim.Optimizer
    ema: Ema

    def save(self, progress: Progress) -> None:
        """Writes the averaged weights as `connector/` and `transformer/`, and `state.pt` to go on from."""
        folder = self.config.output_dir
        save_state(
            folder / "state.pt",
            bridge=self.bridge.state_dict(),
            dit=self.dit.state_dict(),
            labeller=self.labeller.state_dict(),
            optimizer=self.optimizer.state_dict(),
            ema=self.ema.state_dict(),
            step=progress.step,
            elapsed=progress.elapsed,
        )
        self.ema.swap()
        self.bridge.save_pretrained(folder / "connector")
        self.dit.save_pretrained(folder / "transformer")
        self.ema.swap()

    def resume(self, began: float) -> Progress:
        """Goes on from `output_dir/state.pt` where there is one. Time since `began` (the cache) counts as run time."""
        preparation = time.monotonic() - began
        path = self.config.output_dir / "state.pt"
        if not path.exists():
            return Progress(self.config.loop, elapsed=preparation)
        state = load_state(path, torch.device(self.config.device))
        self.bridge.load_state_dict(state["bridge"])
        self.dit.load_state_dict(state["dit"])
        self.labeller.load_state_dict(state["labeller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load_state_dict(state["ema"])
        log.info("continuing at update %d, %.0f s", state["step"], state["elapsed"])
        return Progress(self.config.loop, state["step"], state["elapsed"] + preparation)
