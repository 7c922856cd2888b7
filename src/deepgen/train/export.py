"""From a run's model to folders that `from_pretrained` opens: merged, and adapters as a peft folder inside."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepgen.checkpoints.defaults import GenerationDefaults
from deepgen.checkpoints.lora import PEFT_CONFIG, PEFT_PREFIX, PEFT_WEIGHTS
from deepgen.checkpoints.safetensors_file import write_file
from deepgen.checkpoints.save import save_model, tower_modules
from deepgen.model.deepgen import DeepGenModel
from deepgen.train.parallel import Ranks, whole
from deepgen.train.trainable import ADAPTER, TrainableConfig

NOTE = "training.json"
LORA_FOLDER = "lora"
FACTOR = re.compile(rf"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])\.{ADAPTER}(?:\.weight)?")
BASE = ".base_layer."


def export(
    model: DeepGenModel,
    defaults: GenerationDefaults,
    folder: Path,
    trainable: TrainableConfig,
    ranks: Ranks | None = None,
    dtype: torch.dtype | None = None,
    note: dict[str, Any] | None = None,
) -> None:
    """Write the model as a checkpoint folder with adapters merged, and the adapters alone in its `lora/`.

    The folder appears whole or not at all; an older one is replaced. Collective: every process must call it, the
    first one writes.

    Args:
        model: sharded and adapted or not; it is not changed.
        defaults: of sampling.
        folder: to make, or to replace.
        trainable: what the adapters' scale follows from.
        ranks: this process; alone if not given.
        dtype: of the floating-point weights on disk; None keeps the model's.
        note: written as training.json, the run's step for instance.
    """
    ranks = ranks or Ranks()
    scale = trainable.lora.alpha / trainable.lora.rank
    towers: dict[str, dict[str, Tensor]] = {}
    factors: dict[str, Tensor] = {}
    for name, module in tower_modules(model).items():
        weights, found = gather(module, ranks)
        factors.update({_adapter_name(name, n): value for n, value in found.items()})
        towers[name] = merge(weights, found, scale)
    if not ranks.first:
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_model(model, defaults, partial, dtype, weights=towers)
    if factors:
        _save_peft(factors, trainable, partial / LORA_FOLDER)
    (partial / NOTE).write_text(json.dumps(note or {}, indent=2) + "\n", encoding="utf-8")
    _replace(partial, folder)


def _replace(partial: Path, folder: Path) -> None:
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(partial, folder)
    shutil.rmtree(old, ignore_errors=True)


def gather(module: nn.Module, ranks: Ranks) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Whole weights under their plain names, and the adapters' factors, on the CPU; empty but on the first process.

    Collective.
    """
    weights: dict[str, Tensor] = {}
    factors: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        full = whole(value.detach())
        if not ranks.first:
            continue
        place = factors if FACTOR.fullmatch(name) else weights
        place[name.replace(BASE, ".")] = full.cpu()
    return weights, factors


def merge(weights: dict[str, Tensor], factors: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """W + scale·B·A, added in fp32 and cast back, for every weight with factors; the others as they are."""
    pairs: dict[str, dict[str, Tensor]] = {}
    embeddings = set()
    for name, value in factors.items():
        match = FACTOR.fullmatch(name)
        assert match is not None  # gather() put it here for that
        pairs.setdefault(f"{match['module']}.weight", {})[match["side"]] = value.float()
        if match["embedding"]:
            embeddings.add(f"{match['module']}.weight")
    merged = dict(weights)
    for name, pair in pairs.items():
        delta = (pair["B"] @ pair["A"]) * scale
        weight = weights[name]
        merged[name] = (weight.float() + (delta.T if name in embeddings else delta)).to(weight.dtype)
    return merged


def _adapter_name(tower: str, name: str) -> str:
    """A factor's name in a peft folder, as `checkpoints.adapters` finds its network."""
    rename: Callable[[str], str] = {
        "vlm": lambda n: f"model.{n}" if n.startswith("language_model.") else n,
        "transformer": lambda n: f"transformer.{n}",
    }[tower]
    return f"{PEFT_PREFIX}{rename(name).replace(f'.{ADAPTER}', '')}"


def _save_peft(factors: dict[str, Tensor], trainable: TrainableConfig, folder: Path) -> None:
    """A folder that peft and `lora=` read."""
    folder.mkdir(parents=True)
    modules = {name.removeprefix(PEFT_PREFIX).split(".lora_")[0] for name in factors}
    config = {
        "peft_type": "LORA",
        "bias": "none",
        "r": trainable.lora.rank,
        "lora_alpha": trainable.lora.alpha,
        "lora_dropout": trainable.lora.dropout,
        "target_modules": sorted(modules),
    }
    (folder / PEFT_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {name: value.contiguous() for name, value in factors.items()}
    write_file(folder / PEFT_WEIGHTS[0], tensors)


def exported_step(folder: Path) -> int | None:
    """The step that an exported folder was made at; None where there is none."""
    try:
        return json.loads((folder / NOTE).read_text(encoding="utf-8")).get("step")
    except (OSError, json.JSONDecodeError):
        return None
