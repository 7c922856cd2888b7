"""What `deepgen inspect` tells of a checkpoint; reads headers only."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import nn

from deepgen.checkpoints.checkpoint import TOWERS, Checkpoint, Part
from deepgen.checkpoints.licences import licence_of
from deepgen.checkpoints.tensors import Stored, compare, listed

NUMBERED = re.compile(r"\.(\d+)(?=\.)")


def describe(checkpoint: Checkpoint, shapes: bool = False) -> tuple[list[str], bool]:
    """Lines to print, and whether the checkpoint is complete.

    Args:
        checkpoint: opened, complete or not.
        shapes: also every tensor's, numbered layers in one line.

    Raises:
        CheckpointError: a config cannot be used.
    """
    lines = [f"layout       {checkpoint.layout}  {checkpoint.path}"]
    networks = {} if checkpoint.missing else checkpoint.empty_networks().by_name()
    for name in TOWERS:
        if name in checkpoint.parts:
            lines += _part_lines(name, checkpoint.parts[name], networks.get(name), shapes)
    problems = [*checkpoint.missing.values(), *_differences(checkpoint, networks)]
    lines.append(f"parameters   {sum(_count(p.tensors) for p in checkpoint.parts.values()):,} stored values")
    defaults = checkpoint.defaults
    lines.append(
        f"sampling     {defaults.num_inference_steps} steps, guidance {defaults.guidance_scale}, shift "
        f"{defaults.shift}, {defaults.area} pixels, padding {defaults.padding}"
    )
    if not checkpoint.adapted:
        lines.append("note         no LoRA of the VLM: a base VLM will be used untuned; give one with --lora")
    lines += [f"missing      {problem}" for problem in dict.fromkeys(problems)]
    return lines, not problems


def _part_lines(name: str, part: Part, network: nn.Module | None, shapes: bool) -> list[str]:
    types = Counter(str(item.dtype).removeprefix("torch.") for item in part.tensors.values())
    kinds = ", ".join(f"{kind} ({count})" if len(types) > 1 else kind for kind, count in types.most_common())
    lines = [f"{name:12} {part.origin}"]
    lines.append(f"  {len(part.tensors)} tensors, {_count(part.tensors):,} values, {kinds}")
    if network is not None:
        lines.append(f"  {_size_of(network)}")
    if part.adapters:
        ranks = Counter(adapter.a.shape[0] for adapter in part.adapters.values())
        lines.append(f"  {len(part.adapters)} adapters of rank {', '.join(map(str, sorted(ranks)))}")
    lines.append(f"  licence: {licence_of(name, part.tensors)}")
    return lines + ([f"    {line}" for line in shape_lines(part.tensors)] if shapes else [])


def _size_of(network: Any) -> str:
    """The numbers of a network's config that give its size."""
    config = getattr(network.config, "text_config", network.config)
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    wanted = (
        *("num_hidden_layers", "num_layers", "hidden_size", "num_attention_heads", "attention_head_dim"),
        *("intermediate_size", "vocab_size", "num_queries", "num_fused_layers", "joint_attention_dim"),
        *("block_out_channels", "latent_channels", "sample_size"),
    )
    return ", ".join(f"{key} {values[key]}" for key in wanted if values.get(key) is not None)


def _count(tensors: Mapping[str, Stored]) -> int:
    return sum(item.numel for item in tensors.values())


def _differences(checkpoint: Checkpoint, networks: Mapping[str, nn.Module]) -> list[str]:
    found = []
    for name, network in networks.items():
        difference = compare(network, checkpoint.parts[name].tensors)
        for what in ("missing", "unexpected", "misshapen"):
            names = getattr(difference, what)
            if names:
                found.append(f"{name}: {len(names)} tensors {what}: {listed(names)}")
    return found


def shape_lines(tensors: Mapping[str, Stored]) -> list[str]:
    """Names and shapes; names that differ only in their first number, and have one shape, share a line."""
    groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for name, item in tensors.items():
        match = NUMBERED.search(name)
        pattern = name if match is None else f"{name[: match.start()]}.*{name[match.end() :]}"
        groups.setdefault((pattern, item.shape), []).append(-1 if match is None else int(match[1]))
    return [
        f"{name} {list(shape)}" + (f"  x{len(numbers)}" if len(numbers) > 1 else "")
        for (name, shape), numbers in groups.items()
    ]
