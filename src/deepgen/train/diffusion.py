"""Trains nano's bridge, think tokens and diffusion transformer together on a frozen VLM and VAE.

Velocity matching (the published objective, paper section 2) with three changes for a small model on drawn
pictures: noise levels are logit-normal, shifted; tokens of objects weigh more; samples come from a cache of latents.
"""

import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from deepgen.config import Config
from deepgen.errors import ConfigError
from deepgen.model.bridge import Bridge
from deepgen.model.dit import DiT
from deepgen.model.prompts import Prompt, edit_prompt, text_to_image_prompt, tokenize
from deepgen.train.cache import Encoder, PairMaker, Shelf, ShelfKey, build_cache
from deepgen.train.loop import (
    Ema,
    LoopConfig,
    Metrics,
    Progress,
    apply_update,
    load_state,
    make_optimizer,
    save_state,
)
from deepgen.train.vlm import one_picture_positions

log = logging.getLogger("deepgen.train")


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


class DiffusionConfig(Config):
    """`deepgen train nano_diffusion`."""

    stage: str = "diffusion"
    output_dir: Path
    vlm: Path
    vae: Path
    init_from: Path | None = Field(None, description="folder with connector/ and transformer/ to start from")
    sprites: Path | None = None
    device: str = "cpu"
    workers: int = Field(2, ge=0)
    compile: bool = False
    loop: LoopConfig
    batch_size: int = Field(512, gt=0)
    edit_batch_size: int = Field(384, gt=0)
    edit_share: float = Field(0.25, ge=0, le=1, description="share of the updates that are edits")
    cache_text: int = Field(360_000, ge=0)
    cache_edit: int = Field(110_000, ge=0)
    cache_file: Path | None = Field(
        None, description="keep the cache here and take it from here if it exists"
    )
    cache_chunk: int = Field(
        256, gt=0, description="samples of one kind and size that are drawn and encoded at once"
    )
    max_prompt_tokens: int = 72
    prompt_dropout: float = 0.1
    save_every_minutes: float = Field(
        2.0, gt=0, description="how often the averaged weights and the state are written"
    )
    noise_shift: float = 2.0
    bridge: BridgeShape = BridgeShape()
    transformer: DitShape = DitShape()


@dataclass
class PromptBatch:
    """A batch of prompts on the device: `ids` [B, L], `lengths` [B]; `vision` [B, n, D] of a grid of `rows` rows."""

    ids: Tensor
    lengths: Tensor
    vision: Tensor | None = None
    rows: int = 0


class Conditioner(nn.Module):
    """Frozen VLM plus trained bridge: prompts → context, its lengths and the pooled vector, in a static shape."""

    def __init__(self, vlm: Qwen2_5_VLForConditionalGeneration, bridge: Bridge, compiled: bool) -> None:
        super().__init__()
        self.text = vlm.model.language_model
        self.image_id = vlm.config.image_token_id
        self.bridge = bridge
        depth, count = self.text.config.num_hidden_layers, bridge.config.num_fused_layers
        self.fused = list(range(depth - 1, 0, -(depth // count)))[:count]
        if compiled:
            for layer in self.text.layers:
                layer.compile()
            bridge.compile()

    def forward(self, prompts: PromptBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Returns context [B, L+Q, Dc], lengths [B], pooled [B, Dp]. Rows are right-filled (causality keeps it out)."""
        embeds, positions = self.embed(prompts)
        hidden = embeds
        rotary = self.text.rotary_emb(hidden, positions)
        states = {0: hidden}
        for index, layer in enumerate(self.text.layers[: max(self.fused)], start=1):
            hidden = layer(hidden, attention_mask=None, position_embeddings=rotary)
            states[index] = hidden
        lengths = prompts.lengths + self.bridge.config.num_queries
        context, pooled = self.bridge(torch.cat([states[i] for i in self.fused], dim=-1), lengths)
        return context, lengths, pooled

    def embed(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Token embeddings with pictures in place and the think tokens behind each prompt [B, L+Q, D]; positions."""
        batch, length = prompts.ids.shape
        queries = self.bridge.meta_queries
        embeds = self.text.embed_tokens(F.pad(prompts.ids, (0, len(queries))))
        total = embeds.shape[1]
        index = torch.arange(total, device=embeds.device)
        behind = index[None] - prompts.lengths[:, None]
        thinking = (behind >= 0) & (behind < len(queries))
        embeds = torch.where(thinking[..., None], queries[behind.clamp(0, len(queries) - 1)], embeds)
        if prompts.vision is None:
            return embeds, index.expand(3, batch, -1)
        tokens = prompts.vision.shape[1]
        start = int((prompts.ids[0] == self.image_id).int().argmax())
        embeds = torch.cat(
            (embeds[:, :start], prompts.vision.to(embeds.dtype), embeds[:, start + tokens :]), dim=1
        )
        positions = one_picture_positions(total, start, prompts.rows, tokens // prompts.rows).to(
            embeds.device
        )
        return embeds, positions[:, None].expand(3, batch, -1)


def drop_prompts(ids: Tensor, lengths: Tensor, empty: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Replaces a random `share` of the rows by the template around an empty text (`empty`, its ids)."""
    dropped = torch.rand(len(ids), device=ids.device) < share
    blank = F.pad(empty, (0, ids.shape[1] - len(empty)))
    return torch.where(dropped[:, None], blank, ids), torch.where(dropped, len(empty), lengths)


def noise_levels(count: int, shift: float, device: torch.device) -> Tensor:
    """Logit-normal noise levels in (0, 1), moved towards noise by `shift` (SD3 paper, section 3.1)."""
    u = torch.randn(count, device=device).sigmoid()
    return shift * u / (1 + (shift - 1) * u)


def patchify(latents: Tensor, patch: int) -> Tensor:
    """[B, C, h, w] → [B, hw/p², p·p·C], features in the order (row, column, channel) of the transformer's output."""
    batch, channels, height, width = latents.shape
    tiles = latents.view(batch, channels, height // patch, patch, width // patch, patch)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


class Trainer:
    """One update of bridge and transformer from a shelf's rows."""

    def __init__(
        self, config: DiffusionConfig, conditioner: Conditioner, dit: DiT, blanks: dict[str, Tensor]
    ) -> None:
        self.config, self.conditioner, self.dit, self.blanks = config, conditioner, dit, blanks
        self.device = torch.device(config.device)

    def tokens(self, latents: Tensor, sources: Tensor | None, padded: int) -> Tensor:
        """Picture tokens, target then source, filled to a length that all picture sizes share."""
        embedded = self.dit.embed(latents)
        if sources is not None:
            embedded = torch.cat((embedded, self.dit.embed(sources)), dim=1)
        return F.pad(embedded, (0, 0, 0, padded - embedded.shape[1]))

    def loss(self, key: ShelfKey, shelf: Shelf, rows: Tensor) -> Tensor:
        kind, height, _ = key
        ids, lengths = drop_prompts(
            shelf.ids[rows].long(), shelf.lengths[rows], self.blanks_for(key), self.config.prompt_dropout
        )
        vision = shelf.vision[rows] if shelf.vision is not None else None
        context, context_lengths, pooled = self.conditioner(PromptBatch(ids, lengths, vision, height // 32))
        clean = shelf.latents[rows].float()
        noise = torch.randn_like(clean)
        sigma = noise_levels(len(rows), self.config.noise_shift, self.device)
        noisy = torch.lerp(clean, noise, sigma[:, None, None, None])
        count = clean.shape[2] * clean.shape[3] // 4
        sources = shelf.sources[rows].float() if shelf.sources is not None else None
        pictures = 2 if kind == "edit" else 1
        tokens = self.tokens(noisy, sources, 256 * pictures)
        picture_lengths = torch.full((len(rows),), count * pictures, device=self.device)
        output = self.dit.forward_tokens(
            tokens, 1000 * sigma, context, pooled, picture_lengths, context_lengths
        )
        error = (output[:, :count].float() - patchify(noise - clean, 2)).square().mean(-1)
        weights = shelf.weights[rows].float()
        return (error * weights).sum() / weights.sum()

    def blanks_for(self, key: ShelfKey) -> Tensor:
        kind, height, width = key
        return self.blanks[kind if kind == "text" else f"edit{height}x{width}"]


def choose_batches(
    shelves: dict[ShelfKey, Shelf], config: DiffusionConfig, rng: random.Random
) -> Iterator[tuple[ShelfKey, int]]:
    """Endless (shelf, batch size): edits by `edit_share`, sizes by their number of samples."""
    by_kind = {kind: [key for key in shelves if key[0] == kind] for kind in ("text", "edit")}
    while True:
        kind = "edit" if by_kind["edit"] and rng.random() < config.edit_share else "text"
        keys = by_kind[kind]
        key = rng.choices(keys, [len(shelves[k]) for k in keys])[0]
        size = config.edit_batch_size if kind == "edit" else config.batch_size
        yield key, min(size, len(shelves[key]))


def blank_prompts(tokenizer: Any, shelves: dict[ShelfKey, Shelf], device: torch.device) -> dict[str, Tensor]:
    """Ids of the templates around an empty text, per kind (and picture size for edits)."""

    def ids(prompt: Prompt) -> Tensor:
        return torch.tensor(tokenize(tokenizer, prompt), device=device)

    blanks = {"text": ids(text_to_image_prompt(""))}
    for kind, height, width in shelves:
        if kind == "edit":
            blanks[f"edit{height}x{width}"] = ids(edit_prompt("", [height * width // 1024]))
    return blanks


def build_modules(config: DiffusionConfig, vlm_width: int) -> tuple[Bridge, DiT]:
    shape = config.transformer
    bridge = Bridge(
        vlm_hidden_size=vlm_width,
        context_dim=shape.joint_attention_dim,
        pooled_dim=shape.pooled_projection_dim,
        **config.bridge.model_dump(),
    )
    dit = DiT(**shape.model_dump())
    if config.init_from is not None:
        return Bridge.from_pretrained(config.init_from / "connector"), DiT.from_pretrained(
            config.init_from / "transformer"
        )
    return bridge, dit


def load_cache(
    config: DiffusionConfig, vlm: Qwen2_5_VLForConditionalGeneration, tokenizer: Any
) -> dict[ShelfKey, Shelf]:
    """The cache from `cache_file` where it exists, else drawn and encoded now (and kept there)."""
    device = torch.device(config.device)
    path = config.cache_file
    if path is not None and path.exists():
        saved = torch.load(path, map_location=device, weights_only=True)
        return {tuple(key): Shelf(**tensors) for key, tensors in saved}
    from diffusers import AutoencoderKL

    vae = (
        AutoencoderKL.from_pretrained(config.vae, torch_dtype=torch.float32)
        .to(device, memory_format=torch.channels_last)
        .eval()
    )
    if vae.config.latents_mean is None:
        raise ConfigError(
            f"{config.vae} has no latents_mean: train the VAE with deepgen train nano_vae first"
        )
    encoder = Encoder(vae, vlm.model.visual, device)
    counts = {"text": config.cache_text, "edit": config.cache_edit}
    share = config.cache_edit / max(1, config.cache_text + config.cache_edit)
    maker = PairMaker(tokenizer, share, config.cache_chunk, config.max_prompt_tokens)
    shelves = build_cache(maker, encoder, config.sprites, counts, config.loop.seed, config.workers)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save([(key, vars(shelf)) for key, shelf in shelves.items()], path)
    return shelves


def train_diffusion(config: DiffusionConfig) -> None:
    """Runs the stage; writes `connector/` and `transformer/` (EMA weights) and `state.pt` into `output_dir`."""
    began = time.monotonic()
    torch.manual_seed(config.loop.seed)
    device = torch.device(config.device)
    tokenizer = AutoTokenizer.from_pretrained(config.vlm)
    vlm = (
        Qwen2_5_VLForConditionalGeneration.from_pretrained(config.vlm, dtype=torch.float32).to(device).eval()
    )
    vlm.requires_grad_(False)
    shelves = load_cache(config, vlm, tokenizer)
    bridge, dit = build_modules(config, vlm.config.text_config.hidden_size)
    bridge, dit = bridge.to(device, torch.float32), dit.to(device, torch.float32)
    trained = nn.ModuleList([bridge, dit])
    log.info(
        "bridge %.2f M, transformer %.2f M parameters",
        *(sum(p.numel() for p in m.parameters()) / 1e6 for m in trained),
    )
    optimizer = make_optimizer(trained, config.loop)
    ema = Ema(trained, config.loop.ema_decay)
    progress = resume(config, trained, optimizer, ema, began)
    conditioner = Conditioner(vlm, bridge, config.compile)
    if config.compile:
        torch._dynamo.config.cache_size_limit = 64
        for block in dit.transformer_blocks:
            block.compile()
    trainer = Trainer(config, conditioner, dit, blank_prompts(tokenizer, shelves, device))
    metrics = Metrics(config.output_dir)
    chosen = choose_batches(shelves, config, random.Random(f"{config.loop.seed}/{progress.step}"))
    sums: dict[str, list[Tensor]] = {"text": [], "edit": []}
    next_save = progress.elapsed + 60 * config.save_every_minutes
    for step in progress.updates("bridge and transformer"):
        key, size = next(chosen)
        rows = torch.randint(len(shelves[key]), (size,), device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = trainer.loss(key, shelves[key], rows)
        norm = apply_update(loss, optimizer, progress)
        ema.update()
        sums[key[0]].append(loss.detach())
        if step % config.loop.log_every_steps == 0:
            losses = {
                f"loss_{kind}": torch.stack(values).mean().item() for kind, values in sums.items() if values
            }
            metrics.write(
                stage="diffusion",
                step=step,
                seconds=progress.elapsed,
                rate=progress.learning_rate(),
                norm=norm.item(),
                **losses,
            )
            sums = {"text": [], "edit": []}
        if progress.elapsed > next_save:
            save(config, trained, optimizer, ema, progress)
            next_save = progress.elapsed + 60 * config.save_every_minutes
    save(config, trained, optimizer, ema, progress)
    if device.type == "cuda":
        metrics.write(peak_gib=torch.cuda.max_memory_allocated() / 2**30, device=torch.cuda.get_device_name())


def save(
    config: DiffusionConfig,
    trained: nn.ModuleList,
    optimizer: torch.optim.Optimizer,
    ema: Ema,
    progress: Progress,
) -> None:
    """Writes the averaged weights as `connector/` and `transformer/`, and what a continued run needs as `state.pt`."""
    save_state(
        config.output_dir / "state.pt",
        model=trained.state_dict(),
        optimizer=optimizer.state_dict(),
        ema=ema.state_dict(),
        step=progress.step,
        elapsed=progress.elapsed,
    )
    ema.swap()
    for module, name in zip(trained, ("connector", "transformer"), strict=True):
        module.save_pretrained(config.output_dir / name)
    ema.swap()


def resume(
    config: DiffusionConfig, trained: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema, began: float
) -> Progress:
    """Continues from `output_dir/state.pt` where there is one. The time since `began` (the cache) counts as run time."""
    preparation = time.monotonic() - began
    path = config.output_dir / "state.pt"
    if not path.exists():
        return Progress(config.loop, elapsed=preparation)
    state = load_state(path, torch.device(config.device))
    trained.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    ema.load_state_dict(state["ema"])
    log.info("continuing at update %d, %.0f s", state["step"], state["elapsed"])
    return Progress(config.loop, state["step"], state["elapsed"] + preparation)
