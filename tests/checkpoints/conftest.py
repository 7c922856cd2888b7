"""The golden model's weights in every layout, made from its diffusers folder."""

import enum
import json
import math
import shutil
import sys
import types
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
DIFFUSERS = GOLDEN / "diffusers"


class Layouts:
    """Writes layouts below a folder, each under a name of its own."""

    golden = GOLDEN
    diffusers = DIFFUSERS

    def __init__(self, root: Path) -> None:
        self.root = root
        bridge = load_file(DIFFUSERS / "connector" / "model.safetensors")
        dit = load_file(DIFFUSERS / "transformer" / "diffusion_pytorch_model.safetensors")
        self.native = {**bridge, **{f"transformer.{name}": value for name, value in dit.items()}}
        self.lora = load_file(GOLDEN / "lora.safetensors")
        self.vlm = root / "Qwen2.5-VL"
        self.dit = root / "UniPic2"
        shutil.copytree(DIFFUSERS / "vlm", self.vlm)
        for name in ("transformer", "vae", "scheduler"):
            shutil.copytree(DIFFUSERS / name, self.dit / name)
        self.bases = {"base_vlm": self.vlm, "base_dit": self.dit}

    def file(self, name, content) -> Path:
        """A torch or safetensors file, by its suffix."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
        return path

    def copy(self, name) -> Path:
        """A copy of the diffusers folder that a test may change."""
        return shutil.copytree(DIFFUSERS, self.root / name)

    def deepspeed(self, name, trained, module, ranks=3, groups=2, **changes) -> Path:
        """A ZeRO-2 folder as DeepSpeed and mmengine write it, with classes of theirs that do not exist here.

        `trained` goes to the fp32 shares, `module` is the filtered state of the module.
        """
        folder = self.root / name
        folder.mkdir()
        parts = [dict(list(trained.items())[i::groups]) for i in range(groups)]
        stage, scaler, restore = fake_deepspeed()
        flats = [torch.cat([value.flatten() for value in part.values()]) for part in parts]
        for rank in range(ranks):
            sizes = [math.ceil(len(flat) / (2 * ranks)) * 2 for flat in flats]
            shares = [flat[size * rank : size * (rank + 1)] for flat, size in zip(flats, sizes, strict=True)]
            state = {
                "zero_stage": stage(2),
                "partition_count": [ranks] * groups,
                "loss_scaler": scaler(),
                "single_partition_of_fp32_groups": [share.clone() for share in shares],
                **changes.get("optimizer", {}),
            }
            file = folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
            torch.save({"optimizer_state_dict": state, "ds_config": {"zero": {"stage": 2}}}, file)
        states = {
            "module": OrderedDict(module),
            "buffer_names": ["transformer.pos_embed.pos_embed"],
            "param_shapes": [OrderedDict((n, v.shape) for n, v in part.items()) for part in parts],
            "shared_params": {},
            "frozen_param_shapes": None,
            "frozen_param_fragments": None,
            "ds_version": "0.17.5",
            "meta": {"scaler": scaler(), "seen": {1, 2}},
            **changes.get("states", {}),
        }
        torch.save(states, folder / "mp_rank_00_model_states.pt")
        restore()
        return folder

    def trained_and_buffer(self):
        """The native tensors as DeepSpeed divides them: parameters, and the state that holds the buffer."""
        table = "transformer.pos_embed.pos_embed"
        return {n: v for n, v in self.native.items() if n != table}, {table: self.native[table]}

    def peft(self, name, factors, prefix="base_model.model.", **config) -> Path:
        """A peft folder with the golden adapters, named as peft would for Qwen2_5_VLForConditionalGeneration."""
        folder = self.root / name
        folder.mkdir()
        stored = {prefix + n.removeprefix("lmm.").replace(".default", ""): v for n, v in factors.items()}
        save_file(stored, folder / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", **config}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        return folder


def fake_deepspeed():
    """Classes that pickle as DeepSpeed's, and what removes them again."""
    module = types.ModuleType("deepspeed.runtime.zero")
    stage = enum.Enum("ZeroStageEnum", {"gradients": 2, "weights": 3}, module=module.__name__)
    scaler = type("LossScaler", (), {"__module__": module.__name__, "__qualname__": "LossScaler"})
    module.ZeroStageEnum, module.LossScaler = stage, scaler
    names = ("deepspeed", "deepspeed.runtime", module.__name__)
    sys.modules |= {names[0]: types.ModuleType(names[0]), names[1]: types.ModuleType(names[1])}
    sys.modules[names[2]] = module

    def restore():
        for name in names:
            del sys.modules[name]

    return stage, scaler, restore


@pytest.fixture
def layouts(tmp_path):
    return Layouts(tmp_path)
