"""The model of a run on its device: read once, spread over all processes, adapted and sharded."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from deepgen.checkpoints import GenerationDefaults, open_checkpoint
from deepgen.checkpoints.base_folders import read_base_dit, read_base_vlm
from deepgen.checkpoints.checkpoint import Checkpoint
from deepgen.checkpoints.hub import locate
from deepgen.checkpoints.tensors import check_fits, load_strictly
from deepgen.checkpoints.towers import (
    Networks,
    empty_dit,
    empty_vae,
    empty_vlm,
    load_tokenizer,
    rebuild_rotary,
)
from deepgen.errors import ConfigError
from deepgen.model.bridge import Bridge
from deepgen.model.deepgen import DeepGenModel
from deepgen.model.vlm import FusedVLM
from deepgen.pipeline.records import weights_hash
from deepgen.pipeline.shipped import SHIPPED, resolve_model
from deepgen.train.parallel import Ranks, fill, parallelize
from deepgen.train.published import PUBLISHED_SIZES, published_model
from deepgen.train.run_config import BridgeSizes, ModelConfig, RunConfig
from deepgen.train.tiny import TINY, tiny_defaults, tiny_model
from deepgen.train.trainable import TrainedPart, make_trainable

log = logging.getLogger("deepgen.train")

Load = Callable[[], DeepGenModel]
LoadOn = Callable[[torch.device], DeepGenModel]


@dataclass(frozen=True)
class Source:
    """A model that is not read yet.

    Attributes:
        empty: makes it on the meta device.
        load: makes it with its weights, in their stored types, on the CPU; random ones of the published sizes on the
            device that it is given.
        defaults: of its checkpoint.
    """

    empty: Load
    load: LoadOn
    defaults: GenerationDefaults


@dataclass(frozen=True)
class Built:
    """A model ready to train: trained parts in fp32, the others in the frozen type, sharded as configured.

    Attributes:
        weights: hash of what was read, before adapters and casts; None where this process read nothing.
    """

    model: DeepGenModel
    defaults: GenerationDefaults
    parts: list[TrainedPart]
    weights: str | None = None


def open_source(config: ModelConfig, seed: int) -> Source:
    """Find the model of a configuration without reading its weights.

    Raises:
        InputError, CheckpointError: there is none, or it is incomplete.
    """
    if config.init_from == TINY:
        return Source(lambda: tiny_model(seed).to("meta"), lambda _: tiny_model(seed), tiny_defaults())
    if config.init_from == PUBLISHED_SIZES:
        return Source(
            published_model, lambda device: published_model(device, torch.bfloat16), GenerationDefaults()
        )
    if config.init_from is None:
        return _new_bridge(config, seed)
    checkpoint = open_checkpoint(
        resolve_model(config.init_from)[1], config.base_vlm, config.base_dit, config.lora
    )
    checkpoint.require_complete()
    return Source(
        lambda: _assemble(checkpoint.empty_networks(), checkpoint),
        lambda _: checkpoint.load(None, "cpu")[0],
        checkpoint.defaults,
    )


def _assemble(networks: Networks, checkpoint: Checkpoint) -> DeepGenModel:
    tokenizer = load_tokenizer(checkpoint.tokenizers)
    vlm = FusedVLM(networks.vlm, tokenizer, networks.bridge.config.num_fused_layers)
    return DeepGenModel(vlm, networks.bridge, networks.dit, networks.vae).eval()


def _new_bridge(config: ModelConfig, seed: int) -> Source:
    """Base networks joined by a bridge with fresh weights: where alignment starts."""
    assert config.new_bridge is not None and config.base_vlm is not None and config.base_dit is not None
    sizes = config.new_bridge
    vlm_folder, dit_folder = locate(config.base_vlm, "vlm"), locate(config.base_dit, "dit")
    base_vlm, base_dit = read_base_vlm(vlm_folder), read_base_dit(dit_folder)
    parts = {"vlm": base_vlm, "transformer": base_dit.transformer, "vae": base_dit.vae}

    def build(with_weights: bool) -> DeepGenModel:
        vlm = empty_vlm(base_vlm.config or {}, base_vlm.config_path())
        dit = empty_dit(base_dit.transformer.config or {}, base_dit.transformer.config_path())
        vae = empty_vae(base_dit.vae.config or {}, base_dit.vae.config_path())
        modules: dict[str, nn.Module] = {"vlm": vlm, "transformer": dit, "vae": vae}
        if with_weights:
            for name, module in modules.items():
                check_fits(module, parts[name].tensors, parts[name].origin)
                load_strictly(module, parts[name].tensors, None, "cpu", parts[name].zero_exempt)
            rebuild_rotary(vlm)
        with torch.random.fork_rng(devices=[]), torch.device("cpu" if with_weights else "meta"):
            torch.manual_seed(seed)
            bridge = Bridge(
                vlm_hidden_size=vlm.config.text_config.hidden_size,
                pooled_dim=dit.config.pooled_projection_dim,
                context_dim=dit.config.joint_attention_dim,
                **sizes.model_dump(),
            )
        fused = FusedVLM(vlm, load_tokenizer([vlm_folder]), sizes.num_fused_layers)
        return DeepGenModel(fused, bridge, dit, vae).eval()

    # New models see no pads; the published ones were trained with pads up to the longest prompt.
    defaults = GenerationDefaults(shift=base_dit.shift, padding="none")
    return Source(lambda: build(False), lambda _: build(True), defaults)


def build(config: RunConfig, ranks: Ranks) -> Built:
    """Read the weights on the first process, and give every process its part.

    The others build on the meta device; tensors travel one by one, so hosts need the memory of one copy, on the
    first process's host, and of one tensor elsewhere. Every process must call this.
    """
    source = open_source(config.model, config.seed)
    read: str | None = None
    if ranks.world_size == 1:
        model = source.load(ranks.device)
        read = weights_hash(model)
        parts = _prepare(model, config)
        model.to(ranks.device)
        _keep_rotary(model, ranks)
        return Built(parallelize(model, config.parallel, ranks), source.defaults, parts, read)
    weights: dict[str, Tensor] = {}
    if ranks.first:
        full = source.load(ranks.device)
        read = weights_hash(full)
        _prepare(full, config)
        weights = {name: tensor.detach() for name, tensor in _tensors(full).items()}
        del full
    model = source.empty()
    parts = _prepare(model, config)
    parallelize(model, config.parallel, ranks)
    model.to_empty(device=ranks.device)
    _broadcast(model, weights, ranks)
    _keep_rotary(model, ranks)
    return Built(model, source.defaults, parts, read)


def build_empty(config: RunConfig) -> Built:
    """The model on the meta device, for a report; by its declared sizes where its files are not here."""
    model = config.model
    absent = [
        name for name in (model.init_from, model.base_vlm, model.base_dit) if name and not _is_here(name)
    ]
    if absent and model.sizes is not None and model.new_bridge in (None, BridgeSizes()):
        log.info("reported by its declared sizes (model.sizes): %s is not here", ", ".join(absent))
        model = ModelConfig(init_from=PUBLISHED_SIZES)
    source = open_source(model, config.seed)
    empty = source.empty()
    return Built(empty, source.defaults, _prepare(empty, config))


def _is_here(name: str) -> bool:
    return name in (TINY, PUBLISHED_SIZES, *SHIPPED) or Path(name).expanduser().exists()


def _prepare(model: DeepGenModel, config: RunConfig) -> list[TrainedPart]:
    frozen = None if config.frozen_dtype is None else getattr(torch, config.frozen_dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # of the adapters' first values
        return make_trainable(model, config.trainable, frozen)


def _keep_rotary(model: DeepGenModel, ranks: Ranks) -> None:
    """Rotary frequencies are in no checkpoint, and fp32 whatever the weights are."""
    rebuild_rotary(model.vlm.model, ranks.device)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and stored buffers by name, of modules that sharding has not renamed."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def _broadcast(model: nn.Module, weights: dict[str, Tensor], ranks: Ranks) -> None:
    """Every tensor of the first process to all; `weights` is emptied on the way.

    Raises:
        ConfigError: the first process lacks one (the processes run different code or configurations).
    """
    targets = _tensors(model)
    if ranks.first and set(targets) != set(weights):
        raise ConfigError("the processes built different models; start all with the same configuration")
    for name, target in targets.items():
        if ranks.first:
            values = weights.pop(name).to(ranks.device, target.dtype).contiguous()
        else:
            values = torch.empty(target.shape, dtype=target.dtype, device=ranks.device)
        dist.broadcast(values, 0)
        fill(target.data, values)
