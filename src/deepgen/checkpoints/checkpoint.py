"""What is in a checkpoint, before any weight is read: the same for every layout."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deepgen.checkpoints.defaults import GenerationDefaults
from deepgen.checkpoints.lora import Adapter, attach, merged
from deepgen.checkpoints.tensors import StoredTensors, check_fits, load_strictly
from deepgen.checkpoints.towers import (
    Networks,
    empty_bridge,
    empty_dit,
    empty_vae,
    empty_vlm,
    load_tokenizer,
    rebuild_rotary,
)
from deepgen.errors import CheckpointError, ConfigError
from deepgen.model.deepgen import DeepGenModel
from deepgen.model.vlm import FusedVLM

UNADAPTED = (
    "{path} holds no LoRA of the VLM: the base VLM is used as it is, untuned, and the pictures will be worse than "
    "the published model's; give the fine-tuned (SFT) checkpoint, which holds it, as lora"
)
TOWERS = ("vlm", "connector", "transformer", "vae")


@dataclass(frozen=True)
class Bases:
    """Where to take what a checkpoint itself does not hold.

    Attributes:
        vlm: folder of Qwen2.5-VL, with its tokenizer.
        dit: folder of UniPic2 (transformer/, vae/, scheduler/).
    """

    vlm: Path | None = None
    dit: Path | None = None


@dataclass(frozen=True)
class Part:
    """One network on disk.

    Attributes:
        origin: folder or file, for errors.
        tensors: under the names of our modules.
        config: its config.json, and `config_file` where that stands; None where sizes come from the tensors.
        zero_exempt: patterns of the names of matrices that may be all zero.
        adapters: of its layers, by the names of the weights that they change.
    """

    origin: Path
    tensors: StoredTensors
    config: dict[str, Any] | None = None
    config_file: Path | None = None
    zero_exempt: tuple[str, ...] = ()
    adapters: Mapping[str, Adapter] = field(default_factory=dict)

    def config_path(self) -> Path:
        return self.config_file or self.origin


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of any layout, opened.

    Attributes:
        layout: its name.
        path: file or folder.
        parts: by the names in TOWERS, as far as they are there.
        missing: what is not, with what to do about it.
        tokenizers: folders that may hold the tokenizer, the best first.
        defaults: how it likes to be sampled.
        adapted: whether the VLM's weights were tuned together with the rest, as far as can be known.
    """

    layout: str
    path: Path
    parts: Mapping[str, Part]
    defaults: GenerationDefaults
    tokenizers: tuple[Path, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    adapted: bool = True

    def nbytes(self, dtype: torch.dtype | None) -> int:
        """Bytes of all weights in a dtype; None for the stored ones."""
        tensors = [item for part in self.parts.values() for item in part.tensors.values()]
        return sum(item.numel * (dtype or item.dtype).itemsize for item in tensors)

    def require_complete(self) -> None:
        """Raise CheckpointError, saying what to give, unless all networks are there."""
        for reason in self.missing.values():
            raise CheckpointError(reason)

    def empty_networks(self) -> Networks:
        """The four networks on the meta device, sized as the checkpoint says.

        Raises:
            CheckpointError: a network is missing or a config cannot be used.
        """
        self.require_complete()
        vlm_part, connector, transformer, vae = (self.parts[name] for name in TOWERS)
        vlm = empty_vlm(vlm_part.config or {}, vlm_part.config_path())
        dit = empty_dit(transformer.config or {}, transformer.config_path())
        bridge = empty_bridge(
            connector.config,
            connector.config_path(),
            connector.tensors,
            vlm.config.text_config.hidden_size,
            dit.config.attention_head_dim,
        )
        return Networks(vlm, bridge, dit, empty_vae(vae.config or {}, vae.config_path()))

    def load(
        self,
        dtype: torch.dtype | None = torch.float32,
        device: torch.device | str = "cpu",
        merge: bool = True,
    ) -> tuple[DeepGenModel, GenerationDefaults]:
        """The model in evaluation mode, with every tensor read, checked and used.

        Args:
            dtype: of the floating-point weights; None keeps each as it is stored.
            device: where the weights go, one by one as they are read.
            merge: adapters into the weights; False runs them beside their layers (on the CPU only), which is how
                the published numbers were computed, to the last digits.

        Raises:
            CheckpointError: tensors are missing, unexpected, mis-shaped or damaged.
        """
        networks = self.empty_networks()
        model = self._assemble(networks)
        modules: dict[str, nn.Module] = networks.by_name()
        for name, module in modules.items():
            check_fits(module, self.parts[name].tensors, self.parts[name].origin)
        if not self.adapted:
            warnings.warn(UNADAPTED.format(path=self.path), stacklevel=3)
        for name, module in modules.items():
            part = self.parts[name]
            tensors = merged(part.tensors, part.adapters) if merge else part.tensors
            load_strictly(module, tensors, dtype, device, part.zero_exempt)
            if not merge:
                attach(module, part.adapters, dtype)
        rebuild_rotary(networks.vlm)
        return model.eval().to(device), self.defaults

    def _assemble(self, networks: Networks) -> DeepGenModel:
        tokenizer = load_tokenizer(self.tokenizers)
        try:
            vlm = FusedVLM(networks.vlm, tokenizer, networks.bridge.config.num_fused_layers)
            return DeepGenModel(vlm, networks.bridge, networks.dit, networks.vae)
        except ConfigError as error:
            raise CheckpointError(f"{self.path} cannot be used: {error}") from None
