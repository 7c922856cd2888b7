"""Low-rank adapters: found in published checkpoints and in peft folders, merged into weights or run beside them.

W + s·B·A for a linear layer, W + s·(B·A)ᵀ for an embedding (Hu et al. 2021; peft's conventions). The published
checkpoints do not store s = alpha / rank; it is 2.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepgen.checkpoints.defaults import read_json
from deepgen.checkpoints.safetensors_file import open_file, write_file
from deepgen.checkpoints.tensors import Stored, StoredTensors
from deepgen.checkpoints.torch_file import flat_tensors
from deepgen.errors import CheckpointError

PUBLISHED_SCALE = 2.0
PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PEFT_PREFIX = "base_model.model."
BASE_SUFFIX = ".base_layer.weight"
PLAIN_ONLY = ("use_dora", "fan_in_fan_out", "layer_replication", "lora_bias", "use_qalora")
"""Switches of peft that change what an adapter computes, and that no adapter of this model has."""
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.(?P<rest>.+))?")


@dataclass(frozen=True)
class Adapter:
    """Two factors for one module: A [r, in], B [out, r]; an embedding's `in` counts tokens."""

    a: Stored
    b: Stored
    embedding: bool
    scale: float

    def delta(self, name: str) -> Tensor:
        """What is added to the weight, fp32: [out, in], for an embedding [tokens, width]."""
        a, b = (x.read(name, torch.float32, may_be_zero=True) for x in (self.a, self.b))
        product = (b @ a).mul_(self.scale)
        return product.T if self.embedding else product


def is_factor(name: str) -> bool:
    """Whether a tensor's name is that of an adapter's factor."""
    return FACTOR.fullmatch(name) is not None


def read_adapters(
    factors: Mapping[str, Stored], scale: Callable[[str, int], float] = lambda module, rank: PUBLISHED_SCALE
) -> dict[str, Adapter]:
    """Adapters by the names of their modules, from tensors named as peft names them.

    Args:
        factors: `MODULE.lora_A.ADAPTER.weight` and the like.
        scale: of a module's name and rank.

    Raises:
        CheckpointError: a name is no factor's, a factor lacks its partner, ranks differ, or a module has more
            than one adapter.
    """
    pairs: dict[str, dict[str, tuple[bool, Stored]]] = {}
    for name, item in factors.items():
        match = FACTOR.fullmatch(name)
        if match is None:
            raise CheckpointError(f"{name} in {item.file} is no part of an adapter that deepgen can merge")
        sides = pairs.setdefault(match["module"], {})
        if match["side"] in sides:
            raise CheckpointError(
                f"{match['module']} in {item.file} has more than one adapter; keep only the one to use"
            )
        sides[match["side"]] = (match["embedding"] is not None, item)
    return {module: _pair(module, sides, scale) for module, sides in pairs.items()}


def _pair(
    module: str, sides: Mapping[str, tuple[bool, Stored]], scale: Callable[[str, int], float]
) -> Adapter:
    if len(sides) != 2:
        ((side, (_, item)),) = sides.items()
        raise CheckpointError(f"{module} in {item.file} has only factor {side} of its adapter")
    (embedding, a), (_, b) = sides["A"], sides["B"]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or not a.shape[0]:
        raise CheckpointError(
            f"the adapter of {module} in {a.file} has factors {list(a.shape)} and {list(b.shape)}, "
            "whose ranks differ"
        )
    return Adapter(a, b, embedding, scale(module, a.shape[0]))


def check_adapters(tensors: Mapping[str, Stored], adapters: Mapping[str, Adapter]) -> None:
    """Raise CheckpointError unless each adapter fits the weight that it is kept under."""
    for name, adapter in adapters.items():
        if name not in tensors:
            raise CheckpointError(f"the adapter in {adapter.a.file} changes {name}, which the model lacks")
        base, shape = tensors[name], (adapter.b.shape[0], adapter.a.shape[1])
        if base.shape != (shape[::-1] if adapter.embedding else shape):
            raise CheckpointError(
                f"the adapter of {name} in {adapter.a.file} is for a weight of {list(shape)}, "
                f"{base.file} has {list(base.shape)}"
            )


def merged(tensors: StoredTensors, adapters: Mapping[str, Adapter]) -> StoredTensors:
    """Tensors that will be read with their adapters in them: added in fp32, then cast."""
    changed = {
        name: replace(tensors[name], adapt=partial(_add, name=name, adapter=adapter))
        for name, adapter in adapters.items()
    }
    return {**tensors, **changed}


def _add(weight: Tensor, name: str, adapter: Adapter) -> Tensor:
    return weight.add_(adapter.delta(name))


def attach(network: nn.Module, adapters: Mapping[str, Adapter], dtype: torch.dtype | None) -> None:
    """Let layers add their adapters to what they compute, as the published code does, instead of merging.

    The same up to rounding: merging rounds each weight once more, which moves the states of the golden VLM by 1e-4
    of values up to 28.

    Args:
        network: with its weights, on the CPU; its layers are linear or embeddings.
        adapters: by the name of the weight that each changes.
        dtype: of the factors; None keeps the stored one.
    """
    for name, adapter in adapters.items():
        a, b = (x.read(name, dtype, may_be_zero=True) for x in (adapter.a, adapter.b))
        layer = network.get_submodule(name.removesuffix(".weight"))
        layer.register_forward_hook(partial(_add_branch, adapter=adapter, a=a, b=b))


def _add_branch(
    layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, adapter: Adapter, a: Tensor, b: Tensor
) -> Tensor:
    inner = F.embedding(inputs[0], a.T) if adapter.embedding else F.linear(inputs[0], a)
    return output + F.linear(inner, b) * adapter.scale


def is_peft_folder(path: Path) -> bool:
    return (path / PEFT_CONFIG).is_file()


def read_peft_folder(path: Path) -> tuple[dict[str, Adapter], StoredTensors]:
    """Adapters of a peft folder, and whole weights that it holds, both by module or weight without peft's prefix.

    peft stores the embedding itself beside an embedding's adapter.

    Raises:
        CheckpointError: another method than plain LoRA, or weights that are missing or damaged.
    """
    file = path / PEFT_CONFIG
    config = read_json(file)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{file} is of type {config.get('peft_type')!r}; only LORA can be merged")
    for switch in PLAIN_ONLY:
        if config.get(switch):
            raise CheckpointError(f"{file} has {switch} on, which cannot be merged here; merge it with peft")
    weights = next((path / name for name in PEFT_WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        raise CheckpointError(f"{path} has no {' or '.join(PEFT_WEIGHTS)}")
    stored = open_file(weights) if weights.suffix == ".safetensors" else flat_tensors(weights)
    stored = {name.removeprefix(PEFT_PREFIX): item for name, item in stored.items()}
    whole = {n.removesuffix(BASE_SUFFIX): t for n, t in stored.items() if n.endswith(BASE_SUFFIX)}
    factors = {n: t for n, t in stored.items() if not n.endswith(BASE_SUFFIX)}
    if not factors:
        raise CheckpointError(f"{weights} holds no adapter")
    return read_adapters(factors, _peft_scale(config, file)), whole


def _peft_scale(config: dict[str, Any], file: Path) -> Callable[[str, int], float]:
    """alpha / r, or alpha / √r with rank stabilisation, with the exceptions that peft keeps by module."""
    alphas = config.get("alpha_pattern") or {}

    def scale(module: str, rank: int) -> float:
        # peft's rule: a pattern stands for the end of a module's name.
        try:
            exception = next((v for k, v in alphas.items() if re.match(rf"(.*\.)?({k})$", module)), None)
        except (re.error, AttributeError):
            raise CheckpointError(f"{file}: alpha_pattern cannot be used") from None
        alpha = config.get("lora_alpha") if exception is None else exception
        if not isinstance(alpha, int | float) or isinstance(alpha, bool):
            raise CheckpointError(f"{file}: lora_alpha is {alpha!r}, not a number")
        return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)

    return scale


def save_peft_folder(adapters: Mapping[str, Adapter], folder: Path) -> None:
    """Write adapters, by the names of the weights that they change, as a peft folder in their stored types."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, adapter in adapters.items():
        module = name.removesuffix(".weight")
        for side, item in (("A", adapter.a), ("B", adapter.b)):
            key = f"lora_embedding_{side}" if adapter.embedding else f"lora_{side}.weight"
            tensors[f"{PEFT_PREFIX}{module}.{key}"] = item.read(name, may_be_zero=True)
    ranks = {name.removesuffix(".weight"): adapter.a.shape[0] for name, adapter in adapters.items()}
    alphas = {name.removesuffix(".weight"): x.scale * x.a.shape[0] for name, x in adapters.items()}
    rank, alpha = (Counter(x.values()).most_common(1)[0][0] for x in (ranks, alphas))
    config = {
        "peft_type": "LORA",
        "bias": "none",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(ranks),
        "rank_pattern": {re.escape(name): r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {re.escape(name): a for name, a in alphas.items() if a != alpha},
    }
    (folder / PEFT_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_file(folder / PEFT_WEIGHTS[0], tensors)
