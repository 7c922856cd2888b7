"""Native tensor names: from one flat dictionary, as the published training code writes it, to our networks.

    meta_queries  projector_{1,2,3}.*  connector.*     the bridge
    transformer.*                                      the diffusion transformer; absent after pre-training
    lmm.*.lora_*                                       adapters of the VLM; only after joint fine-tuning
    lmm.*  vae.*                                       whole networks: never published, but some savers keep them

The rest comes from the base VLM and the base DiT.
"""

from dataclasses import dataclass, field
from pathlib import Path

from deepgen.checkpoints.base_folders import BaseDit, read_base_dit, read_base_vlm
from deepgen.checkpoints.checkpoint import Bases, Checkpoint, Part
from deepgen.checkpoints.defaults import GenerationDefaults
from deepgen.checkpoints.lora import Adapter, check_adapters, is_factor, read_adapters
from deepgen.checkpoints.tensors import StoredTensors, listed, rename
from deepgen.checkpoints.towers import vlm_name
from deepgen.errors import CheckpointError
from deepgen.model.bridge import Bridge

BRIDGE_ROOTS = ("connector", "projector_1", "projector_2", "projector_3", "meta_queries")
POSITION_TABLE = "pos_embed.pos_embed"
NEEDS_VLM = (
    "{path} holds no VLM; give the folder of Qwen2.5-VL-3B-Instruct as base_vlm (--base-vlm), or its name on the "
    "hub, Qwen/Qwen2.5-VL-3B-Instruct"
)
NEEDS_DIT = (
    "{path} holds no {what}; give the folder of UniPic2-SD3.5M-Kontext-2B as base_dit (--base-dit), or its name on "
    "the hub, Skywork/UniPic2-SD3.5M-Kontext-2B"
)


@dataclass
class NativeTensors:
    """A flat dictionary, sorted by network; names are those of our modules."""

    bridge: StoredTensors = field(default_factory=dict)
    dit: StoredTensors = field(default_factory=dict)
    vae: StoredTensors = field(default_factory=dict)
    vlm: StoredTensors = field(default_factory=dict)
    factors: StoredTensors = field(default_factory=dict)

    def adapters(self) -> dict[str, Adapter]:
        """The VLM's adapters, by our name of the weight that each changes; the unused language head's is left out."""
        return vlm_adapters(read_adapters(self.factors))


def vlm_adapters(by_module: dict[str, Adapter]) -> dict[str, Adapter]:
    """Adapters under our names of their weights, from modules in any spelling of the VLM's names.

    Raises:
        CheckpointError: two spellings of one module.
    """
    found: dict[str, Adapter] = {}
    for module, adapter in by_module.items():
        name = vlm_name(f"{module.removeprefix('lmm.')}.weight")
        if name in found:
            raise CheckpointError(f"{module} in {adapter.a.file} is stored twice, under two spellings")
        if name is not None:
            found[name] = adapter
    return found


def canonical_name(name: str) -> str:
    """A native name without the wrappers' prefixes that some trainers leave."""
    return name.removeprefix("module.").removeprefix("model.")


def sort_native(flat: StoredTensors) -> NativeTensors:
    """Sort a flat dictionary.

    Raises:
        CheckpointError: a tensor is of no network of the model, or stored under two spellings.
    """
    found = NativeTensors()
    vlm: StoredTensors = {}
    unknown = []
    for name, item in rename(flat, canonical_name).items():
        root, _, rest = name.partition(".")
        if root in BRIDGE_ROOTS:
            found.bridge[name] = item
        elif root == "transformer":
            found.dit[rest] = item
        elif root == "vae":
            found.vae[rest] = item
        elif root == "lmm":
            (found.factors if is_factor(name) else vlm)[rest] = item
        else:
            unknown.append(name)
    if unknown:
        file = rename(flat, canonical_name)[unknown[0]].file
        raise CheckpointError(
            f"{file} holds {listed(unknown)}, which no DeepGen checkpoint has; is it another model's?"
        )
    found.vlm = rename(vlm, _vlm_base_name)
    return found


def _vlm_base_name(name: str) -> str | None:
    """Under an adapter a module's own weight has a longer name."""
    return vlm_name(name.replace(".base_layer.", "."))


def native_checkpoint(layout: str, path: Path, flat: StoredTensors, bases: Bases) -> Checkpoint:
    """What a flat dictionary and the bases make together.

    Raises:
        CheckpointError: tensors that belong to no network, or a base that is incomplete.
    """
    own = sort_native(flat)
    parts, missing = {}, {}
    if own.bridge:
        parts["connector"] = Part(path, own.bridge, zero_exempt=Bridge.ZERO_INITIALISED)
    else:
        missing["connector"] = f"{path} lacks the connector; is it a DeepGen checkpoint?"
    if bases.vlm is None:
        missing["vlm"] = NEEDS_VLM.format(path=path)
        vlm = Part(path, own.vlm, adapters=own.adapters())
    else:
        base = read_base_vlm(bases.vlm, with_weights=not own.vlm)
        vlm = Part(base.origin, own.vlm or base.tensors, base.config, base.config_file, (), own.adapters())
        check_adapters(vlm.tensors, vlm.adapters)
    shift = 3.0
    if bases.dit is None:
        missing["transformer"] = NEEDS_DIT.format(path=path, what="transformer's config")
        missing["vae"] = NEEDS_DIT.format(path=path, what="VAE's config")
        transformer, vae = Part(path, own.dit), Part(path, own.vae)
    else:
        base_dit = read_base_dit(bases.dit, with_weights=not _is_whole(own.dit), with_vae=not own.vae)
        transformer, vae, shift = _transformer(path, own, base_dit), _vae(path, own, base_dit), base_dit.shift
    for name, part in (("vlm", vlm), ("transformer", transformer), ("vae", vae)):
        if part.tensors or part.adapters:
            parts[name] = part
    # Before joint fine-tuning (no transformer of its own) the VLM really is the base.
    adapted = bool(own.factors or own.vlm) or not _is_whole(own.dit)
    tokenizers = () if bases.vlm is None else (bases.vlm,)
    return Checkpoint(layout, path, parts, GenerationDefaults(shift=shift), tokenizers, missing, adapted)


def _is_whole(dit: StoredTensors) -> bool:
    return bool(set(dit) - {POSITION_TABLE})


def _transformer(path: Path, own: NativeTensors, base: BaseDit) -> Part:
    """The checkpoint's own, or the base's under the position table, which is saved without the rest."""
    if _is_whole(own.dit):
        return Part(path, own.dit, base.transformer.config, base.transformer.config_file)
    part = base.transformer
    return Part(part.origin, {**part.tensors, **own.dit}, part.config, part.config_file)


def _vae(path: Path, own: NativeTensors, base: BaseDit) -> Part:
    return Part(path, own.vae, base.vae.config, base.vae.config_file) if own.vae else base.vae
