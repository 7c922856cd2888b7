"""Nano's diffusion stage apart from its losses: its settings, its optimizer, and what it leaves on disk."""

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from deepgen.config import Config
from deepgen.model.deepgen import DeepGenModel
from deepgen.model.dit_blocks import AdaptiveNorm
from deepgen.train.cache import Emphasis, Lengths
from deepgen.train.captions import CaptionReader
from deepgen.train.export import gather, merge
from deepgen.train.loop import Ema, LoopConfig, Progress, StageConfig, load_state, save_state
from deepgen.train.muon import MuonAdamW, hidden_matrices
from deepgen.train.parallel import Ranks
from deepgen.train.trainable import TrainableConfig

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


class DiffusionConfig(StageConfig):
    """`deepgen train train/nano_base`, `nano_align`, `nano_sft`."""

    stage: str = "diffusion"
    vlm: Path
    vae: Path
    reader: Literal["vlm", "captions"] = Field(
        "vlm", description="who reads prompts: VLM and bridge, or the base stage's throw-away encoder"
    )
    trainable: TrainableConfig = TrainableConfig(dit="full")
    init_from: Path | None = Field(
        None, description="folder to start from: what it holds of transformer/, connector/ and reader/"
    )
    compile: bool = False
    batch_size: int = Field(512, gt=0)
    edit_batch_size: int = Field(384, gt=0)
    edit_share: float = Field(0.25, ge=0, le=1, description="share of the updates that are edits")
    insert_batch_size: int = Field(192, gt=0)
    insert_share: float = Field(
        0.06, ge=0, le=1, description="share of the updates that put the object of one picture into another"
    )
    cache_text: int = Field(
        160_000, ge=0, description="text→image samples kept on the device, per picture size"
    )
    cache_edit: int = Field(50_000, ge=0, description="edits kept on the device, per picture size")
    cache_insert: int = Field(12_000, ge=0, description="inserts kept on the device, per picture size")
    cache_fill: float = Field(0.15, gt=0, le=1, description="share of the cache that is made before training")
    refresh_every_steps: int = Field(2, gt=0, description="updates between two fresh chunks")
    cache_chunk: int = Field(128, gt=0, description="samples of one kind and size drawn and encoded at once")
    text_tokens: int = Field(
        56, multiple_of=8, description="prompts of text→image samples are at most this long"
    )
    edit_tokens: int = Field(96, multiple_of=8, description="prompts of edits, picture included")
    insert_tokens: int = Field(176, multiple_of=8, description="prompts of inserts, two pictures included")
    prompt_dropout: float = 0.1
    emphasis: Emphasis | None = Field(None, description="for going on in a larger world")
    save_every_minutes: float = Field(
        2.0, gt=0, description="how often the averaged weights and the state are written"
    )
    noise_shift: float = 2.0
    label_weight: float = Field(0.1, ge=0, description="of the loss on what each token shows, at the start")
    bridge: BridgeShape = BridgeShape()
    transformer: DitShape = DitShape()

    @property
    def shares(self) -> dict[str, float]:
        """How often an update is of each kind of samples; kinds that never come are left out."""
        text = round(1 - self.edit_share - self.insert_share, 9)
        shares = {"text": text, "edit": self.edit_share, "insert": self.insert_share}
        return {kind: share for kind, share in shares.items() if share > 0}

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Samples of an update, by kind."""
        return {
            "text": self.batch_size,
            "edit": self.edit_batch_size,
            "insert": self.insert_batch_size,
        }

    @property
    def lengths(self) -> Lengths:
        """Tokens of a prompt, by kind."""
        return {"text": self.text_tokens, "edit": self.edit_tokens, "insert": self.insert_tokens}

    @property
    def capacities(self) -> dict[str, int]:
        """Samples kept on the device for each picture size, by kind."""
        rooms = {"text": self.cache_text, "edit": self.cache_edit, "insert": self.cache_insert}
        return {kind: rooms[kind] for kind in self.shares}

    @model_validator(mode="after")
    def _shares_leave_room(self) -> Self:
        if self.edit_share + self.insert_share > 1:
            raise ValueError(f"edit_share {self.edit_share} and insert_share {self.insert_share} exceed 1")
        return self

    @model_validator(mode="after")
    def _base_trains_the_transformer_alone(self) -> Self:
        chosen = self.trainable
        if self.reader == "captions" and {chosen.bridge, chosen.think_tokens, chosen.vlm} != {"frozen"}:
            raise ValueError(
                "reader=captions trains the transformer alone: freeze bridge, think_tokens and vlm"
            )
        return self


def make_hybrid(modules: Sequence[nn.Module], blocks: Iterable[nn.Module], config: LoopConfig) -> MuonAdamW:
    """Muon for the matrices of `blocks`; AdamW for all else that `modules` train: the modulation, which starts at zero,
    embeddings, heads, adapters, biases and norms. Weight decay on parameters of two or more dimensions."""
    matrices = hidden_matrices(blocks)
    taken = {id(p) for p in matrices}
    trained = {id(p): p for m in modules for p in m.parameters() if p.requires_grad}
    rest = [p for name, p in trained.items() if name not in taken]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "muon": True},
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return MuonAdamW(groups, lr=config.learning_rate, betas=config.betas, fused=rest[0].is_cuda)


class Run:
    """What a continued run needs: the trained parameters, their optimizer and averages.

    Args:
        config: of the stage.
        model: whole, with `requires_grad` set.
        vlm: that `model.vlm` is part of.
        labeller: of tokens; trained with the transformer.
        reader: of the base stage.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        model: DeepGenModel,
        vlm: Qwen2_5_VLForConditionalGeneration,
        labeller: nn.Linear,
        reader: CaptionReader | None,
    ) -> None:
        self.config, self.model, self.vlm, self.reader = config, model, vlm, reader
        labeller.requires_grad_(config.trainable.dit != "frozen")
        modules: list[nn.Module] = [model, labeller, *([reader] if reader else [])]
        blocks = [
            m for b in model.dit.transformer_blocks for m in b.children() if not isinstance(m, AdaptiveNorm)
        ]
        blocks += [*model.bridge.connector.layers, *(reader.layers if reader else [])]
        self.optimizer = make_hybrid(modules, blocks, config.loop)
        self.trained = nn.ParameterList([p for m in modules for p in m.parameters() if p.requires_grad])
        self.ema = Ema(self.trained, config.loop.ema_decay)

    def save(self, progress: Progress) -> None:
        """Writes the averaged weights, a folder a tower (the VLM's adapters merged), and `state.pt` to go on from."""
        folder = self.config.output_dir
        save_state(
            folder / "state.pt",
            trained=[p.detach() for p in self.trained],
            optimizer=self.optimizer.state_dict(),
            ema=self.ema.state_dict(),
            step=progress.step,
            elapsed=progress.elapsed,
        )
        self.ema.swap()
        self.model.dit.save_pretrained(folder / "transformer")
        if self.reader is not None:
            self.reader.save_pretrained(folder / "reader")
        else:
            self.model.bridge.save_pretrained(folder / "connector")
        if self.config.trainable.vlm != "frozen":
            self.save_vlm(folder / "vlm")
        self.ema.swap()

    def save_vlm(self, folder: Path) -> None:
        """The VLM with its adapters merged, and its tokenizer."""
        weights, factors = gather(self.vlm, Ranks(0, 1, 0, torch.device("cpu")))
        lora = self.config.trainable.lora
        whole = Qwen2_5_VLForConditionalGeneration(self.vlm.config)
        whole.load_state_dict(merge(weights, factors, lora.alpha / lora.rank))
        whole.save_pretrained(folder)
        self.model.vlm.tokenizer.save_pretrained(folder)

    def resume(self, began: float) -> Progress:
        """Goes on from `output_dir/state.pt` where there is one. Time since `began` (the cache) counts as run time."""
        preparation = time.monotonic() - began
        path = self.config.output_dir / "state.pt"
        if not path.exists():
            return Progress(self.config.loop, elapsed=preparation)
        state = load_state(path, torch.device(self.config.device))
        with torch.no_grad():
            for mine, saved in zip(self.trained, state["trained"], strict=True):
                mine.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load_state_dict(state["ema"])
        log.info("continuing at update %d, %.0f s", state["step"], state["elapsed"])
        return Progress(self.config.loop, state["step"], state["elapsed"] + preparation)
