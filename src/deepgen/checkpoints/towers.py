"""Building each network from its folder: configuration, tensor names, weights."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2_5_VLModel
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig, Qwen2_5_VLTextConfig

from deepgen.checkpoints.defaults import read_json
from deepgen.checkpoints.tensors import StoredTensors, load_strictly, read_folder, rename
from deepgen.errors import CheckpointError, ConfigError
from deepgen.model.bridge import Bridge
from deepgen.model.dit import DiT

ROPE_KEYS = ("rope_parameters", "rope_scaling", "rope_theta")


def load_dit(folder: Path, dtype: torch.dtype, zero_exempt: Sequence[str] = ()) -> DiT:
    """The diffusion transformer of a folder with config.json (of any `_class_name`) and weights."""
    dit = _on_meta(DiT, folder)
    load_strictly(dit, read_folder(folder, zero_exempt), folder, dtype)
    return dit


def load_vae(folder: Path, dtype: torch.dtype) -> AutoencoderKL:
    """The picture autoencoder of a folder."""
    vae = _on_meta(AutoencoderKL, folder)
    load_strictly(vae, read_folder(folder), folder, dtype)
    return vae


def _on_meta(kind: Any, folder: Path) -> Any:
    config = read_json(folder / "config.json")
    try:
        with torch.device("meta"):
            return kind.from_config(config)
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'} cannot be used: {error}") from None


def load_bridge(folder: Path, dtype: torch.dtype, vlm_hidden_size: int, head_dim: int) -> Bridge:
    """The bridge of a folder; published ones have no config.json, theirs is read off the tensors' shapes.

    Args:
        folder: holds model.safetensors (published) or config.json and weights (ours).
        dtype: of the weights.
        vlm_hidden_size: width of the VLM.
        head_dim: of attention, where there is no config: published bridges have the transformer's.
    """
    stored = read_folder(folder, Bridge.ZERO_INITIALISED)
    if (folder / "config.json").exists():
        bridge = _on_meta(Bridge, folder)
    else:
        config = infer_bridge_config(stored, folder, vlm_hidden_size, head_dim)
        with torch.device("meta"):
            bridge = Bridge(**config)
    load_strictly(bridge, stored, folder, dtype)
    return bridge


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
        return stored[name].tensor.shape

    width, inputs = shape("projector_1.weight")
    if inputs % vlm_hidden_size or width % head_dim:
        raise CheckpointError(
            f"projector_1.weight in {folder} is {width}x{inputs}, which fits neither a VLM of width "
            f"{vlm_hidden_size} nor heads of {head_dim}"
        )
    states = inputs // vlm_hidden_size
    layers = {name.split(".")[2] for name in stored if name.startswith("connector.layers.")}
    return {
        "vlm_hidden_size": vlm_hidden_size,
        "num_fused_layers": 0 if states == 1 else states,
        "hidden_size": width,
        "intermediate_size": shape("connector.layers.0.mlp.fc1.weight")[0],
        "num_layers": len(layers),
        "num_heads": width // head_dim,
        "num_queries": shape("meta_queries")[0],
        "pooled_dim": shape("projector_2.weight")[0],
        "context_dim": shape("projector_3.weight")[0],
    }


def load_vlm(folder: Path, dtype: torch.dtype) -> Qwen2_5_VLModel:
    """Qwen2.5-VL without its language head, from any spelling of its config and tensor names."""
    path = folder / "config.json"
    config = parse_vlm_config(read_json(path), path)
    with torch.device("meta"):
        model = Qwen2_5_VLModel(config)
    load_strictly(model, rename(read_folder(folder), vlm_name), folder, dtype)
    _rebuild_rotary(model)
    return model


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
    outer = {key: value for key, value in values.items() if key not in ROPE_KEYS}
    text = dict(outer.pop("text_config", None) or {})
    text_fields = set(inspect.signature(Qwen2_5_VLTextConfig).parameters) - {"model_type"}
    flat = {key: outer[key] for key in text_fields & set(outer)}
    if not text:
        text = flat
    outer = {key: value for key, value in outer.items() if key not in flat}
    source = {**{k: values[k] for k in ROPE_KEYS if k in values}, **text}
    rope = source.get("rope_parameters") or source.get("rope_scaling") or {}
    if "mrope_section" not in rope:
        raise CheckpointError(f"{path} has no mrope_section in rope_scaling or rope_parameters")
    text = {key: value for key, value in text.items() if key not in ROPE_KEYS}
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": rope.get("rope_theta", source.get("rope_theta", Qwen2_5_VLTextConfig.default_theta)),
        "mrope_section": list(rope["mrope_section"]),
    }
    # The language head is never loaded; tied or not makes no difference to what is.
    try:
        return Qwen2_5_VLConfig(**{**outer, "text_config": text, "tie_word_embeddings": True})
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be used: {' '.join(str(error).split())}") from None


def _rebuild_rotary(model: Qwen2_5_VLModel) -> None:
    """Rotary frequencies are computed, not stored: make those that were left on the meta device, in fp32."""
    text, visual = model.language_model, model.visual
    text.rotary_emb = type(text.rotary_emb)(config=text.config)
    visual.rotary_pos_emb = type(visual.rotary_pos_emb)(visual.config)
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
        if file.exists():
            settings = folder / "tokenizer_config.json"
            pad = (read_json(settings) if settings.exists() else {}).get("pad_token") or "<|endoftext|>"
            pad = pad["content"] if isinstance(pad, dict) else pad
            return PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token=pad, eos_token="<|im_end|>")
        if (folder / "vocab.json").exists():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    raise CheckpointError(f"no tokenizer.json or vocab.json in {', '.join(str(c) for c in candidates)}")
