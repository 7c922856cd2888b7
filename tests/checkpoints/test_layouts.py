"""Every layout that holds the golden weights computes the golden numbers."""

import json
import shutil
import warnings

import pytest
import torch
from typer.testing import CliRunner

from deepgen.checkpoints import load_model, open_checkpoint
from deepgen.cli import build_app
from deepgen.errors import CheckpointError, InputError


def verify(layouts, cases, model, **options):
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    arguments = ["verify", str(layouts.golden / cases), "--model", str(model), *words]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(build_app(arguments), arguments)


def old_spelling(name):
    return name.replace("lmm.model.visual.", "lmm.visual.").replace("lmm.model.language_model.", "lmm.model.")


PLAIN = {
    "a file": lambda x: x.file("model.pt", x.native),
    "a folder": lambda x: x.file("native/model.pt", x.native).parent,
    "safetensors": lambda x: x.file("weights.safetensors", x.native),
    "wrapped": lambda x: x.file("iter.pth", {"state_dict": x.native, "meta": {"epoch": 1}}),
    "DDP's names": lambda x: x.file("ddp.pth", {f"module.{n}": v for n, v in x.native.items()}),
    "RL trainer": lambda x: x.file("checkpoint-50/model.safetensors", x.native).parent,
    "DeepSpeed, one rank": lambda x: x.deepspeed("one.pth", *x.trained_and_buffer(), ranks=1, groups=1),
    "DeepSpeed, three ranks": lambda x: x.deepspeed("iter_4.pth", *x.trained_and_buffer()),
}


@pytest.mark.parametrize("layout", PLAIN)
def test_the_golden_cases_hold_for(layouts, layout):
    result = verify(layouts, "cases", PLAIN[layout](layouts), **layouts.bases)
    assert result.exit_code == 0, result.output
    assert "20 of 20 tensors in 4 cases hold" in result.output


ADAPTED = {
    "a file with adapters": lambda x: (x.file("model.pt", {**x.native, **x.lora}), None),
    "older names": lambda x: (
        x.file("old.pt", {**x.native, **{old_spelling(n): v for n, v in x.lora.items()}}),
        None,
    ),
    "DeepSpeed": lambda x: (
        x.deepspeed("sft.pth", {**x.trained_and_buffer()[0], **x.lora}, x.trained_and_buffer()[1]),
        None,
    ),
    "adapters from a file": lambda x: (x.file("model.pt", x.native), x.file("sft.pt", x.lora)),
    "adapters from DeepSpeed": lambda x: (
        x.file("checkpoint-9/model.safetensors", x.native).parent,
        x.deepspeed("sft.pth", {**x.trained_and_buffer()[0], **x.lora}, x.trained_and_buffer()[1]),
    ),
    "adapters from peft": lambda x: (x.file("model.pt", x.native), x.peft("peft", x.lora)),
    "adapters over the diffusers layout": lambda x: (x.diffusers, x.peft("peft", x.lora)),
}


@pytest.mark.parametrize("layout", ADAPTED)
def test_the_golden_cases_with_adapters_hold_for(layouts, layout):
    model, lora = ADAPTED[layout](layouts)
    options = {**({} if model == layouts.diffusers else layouts.bases), **({"lora": lora} if lora else {})}
    result = verify(layouts, "cases_lora", model, **options)
    assert result.exit_code == 0, result.output
    assert "6 of 6 tensors in 1 cases hold" in result.output


def test_without_its_adapters_a_native_checkpoint_warns_and_fails_their_case(layouts):
    model = layouts.file("model.pt", layouts.native)
    with pytest.warns(UserWarning, match=r"holds no LoRA of the VLM.*worse.*as lora"):
        load_model(model, **layouts.bases)
    assert verify(layouts, "cases_lora", model, **layouts.bases).exit_code == 1


def test_before_joint_tuning_the_transformer_is_the_bases_and_nothing_is_warned_of(layouts):
    bridge = {n: v for n, v in layouts.native.items() if not n.startswith("transformer.")}
    model = layouts.deepspeed("iter_2.pth", bridge, layouts.trained_and_buffer()[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(model, **layouts.bases)
    result = verify(layouts, "cases", model, **layouts.bases)
    assert result.exit_code == 0, result.output


def test_the_position_table_of_the_checkpoint_goes_before_the_bases(layouts):
    tensors = {n: v for n, v in layouts.native.items() if not n.startswith("transformer.")}
    table = layouts.native["transformer.pos_embed.pos_embed"] + 1
    model = layouts.file("model.pt", {**tensors, "transformer.pos_embed.pos_embed": table})
    loaded, _ = load_model(model, **layouts.bases)
    assert torch.equal(loaded.dit.pos_embed.pos_embed, table)


def test_whole_networks_kept_in_a_native_file_go_before_the_bases(layouts):
    base = open_checkpoint(layouts.diffusers).parts
    vae = {f"vae.{n}": t.read(n) for n, t in base["vae"].tensors.items()}
    vlm = {f"lmm.model.{n}": t.read(n) for n, t in base["vlm"].tensors.items()}
    under = "lmm.model.language_model.layers.0.mlp.up_proj.weight"
    changed = vlm.pop(under) + 1
    vlm[under.replace(".weight", ".base_layer.weight")] = changed
    model, _ = load_model(layouts.file("all.pt", {**layouts.native, **vae, **vlm}), **layouts.bases)
    assert torch.equal(model.vlm.model.language_model.layers[0].mlp.up_proj.weight, changed)


def test_a_native_checkpoint_says_which_bases_it_needs(layouts):
    model = layouts.file("model.pt", layouts.native)
    with pytest.raises(CheckpointError, match=r"base_vlm.*Qwen/Qwen2\.5-VL-3B-Instruct"):
        load_model(model, base_dit=layouts.dit)
    with pytest.raises(CheckpointError, match=r"base_dit.*Skywork/UniPic2"):
        load_model(model, base_vlm=layouts.vlm)


def test_a_vlm_beside_the_weights_is_never_replaced(layouts):
    other = shutil.copytree(layouts.vlm, layouts.root / "other")
    (other / "model.safetensors").unlink()
    with pytest.warns(UserWarning, match="VLM of its own; base_vlm is not used"):
        load_model(layouts.diffusers, base_vlm=other)


def test_adapters_for_a_checkpoint_that_has_some_are_refused(layouts):
    model = layouts.file("model.pt", {**layouts.native, **layouts.lora})
    with pytest.raises(InputError, match="adapters of its own"):
        open_checkpoint(model, **layouts.bases, lora=layouts.file("lora.pt", layouts.lora))
    with pytest.raises(InputError, match="holds no LoRA"):
        open_checkpoint(layouts.diffusers, lora=layouts.file("plain.pt", layouts.native))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: {**x, "head.weight": torch.ones(2)}, "head.weight, which no DeepGen checkpoint has"),
        (lambda x: {**x, "projector_9.weight": torch.ones(2)}, "projector_9.weight"),
        (lambda x: {n: v for n, v in x.items() if "proj_out.weight" not in n}, "lacks proj_out.weight"),
        (lambda x: {**x, "meta_queries": torch.zeros(8, 32)}, "meta_queries in .* all zeros"),
        (lambda x: {**x, "module.meta_queries": x["meta_queries"]}, "stored twice"),
        (lambda x: {n: v for n, v in x.items() if n.startswith("transformer.")}, "lacks the connector"),
        (lambda x: {**x, "step": 3}, "step, which is not a tensor"),
        (lambda x: [1, 2], "no dictionary of tensors"),
    ],
)
def test_a_native_file_that_does_not_fit_is_refused(layouts, change, words):
    with pytest.raises(CheckpointError, match=words):
        load_model(layouts.file("model.pt", change(dict(layouts.native))), **layouts.bases)


def test_a_folder_of_checkpoints_names_those_in_it(layouts):
    for step in (5, 10):
        layouts.file(f"run/checkpoint-{step}/model.safetensors", layouts.native)
    with pytest.raises(CheckpointError, match="give one of those in it: checkpoint-10, checkpoint-5"):
        load_model(layouts.root / "run")


def test_another_models_folder_is_not_taken_for_a_checkpoint(layouts):
    with pytest.raises(CheckpointError, match="which no DeepGen checkpoint has"):
        load_model(layouts.vlm, **layouts.bases)


def test_a_native_checkpoint_takes_the_schedule_of_the_base(layouts):
    file = layouts.dit / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "shift": 2.0}))
    model = layouts.file("model.pt", layouts.native)
    assert open_checkpoint(model, **layouts.bases).defaults.shift == 2.0
