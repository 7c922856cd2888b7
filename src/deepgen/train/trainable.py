"""Which parameters a run trains: chosen by network, with adapters injected, and nothing that gets no gradient."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model
from pydantic import Field
from torch import nn

from deepgen.config import Config
from deepgen.errors import ConfigError
from deepgen.model.deepgen import DeepGenModel

How = Literal["frozen", "full", "lora"]
Whole = Literal["frozen", "full"]
ADAPTER = "default"


class LoraConfig(Config):
    """Low-rank adapters (Hu et al. 2021), scaled by alpha / rank; A starts Gaussian, B at zero."""

    rank: int = Field(64, gt=0)
    alpha: float = Field(128, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: Literal["linear", "auto"] | list[str] = Field(
        "linear",
        description="linear: linear layers of the blocks; auto: the embedding too, as published; or ends of names",
    )


class TrainableConfig(Config):
    """What is trained of each part. `vlm` is the language tower, `vision` the VLM's picture tower."""

    dit: How = "frozen"
    bridge: Whole = "full"
    think_tokens: Whole = "full"
    vlm: How = "frozen"
    vision: How = "frozen"
    lora: LoraConfig = LoraConfig()


@dataclass(frozen=True)
class TrainedPart:
    """A line of the report before a run.

    Attributes:
        name: of the part.
        how: frozen, full or lora.
        parameters: of the part, adapters included.
        trained: of these.
        dtype: of the trained ones, or of all where nothing is trained.
    """

    name: str
    how: str
    parameters: int
    trained: int
    dtype: str


def make_trainable(
    model: DeepGenModel, config: TrainableConfig, frozen_dtype: torch.dtype | None = None
) -> list[TrainedPart]:
    """Inject adapters and set `requires_grad`; trained parameters become fp32, frozen ones `frozen_dtype`.

    Parameters behind the last state that is used (the decoder's last layer, its final norm) get no gradient; they
    are never trained, whatever is asked for.

    Args:
        model: whole, on any device, the meta device too.
        config: what to train.
        frozen_dtype: of the frozen weights, the VAE's too; None leaves them.

    Returns:
        One line for each part.
    """
    model.requires_grad_(False)
    for name, modules in part_modules(model).items():
        how = getattr(config, name)
        if how == "lora":
            _inject(model, name, config.lora)
        elif how == "full":
            for module in modules:
                module.requires_grad_(True)
    # The bridge's module includes the think tokens.
    model.bridge.meta_queries.requires_grad_(config.think_tokens == "full")
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
        elif frozen_dtype is not None:
            parameter.data = parameter.data.to(frozen_dtype)
    return report(model, config)


def part_modules(model: DeepGenModel) -> dict[str, list[nn.Module]]:
    """The modules of each part that can be trained, as far as they are used."""
    text = model.vlm.model.language_model
    depth = max(model.vlm.indices)
    language: list[nn.Module] = [text.embed_tokens, *text.layers[:depth]]
    if not model.vlm.fused_layers:
        language.append(text.norm)
    return {
        "dit": [model.dit],
        "bridge": [model.bridge],
        "vlm": language,
        "vision": [model.vlm.model.visual],
    }


def _inject(model: DeepGenModel, part: str, lora: LoraConfig) -> None:
    """Adapters for the target layers of a part, in place."""
    root = adapted_root(model, part)
    settings = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=lora_targets(model, part, lora),
        init_lora_weights="gaussian",
    )
    # Otherwise adapters of a model on the meta device are made, and their random values drawn, in host memory.
    empty = next(root.parameters()).is_meta
    inject_adapter_in_model(settings, root, ADAPTER, low_cpu_mem_usage=empty)


def adapted_root(model: DeepGenModel, part: str) -> nn.Module:
    """The network that the adapters of a part are named in."""
    roots: dict[str, nn.Module] = {
        "dit": model.dit,
        "vlm": model.vlm.model.language_model,
        "vision": model.vlm.model.visual,
    }
    return roots[part]


def lora_targets(model: DeepGenModel, part: str, lora: LoraConfig) -> list[str]:
    """Full names, below `adapted_root`, of the layers that get adapters.

    Raises:
        ConfigError: the part has none of the asked-for names.
    """
    names: list[str] = []
    depth = max(model.vlm.indices)
    for name, layer in adapted_root(model, part).named_modules():
        top, _, rest = name.partition(".")
        if part == "vlm" and top == "layers" and int(rest.split(".")[0] or 0) >= depth:
            continue
        # The transformer's blocks only: its embedders and its head are small.
        linear = isinstance(layer, nn.Linear) and (part != "dit" or top == "transformer_blocks")
        embedding = isinstance(layer, nn.Embedding) and lora.targets == "auto"
        if linear or embedding:
            names.append(name)
    if isinstance(lora.targets, list):
        ends = tuple(lora.targets)
        names = [name for name in names if name.endswith(ends)]
    if not names:
        raise ConfigError(f"trainable.lora.targets is {lora.targets}, which names no layer of {part}")
    return names


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def report(model: DeepGenModel, config: TrainableConfig) -> list[TrainedPart]:
    """Parameters of each part, trained or not; the VAE is never trained."""
    queries = model.bridge.meta_queries
    text, visual = model.vlm.model.language_model, model.vlm.model.visual
    parts: dict[str, tuple[str, list[nn.Parameter]]] = {
        "dit": (config.dit, list(model.dit.parameters())),
        "bridge": (config.bridge, [p for p in model.bridge.parameters() if p is not queries]),
        "think_tokens": (config.think_tokens, [queries]),
        "vlm": (config.vlm, list(text.parameters())),
        "vision": (config.vision, list(visual.parameters())),
        "vae": ("frozen", list(model.vae.parameters())),
    }
    return [_line(name, how, parameters) for name, (how, parameters) in parts.items()]


def _line(name: str, how: str, parameters: list[nn.Parameter]) -> TrainedPart:
    trained = [p for p in parameters if p.requires_grad]
    types = sorted({str(p.dtype).removeprefix("torch.") for p in trained or parameters})
    return TrainedPart(name, how, _count(parameters), _count(trained), "+".join(types))


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)
