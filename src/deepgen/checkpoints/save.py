"""Writing a model in our layout: the published diffusers folders, plus what they left out."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from deepgen.checkpoints import defaults as generation
from deepgen.checkpoints.defaults import GenerationDefaults
from deepgen.checkpoints.safetensors_file import write_file
from deepgen.errors import OutputError
from deepgen.model.deepgen import DeepGenModel

SHARD_BYTES = 15_000_000
MODEL_INDEX = {
    "_class_name": "DeepGenPipeline",
    "vlm": ["transformers", "Qwen2_5_VLModel"],
    "connector": ["deepgen.model.bridge", "Bridge"],
    "transformer": ["deepgen.model.dit", "DiT"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
}


def save_model(
    model: DeepGenModel,
    defaults: GenerationDefaults,
    path: str | Path,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    weights: Mapping[str, dict[str, Tensor]] | None = None,
) -> None:
    """Write a checkpoint that `load_model` reads back.

    Args:
        model: any device.
        defaults: written as generation_config.json; its shift also into the scheduler's config.
        path: folder, made where needed; the weights of an older save in it are replaced.
        dtype: of the floating-point weights on disk; None keeps the model's.
        shard_bytes: largest weight file, unless one tensor alone is larger.
        weights: by the names of `tower_modules`, what is written in place of the modules' own states: training
            gathers shards and merges adapters.

    Raises:
        OutputError, OSError: no space, or no permission.
    """
    folder = Path(path)
    found = weights or {name: module.state_dict() for name, module in tower_modules(model).items()}
    for name in tower_modules(model):
        stem = "model" if name == "vlm" else "diffusion_pytorch_model"
        named = {_hub_name(n): v for n, v in found[name].items()} if name == "vlm" else found[name]
        save_weights(named, folder / name, stem, dtype, shard_bytes)
    model.vlm.model.config.save_pretrained(folder / "vlm")
    save_tokenizer(model.vlm.tokenizer, folder / "vlm")
    for name, network in (("connector", model.bridge), ("transformer", model.dit), ("vae", model.vae)):
        config = json.loads(network.to_json_string())
        config.pop("_name_or_path", None)  # a folder of the machine that trained it
        _write_text(folder / name / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    FlowMatchEulerDiscreteScheduler(shift=defaults.shift).save_config(folder / "scheduler")
    index: dict[str, Any] = {**MODEL_INDEX, "_diffusers_version": diffusers.__version__}
    _write_text(folder / "model_index.json", json.dumps(index, indent=2) + "\n")
    _write_text(folder / generation.FILE_NAME, defaults.to_json())


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer's files. Raises OutputError: no space, or no permission."""
    try:
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    # The tokenizers library raises bare Exceptions for a file that it cannot write.
    except Exception as error:  # noqa: BLE001
        raise OutputError(f"{folder}: the tokenizer cannot be written ({error})") from None


def tower_modules(model: DeepGenModel) -> dict[str, nn.Module]:
    """The four networks under the names of their folders."""
    return {"vlm": model.vlm.model, "connector": model.bridge, "transformer": model.dit, "vae": model.vae}


def _hub_name(name: str) -> str:
    """The hub's spelling of a tensor of `Qwen2_5_VLModel`, which transformers reads too."""
    prefix = "language_model."
    return f"model.{name.removeprefix(prefix)}" if name.startswith(prefix) else name


def save_weights(
    weights: dict[str, Tensor],
    folder: Path,
    stem: str,
    dtype: torch.dtype | None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors as safetensors shards, with an index for more than one; drops older weights."""
    folder.mkdir(parents=True, exist_ok=True)
    types = {n: dtype if dtype and v.is_floating_point() else v.dtype for n, v in weights.items()}
    # Planned on empty tensors: only one shard at a time is in memory as it will be on disk.
    planned = {n: torch.empty(v.shape, dtype=types[n], device="meta") for n, v in weights.items()}
    plan = split_torch_state_dict_into_shards(
        planned, filename_pattern=stem + "{suffix}.safetensors", max_shard_size=shard_bytes
    )
    for file, names in plan.filename_to_tensors.items():
        shard = {name: weights[name].detach().to("cpu", types[name]).contiguous() for name in names}
        with _replacing(folder / file) as part:
            write_file(part, shard)
    written = set(plan.filename_to_tensors)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        written.add(f"{stem}.safetensors.index.json")
        _write_text(
            folder / f"{stem}.safetensors.index.json", json.dumps(index, indent=2, sort_keys=True) + "\n"
        )
    for old in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
        if old.name not in written:
            old.unlink()


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to; the file appears under its own name whole, or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
