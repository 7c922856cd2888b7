"""Floating-point operations that a training step needs, from the networks' layers and the lengths of sequences.

Counted are matrix products (2·m·n·k) of linear layers, attention and the VAE's convolutions, once: what activation
checkpointing computes again is not counted, nor is filler. A layer costs 1 forward, as much again for the gradient of
its input where one is wanted behind it, and again for its weights where they are trained.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deepgen.data.batch import TrainBatch
from deepgen.model.deepgen import DeepGenModel, build_prompt

PER_SAMPLE = ("norm1", "norm1_context", "norm_out", "time_text_embed")
CONTEXT = ("ff_context", "context_embedder", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


@dataclass(frozen=True)
class Lengths:
    """Of one sample: VLM tokens (think tokens included), think tokens, picture tokens in the transformer, context
    tokens, and the sizes (H, W) of target and references in pixels."""

    vlm: int
    think: int
    pictures: int
    context: int
    sizes: tuple[tuple[int, int], ...]


class FlopCounter:
    """Operations of training steps of one model, whose trained parameters and adapters are in place.

    Args:
        model: before or after sharding.
    """

    def __init__(self, model: DeepGenModel) -> None:
        self.model = model
        self.vae_cost: dict[tuple[str | int, ...], float] = {}
        text = model.vlm.model.language_model
        self.language = _Layers.of(text, lambda name: _layer_number(name) < max(model.vlm.indices))
        self.vision = _Layers.of(model.vlm.model.visual)
        self.bridge = _Layers.of(model.bridge)
        dit = dict(_linears(model.dit))
        self.per_sample = _Layers.of(model.dit, lambda name: _has(name, PER_SAMPLE))
        self.context = _Layers.of(model.dit, lambda name: _has(name, CONTEXT))
        self.pictures = _Layers.of(
            model.dit, lambda name: name in dit and not _has(name, PER_SAMPLE) and not _has(name, CONTEXT)
        )

    def batch(self, batch: TrainBatch) -> float:
        """Operations of forward and backward passes of one batch."""
        return sum(self.sample(x) for x in lengths_of(self.model, batch))

    def sample(self, x: Lengths) -> float:
        """Operations of one sample."""
        return sum(self._encoding(size) for size in x.sizes) + self.reading(x) + self.transformer(x)

    def reading(self, x: Lengths, gradient: bool = True) -> float:
        """Operations of the VLM and the bridge for one prompt; without `gradient` of the forward pass alone."""
        model = self.model
        text = model.vlm.model.language_model.config
        # Where nothing in the VLM is trained, only the think tokens' rows carry a gradient.
        thinking = (x.vlm if self.language.trained else x.think) if gradient else 0
        total = self.language.cost(x.vlm, thinking, gradient)
        heads = text.num_attention_heads * (text.hidden_size // text.num_attention_heads)
        depth = max(model.vlm.indices)
        # Causal: half the square. Backward costs twice the forward pass.
        total += depth * 2 * heads * x.vlm * (x.vlm + 2 * thinking)
        bridge = model.bridge.config
        total += self.bridge.cost(x.vlm, x.vlm if gradient else 0, gradient)
        total += bridge.num_layers * (12 if gradient else 4) * bridge.hidden_size * x.vlm**2
        for height, width in x.sizes[1:]:
            patches = (
                (height // 32) * (width // 32) * model.vlm.model.config.vision_config.spatial_merge_size**2
            )
            total += self.vision.cost(patches, patches if gradient and self.vision.trained else 0, gradient)
        return total

    def transformer(self, x: Lengths, gradient: bool = True) -> float:
        """Operations of one pass of the transformer; without `gradient` of the forward pass alone."""
        config = self.model.dit.config
        back = gradient and bool(self.pictures.trained or self.bridge.trained or self.language.trained)
        total = self.pictures.cost(x.pictures, x.pictures if back else 0, back)
        total += self.context.cost(x.context, x.context if back else 0, back)
        total += self.per_sample.cost(1, 1 if gradient else 0, gradient)
        width = config.num_attention_heads * config.attention_head_dim
        dual = len(config.dual_attention_layers)
        squares = config.num_layers * (x.pictures + x.context) ** 2 + dual * x.pictures**2
        return total + (12 if back else 4) * width * squares

    def decoding(self, size: tuple[int, int]) -> float:
        """Operations of the VAE's decoder for a picture of (H, W) pixels."""
        scale, channels = self.model.latent_scale, self.model.vae.config.latent_channels
        return self._vae_cost("decode", (1, channels, size[0] // scale, size[1] // scale))

    def _encoding(self, size: tuple[int, int]) -> float:
        return self._vae_cost("encode", (1, 3, *size))

    def _vae_cost(self, method: str, shape: tuple[int, ...]) -> float:
        key: tuple[str | int, ...] = (method, *shape)
        if key not in self.vae_cost:
            # A new one, because ours may be compiled, and bound to its device so.
            with torch.device("meta"):
                vae = AutoencoderKL.from_config(self.model.vae.config)
            given = torch.zeros(shape, device="meta")
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                getattr(vae, method)(given)
            self.vae_cost[key] = float(counter.get_total_flops())
        return self.vae_cost[key]


@dataclass(frozen=True)
class _Layers:
    """Elements of linear weights, in all and trained."""

    elements: int
    trained: int

    @staticmethod
    def of(network: nn.Module, wanted: Callable[[str], bool] = lambda name: True) -> "_Layers":
        weights = [layer.weight for name, layer in _linears(network) if wanted(name)]
        return _Layers(sum(w.numel() for w in weights), sum(w.numel() for w in weights if w.requires_grad))

    def cost(self, tokens: int, with_gradient: int, training: bool) -> float:
        """Of `tokens` forward, of which `with_gradient` pass a gradient on to what comes before; `training`: the
        trained weights have theirs."""
        weights = tokens if training and self.trained else 0
        return 2.0 * (self.elements * (tokens + with_gradient) + self.trained * weights)


def _linears(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)]


def _has(name: str, parts: Sequence[str]) -> bool:
    return any(part in parts for part in name.split("."))


def _layer_number(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "layers" else 0


def lengths_of(model: DeepGenModel, batch: TrainBatch) -> list[Lengths]:
    """Lengths of each sample of a batch."""
    side = model.latent_scale * model.dit.config.patch_size
    think = model.bridge.config.num_queries
    found = []
    for text, target, references in zip(batch.prompts, batch.targets, batch.references, strict=True):
        tokens = len(model.vlm.tokenize(build_prompt(text, references))) + think
        sizes = tuple((int(p.shape[-2]), int(p.shape[-1])) for p in [target, *references])
        pictures = sum((h // side) * (w // side) for h, w in sizes)
        found.append(Lengths(tokens, think, pictures, tokens, sizes))
    return found


def matmul_rate(device: torch.device, dtype: torch.dtype = torch.bfloat16, size: int = 8192) -> float:
    """FLOP/s of a square matrix product on a device, the best of a few: what MFU is a share of."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(5):
        best = max(best, _timed(a, b))
    return best


def _timed(a: Tensor, b: Tensor) -> float:
    repeats = 10 if a.is_cuda else 1
    wait = torch.accelerator.synchronize if a.is_cuda else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        a @ b
    wait()
    return repeats * 2.0 * a.shape[0] ** 3 / (time.perf_counter() - start)
