"""Many processes, one model: who this process is, and sharding applied from outside to a finished model.

Parameters that are trained are kept in fp32; all passes run under `autocast` in `compute_dtype`. What FSDP2 shards it
casts when it gathers, so there autocast finds nothing left to cast. One process shards nothing, whatever is asked for:
gathering from itself only costs copies. `parallelize` works block by block, in the order compilation, recomputation,
FSDP2.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard
from torch.utils.checkpoint import checkpoint

from deepgen.config import Config
from deepgen.errors import ConfigError
from deepgen.model.deepgen import DeepGenModel

DType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Ranks:
    """This process among all: `rank` of `world_size`, `local_rank` on its host, and the device it computes on."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0


class ParallelConfig(Config):
    """How the work is spread and in what type it is computed."""

    shard: Literal["none", "fsdp", "hsdp"] = Field(
        "none", description="none: every process holds all; fsdp: parameters over all; hsdp: within replicas"
    )
    replicas: int = Field(1, ge=1, description="copies of the sharded model, for hsdp; usually the hosts")
    shard_frozen: bool = Field(
        True, description="false: networks trained by adapters or not at all stay whole on every process"
    )
    checkpoint_activations: bool | float = Field(
        False,
        ge=0,
        le=1,
        description="blocks recomputed in the backward pass: none, all, or this share of them",
    )
    compile: bool = Field(
        False, description="compile each block and the VAE's encoder, sizes symbolic once they have varied"
    )
    compute_dtype: DType = "float32"

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.compute_dtype)

    @property
    def recomputed(self) -> float:
        """Share of the blocks that are recomputed."""
        return float(self.checkpoint_activations)


def start_ranks(device: str) -> Ranks:
    """Join the group that torchrun describes in the environment; alone where there is none.

    Args:
        device: "cpu" (gloo) or "cuda" (NCCL, one device a process).

    Raises:
        ConfigError: no such device here.
    """
    kind = torch.device(device)
    if kind.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but there is none here; set device=cpu")
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    if kind.type == "cuda":
        kind = torch.device("cuda", local if kind.index is None else kind.index)
        torch.cuda.set_device(kind)
    if world > 1 and not dist.is_initialized():
        # gloo beside NCCL: checkpoints and agreements travel through host memory.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if kind.type == "cuda" else "gloo",
            device_id=kind if kind.type == "cuda" else None,
        )
    rank = dist.get_rank() if dist.is_initialized() else 0
    return Ranks(rank, dist.get_world_size() if dist.is_initialized() else 1, local, kind)


def stop_ranks() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def make_mesh(config: ParallelConfig, ranks: Ranks) -> DeviceMesh:
    """The mesh that parameters are sharded over: one axis, or replicas × shards.

    Raises:
        ConfigError: the processes do not divide into the replicas.
    """
    if config.shard == "fsdp":
        return init_device_mesh(ranks.device.type, (ranks.world_size,), mesh_dim_names=("shard",))
    if ranks.world_size % config.replicas:
        raise ConfigError(
            f"parallel.replicas is {config.replicas}, which {ranks.world_size} processes do not fill"
        )
    shape = (config.replicas, ranks.world_size // config.replicas)
    return init_device_mesh(ranks.device.type, shape, mesh_dim_names=("replicate", "shard"))


def blocks_of(model: DeepGenModel) -> dict[str, list[nn.Module]]:
    """The repeated blocks that run through their own `forward`, by network."""
    text = model.vlm.model.language_model
    return {
        "vlm": list(text.layers[: max(model.vlm.indices)]),
        "bridge": list(model.bridge.connector.layers),
        "dit": list(model.dit.transformer_blocks),
    }


def parallelize(model: DeepGenModel, config: ParallelConfig, ranks: Ranks) -> DeepGenModel:
    """Apply checkpointing, compilation and sharding to a model whose trained parameters are chosen already.

    The VAE and the VLM's vision tower stay whole on every process, and so does everything where there is one process.
    Returns the same model; its parameters may now be DTensors.

    Sharded networks gather their parameters together: every process must call `bridge.think_tokens`, `vlm.hidden`,
    `bridge`, `dit` (and `vlm.pad_row`) equally often, whatever its samples are; see `supervised.condition`.
    """
    if config.compile:
        _compile(model)
    recompute(model, config.recomputed)
    if config.dtype != torch.float32:
        # One type for what runs through blocks, sharded or not.
        for network in (model.bridge, model.dit):
            network.register_forward_pre_hook(partial(_cast_inputs, dtype=config.dtype), with_kwargs=True)
    if config.shard != "none" and ranks.world_size > 1:
        _shard(model, config, ranks)
    return model


def _compile(model: DeepGenModel) -> None:
    """Each kind of block for the sizes it meets first; those that vary from then on are symbolic in its next graph.

    Symbolic sizes from the start took four times as long before the first update.
    """
    # One code object serves all blocks: several structures, with and without gradients.
    torch._dynamo.config.recompile_limit = 64
    for blocks in blocks_of(model).values():
        for block in blocks:
            block.forward = torch.compile(block.forward)
    model.vlm.vision_block = torch.compile(model.vlm.vision_block)
    model.vae.encoder.forward = torch.compile(model.vae.encoder.forward)


def recompute(model: DeepGenModel, share: float) -> None:
    """Let this share of each network's blocks, spread evenly, be computed again in the backward pass.

    May be called again with another share.
    """
    for blocks in blocks_of(model).values():
        for i, block in enumerate(blocks):
            forward = block.forward
            if isinstance(forward, partial) and forward.func is checkpoint:
                forward = forward.args[0]
            chosen = math.floor((i + 1) * share) > math.floor(i * share)
            block.forward = partial(checkpoint, forward, use_reentrant=False) if chosen else forward


def _shard(model: DeepGenModel, config: ParallelConfig, ranks: Ranks) -> None:
    # Inputs are cast by hooks of ours: FSDP's would round timesteps and pixels to bf16 too.
    policy = MixedPrecisionPolicy(
        param_dtype=config.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    shard: Callable[..., Any] = partial(
        fully_shard, mesh=make_mesh(config, ranks), mp_policy=policy, reshard_after_forward=True
    )

    def wanted(network: nn.Module) -> bool:
        return config.shard_frozen or all(p.requires_grad for p in network.parameters())

    # FSDP2 warns of views in general; nothing here changes an output in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    blocks = blocks_of(model)
    if wanted(model.vlm.model.language_model.layers[0]):
        for layer in model.vlm.model.language_model.layers:
            shard(layer)
            register_fsdp_forward_method(layer, "feed_forward")
        # The vision tower stays whole: processes without an edit never call it, and one that gathers alone would wait
        # for ever. Its gradients, where it is trained, are averaged by the update.
        shard(model.vlm, ignored_params=set(model.vlm.model.visual.parameters()))
        for method in ("hidden", "pad_row"):
            register_fsdp_forward_method(model.vlm, method)
    if wanted(model.bridge.connector):
        for block in blocks["bridge"]:
            shard(block)
        shard(model.bridge)
        register_fsdp_forward_method(model.bridge, "think_tokens")
    if wanted(model.dit):
        for block in blocks["dit"]:
            shard(block)
        shard(model.dit)


def _cast_inputs(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: torch.dtype
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Floating inputs in the compute type, but the timestep, of which bf16 has too few."""

    def cast(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(dtype)
        if isinstance(value, list | tuple):
            return [cast(x) for x in value]
        return value

    return tuple(cast(x) for x in args), {k: v if k == "timestep" else cast(v) for k, v in kwargs.items()}


@contextmanager
def computing(config: ParallelConfig, ranks: Ranks) -> Iterator[None]:
    """The context that forward passes run in: autocast where the compute type is not fp32."""
    with torch.autocast(ranks.device.type, dtype=config.dtype, enabled=config.dtype != torch.float32):
        yield


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered on every process; any other tensor itself. Collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy whole values into a tensor, of which a sharded one takes its part."""
    if not isinstance(tensor, DTensor):
        tensor.copy_(values)
        return
    mesh, mine = tensor.device_mesh, values
    for axis, placement in enumerate(tensor.placements):
        if isinstance(placement, Shard):
            parts = torch.chunk(mine, mesh.size(axis), dim=placement.dim)
            place = mesh.get_local_rank(axis)
            mine = parts[place] if place < len(parts) else mine.narrow(placement.dim, 0, 0)
    tensor.to_local().copy_(mine)


def all_mean(value: Tensor, ranks: Ranks) -> Tensor:
    """The mean of a tensor over all processes, in fp32; a copy."""
    result = value.detach().float().clone()
    if ranks.world_size > 1:
        dist.all_reduce(result)
        result /= ranks.world_size
    return result


def all_gather_rows(x: Tensor, ranks: Ranks) -> Tensor:
    """Rows [B, …] of all processes, of equal B, by rank [W·B, …]; without gradients."""
    if ranks.world_size == 1:
        return x.detach()
    parts = [torch.empty_like(x) for _ in range(ranks.world_size)]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def any_rank(flag: bool, ranks: Ranks) -> bool:
    """Whether the flag holds on any process. Collective."""
    if ranks.world_size == 1:
        return flag
    value = torch.tensor([float(flag)], device=ranks.device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def sums_of(values: Sequence[int], ranks: Ranks) -> list[int]:
    """Numbers added up over all processes. Collective."""
    if ranks.world_size == 1:
        return list(values)
    totals = torch.tensor(values, device=ranks.device)
    dist.all_reduce(totals)
    return totals.tolist()


def most_of(value: int, ranks: Ranks) -> int:
    """The largest of a number over all processes. Collective."""
    if ranks.world_size == 1:
        return value
    most = torch.tensor(value, device=ranks.device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)
