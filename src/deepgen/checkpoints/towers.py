"""Each network from its configuration, on the meta device: the shapes that its weights must have."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2_5_VLModel
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig, Qwen2_5_VLTextConfig

from deepgen.checkpoints.defaults import read_json
from deepgen.checkpoints.tensors import StoredTensors
from deepgen.errors import CheckpointError, ConfigError
from deepgen.model.bridge import Bridge
from deepgen.model.dit import DiT

UNUSABLE = (
    *(ConfigError, StrictDataclassError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
    *(RuntimeError, OverflowError),
)
"""What building a network from a config of wrong values raises."""
MAX_LAYERS = 1000
ROPE_KEYS = ("rope_parameters", "rope_scaling", "rope_theta")


@dataclass(frozen=True)
class Networks:
    """The four networks, under the names of their folders in `by_name`."""

    vlm: Qwen2_5_VLModel
    bridge: Bridge
    dit: DiT
    vae: AutoencoderKL

    def by_name(self) -> dict[str, nn.Module]:
        return {"vlm": self.vlm, "connector": self.bridge, "transformer": self.dit, "vae": self.vae}


def empty_dit(config: dict[str, Any], path: Path) -> DiT:
    """The diffusion transformer of a config (of any `_class_name`) on the meta device."""
    return _from_config(DiT, config, path)


def empty_vae(config: dict[str, Any], path: Path) -> AutoencoderKL:
    """The picture autoencoder of a config on the meta device."""
    return _from_config(AutoencoderKL, config, path)


def _from_config(kind: Any, config: dict[str, Any], path: Path) -> Any:
    _check_depth(config, path)
    try:
        with torch.device("meta"):
            return kind.from_config(config)
    except UNUSABLE as error:
        raise CheckpointError(f"{path} cannot be used: {_one_line(error)}") from None


def _check_depth(config: dict[str, Any], path: Path) -> None:
    """Layers are made one by one before any shape can be compared: a damaged number must not take for ever."""
    for name in ("num_layers", "num_hidden_layers", "layers_per_block"):
        if not isinstance(config.get(name, 1), int) or config.get(name, 1) > MAX_LAYERS:
            raise CheckpointError(f"{path} cannot be used: {name} is {config[name]!r}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def empty_bridge(
    config: dict[str, Any] | None, path: Path, stored: StoredTensors, vlm_hidden_size: int, head_dim: int
) -> Bridge:
    """The bridge on the meta device; published ones have no config, theirs is read off the tensors' shapes.

    Args:
        config: None for published bridges.
        path: of the config or the tensors, for errors.
        stored: its tensors.
        vlm_hidden_size: width of the VLM.
        head_dim: of attention, where there is no config: published bridges have the transformer's.

    Raises:
        CheckpointError: the config cannot be used, or the shapes make no bridge.
    """
    if config is None:
        config = infer_bridge_config(stored, path, vlm_hidden_size, head_dim)
    return _from_config(Bridge, config, path)


def infer_bridge_config(
    stored: StoredTensors, folder: Path, vlm_hidden_size: int, head_dim: int
) -> dict[str, int]:
    """`Bridge`'s arguments from the shapes of a published connector.

    One decoder state's width into projector_1 means the last hidden state without channel bridging.

    Raises:
        CheckpointError: a tensor that decides a size is missing, or the widths do not divide.
    """

    def shape(name: str) -> Sequence[int]:
        if name not in stored:
            raise CheckpointError(f"{folder} lacks {name}; the bridge is incomplete")
        return stored[name].shape

    if len(shape("projector_1.weight")) != 2 or len(shape("meta_queries")) != 2:
        raise CheckpointError(f"projector_1.weight and meta_queries in {folder} must be matrices")
    width, inputs = shape("projector_1.weight")
    if inputs % vlm_hidden_size or width % head_dim:
        raise CheckpointError(
            f"projector_1.weight in {folder} is {width}x{inputs}, which fits neither a VLM of width "
            f"{vlm_hidden_size} nor heads of {head_dim}"
        )
    states = inputs // vlm_hidden_size
    layers = {name.split(".")[2] for name in stored if name.startswith("connector.layers.")}

    def rows(name: str) -> int:
        return (*shape(name), 0)[0]

    return {
        "vlm_hidden_size": vlm_hidden_size,
        "num_fused_layers": 0 if states == 1 else states,
        "hidden_size": width,
        "intermediate_size": rows("connector.layers.0.mlp.fc1.weight"),
        "num_layers": len(layers),
        "num_heads": width // head_dim,
        "num_queries": rows("meta_queries"),
        "pooled_dim": rows("projector_2.weight"),
        "context_dim": rows("projector_3.weight"),
    }


def empty_vlm(config: dict[str, Any], path: Path) -> Qwen2_5_VLModel:
    """Qwen2.5-VL without its language head on the meta device, from any spelling of its config."""
    parsed = parse_vlm_config(config, path)
    try:
        with torch.device("meta"):
            return Qwen2_5_VLModel(parsed)
    except UNUSABLE as error:
        raise CheckpointError(f"{path} cannot be used: {_one_line(error)}") from None


def vlm_name(name: str) -> str | None:
    """`Qwen2_5_VLModel`'s name of a tensor in the hub's or the in-memory spelling; None where unused."""
    if name == "lm_head.weight":
        return None
    name = (
        name.removeprefix("model.") if name.startswith(("model.visual.", "model.language_model.")) else name
    )
    return f"language_model.{name.removeprefix('model.')}" if name.startswith("model.") else name


def parse_vlm_config(values: dict[str, Any], path: Path) -> Qwen2_5_VLConfig:
    """Qwen2.5-VL's configuration from its flat or nested form and any spelling of the rotary part.

    Raises:
        CheckpointError: another model type, or no rotary sections (transformers would guess them).
    """
    if values.get("model_type") != "qwen2_5_vl":
        raise CheckpointError(f"{path} is of model type {values.get('model_type')!r}, not qwen2_5_vl")
    try:
        return _vlm_config(values, path)
    except UNUSABLE as error:
        raise CheckpointError(f"{path} cannot be used: {_one_line(error)}") from None


def _vlm_config(values: dict[str, Any], path: Path) -> Qwen2_5_VLConfig:
    outer = {key: value for key, value in values.items() if key not in ROPE_KEYS}
    text = dict(outer.pop("text_config", None) or {})
    text_fields = set(inspect.signature(Qwen2_5_VLTextConfig).parameters) - {"model_type"}
    flat = {key: outer[key] for key in text_fields & set(outer)}
    if not text:
        text = flat
    outer = {key: value for key, value in outer.items() if key not in flat}
    source = {**{k: values[k] for k in ROPE_KEYS if k in values}, **text}
    rope = dict(source.get("rope_parameters") or source.get("rope_scaling") or {})
    if "mrope_section" not in rope:
        raise CheckpointError(f"{path} has no mrope_section in rope_scaling or rope_parameters")
    text = {key: value for key, value in text.items() if key not in ROPE_KEYS}
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": rope.get("rope_theta", source.get("rope_theta", Qwen2_5_VLTextConfig.default_theta)),
        "mrope_section": list(rope["mrope_section"]),
    }
    _check_depth(text, path)
    # The language head is never loaded; tied or not makes no difference to what is.
    return Qwen2_5_VLConfig(**{**outer, "text_config": text, "tie_word_embeddings": True})


def rebuild_rotary(model: Qwen2_5_VLModel, device: torch.device | str = "cpu") -> None:
    """Rotary frequencies are computed, not stored: make them anew, in fp32."""
    text, visual = model.language_model, model.visual
    text.rotary_emb = type(text.rotary_emb)(config=text.config).to(device)
    visual.rotary_pos_emb = type(visual.rotary_pos_emb)(visual.config).to(device)
    empty = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if empty:
        raise CheckpointError(
            f"this transformers version keeps buffers unknown to deepgen: {', '.join(empty)}"
        )


def load_tokenizer(candidates: Sequence[Path]) -> PreTrainedTokenizerBase:
    """The tokenizer of the first folder that has one.

    tokenizer.json is taken as it is: transformers' Qwen2 class would put its own pre-tokenizer in its place.

    Raises:
        CheckpointError: no folder has one.
    """
    for folder in candidates:
        file = folder / "tokenizer.json"
        if file.exists() or (folder / "vocab.json").exists():
            try:
                return _tokenizer_of(folder, file)
            except CheckpointError:
                raise
            # The tokenizers library raises bare Exceptions for a file that it cannot read.
            except Exception as error:  # noqa: BLE001
                raise CheckpointError(
                    f"the tokenizer in {folder} cannot be read: {_one_line(error)}"
                ) from None
    raise CheckpointError(f"no tokenizer.json or vocab.json in {', '.join(str(c) for c in candidates)}")


def _tokenizer_of(folder: Path, file: Path) -> PreTrainedTokenizerBase:
    if not file.exists():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    settings = folder / "tokenizer_config.json"
    pad = (read_json(settings) if settings.exists() else {}).get("pad_token") or "<|endoftext|>"
    pad = pad["content"] if isinstance(pad, dict) else pad
    return PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token=pad, eos_token="<|im_end|>")
