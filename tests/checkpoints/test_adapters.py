"""Adapters: what is added to which weight, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file

from deepgen.checkpoints import load_model, open_checkpoint
from deepgen.errors import CheckpointError

LAYER = "language_model.layers.3.mlp.up_proj"
NATIVE = f"lmm.model.{LAYER}"
EMBEDDING = "lmm.model.language_model.embed_tokens.lora_embedding"


def of_layer(layouts, scale=2.0):
    a, b = (layouts.lora[f"{NATIVE}.lora_{side}.default.weight"] for side in "AB")
    return scale * b @ a


def weight(model, name=f"{LAYER}.weight"):
    return model.vlm.model.state_dict()[name]


@pytest.fixture
def base(layouts):
    return load_model(layouts.diffusers)[0]


def test_a_linear_layer_gets_twice_b_times_a(layouts, base):
    model, _ = load_model(layouts.diffusers, lora=layouts.file("lora.pt", layouts.lora))
    torch.testing.assert_close(weight(model), weight(base) + of_layer(layouts))


def test_an_embedding_gets_the_transpose(layouts, base):
    model, _ = load_model(layouts.diffusers, lora=layouts.file("lora.pt", layouts.lora))
    a, b = (layouts.lora[f"{EMBEDDING}_{side}.default"] for side in "AB")
    name = "language_model.embed_tokens.weight"
    torch.testing.assert_close(weight(model, name), weight(base, name) + 2 * (b @ a).T)


def test_merging_is_done_in_fp32_and_cast_afterwards(layouts, base):
    model, _ = load_model(
        layouts.diffusers, torch.bfloat16, lora=layouts.file("lora.safetensors", layouts.lora)
    )
    assert torch.equal(weight(model), (weight(base) + of_layer(layouts)).bfloat16())


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 4}, 1.0),
        ({"lora_alpha": 4, "use_rslora": True}, 2.0),
        ({"lora_alpha": 4, "alpha_pattern": {r"layers\.3\.mlp\.up_proj": 12}}, 3.0),
    ],
)
def test_a_peft_folder_says_how_strong_it_is(layouts, base, config, scale):
    model, _ = load_model(layouts.diffusers, lora=layouts.peft("peft", layouts.lora, **config))
    torch.testing.assert_close(weight(model), weight(base) + of_layer(layouts, scale))


def test_a_whole_embedding_in_a_peft_folder_takes_the_bases_place(layouts, base):
    name = "lmm.model.language_model.embed_tokens.base_layer.weight"
    other = torch.randn(288, 32)
    model, _ = load_model(layouts.diffusers, lora=layouts.peft("peft", {**layouts.lora, name: other}))
    a, b = (layouts.lora[f"{EMBEDDING}_{side}.default"] for side in "AB")
    torch.testing.assert_close(weight(model, "language_model.embed_tokens.weight"), other + 2 * (b @ a).T)


def test_what_peft_itself_writes_is_read(layouts, base):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "qkv"], init_lora_weights=False)
    network = peft.get_peft_model(load_model(layouts.diffusers)[0].vlm.model, config)
    network.save_pretrained(layouts.root / "peft")
    model, _ = load_model(layouts.diffusers, lora=layouts.root / "peft")
    merged = network.merge_and_unload().state_dict()
    for name, value in weight_items(model):
        torch.testing.assert_close(value, merged[name])
    name = "language_model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(weight(model, name), weight(base, name))


def weight_items(model):
    return model.vlm.model.state_dict().items()


def test_a_peft_folder_may_adapt_the_transformer(layouts, base):
    module = "transformer_blocks.0.attn.to_q"
    factors = {f"{module}.lora_A.weight": torch.ones(2, 32), f"{module}.lora_B.weight": torch.ones(32, 2)}
    model, _ = load_model(layouts.diffusers, lora=layouts.peft("peft", factors, lora_alpha=2))
    before, after = (m.dit.state_dict()[f"{module}.weight"] for m in (base, model))
    torch.testing.assert_close(after, before + 2)


def without(tensors, name):
    return {n: v for n, v in tensors.items() if n != name}


FIRST = f"{NATIVE}.lora_A.default.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: without(x, FIRST), "only factor B"),
        (lambda x: {**x, FIRST: torch.ones(5, 32)}, "whose ranks differ"),
        (lambda x: {**x, FIRST: torch.ones(4, 33)}, r"for a weight of \[48, 33\]"),
        (lambda x: {**x, FIRST.replace("default", "other"): x[FIRST]}, "more than one adapter"),
        (lambda x: {n.replace("layers.3.", "layers.99."): v for n, v in x.items()}, "which the model lacks"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(layouts, change, words):
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(layouts.diffusers, lora=layouts.file("lora.pt", change(dict(layouts.lora))))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "LOHA"}, "only LORA"),
        ({"use_dora": True}, "use_dora"),
        ({"lora_alpha": "8"}, "not a number"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern"),
    ],
)
def test_another_method_of_peft_is_refused(layouts, config, words):
    folder = layouts.peft("peft", layouts.lora, **config)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(layouts.diffusers, lora=folder)


def test_a_layer_that_no_network_has_is_named(layouts):
    factors = {f"elsewhere.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    with pytest.raises(CheckpointError, match="adapts elsewhere"):
        open_checkpoint(layouts.diffusers, lora=layouts.peft("peft", factors))


def test_adapters_of_the_unused_language_head_are_left_out(layouts):
    checkpoint = open_checkpoint(layouts.diffusers, lora=layouts.peft("peft", layouts.lora))
    stored = load_file(layouts.root / "peft" / "adapter_model.safetensors")
    assert any("lm_head" in name for name in stored)
    assert len(checkpoint.parts["vlm"].adapters) == len(stored) // 2 - 1
    assert json.loads((layouts.root / "peft" / "adapter_config.json").read_text())["r"] == 4
