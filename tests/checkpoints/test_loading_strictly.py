import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deepgen.checkpoints import GenerationDefaults, load_model, save_model
from deepgen.errors import CheckpointError, InputError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "diffusers"
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
CONNECTOR = "connector/model.safetensors"
VLM = "vlm/model.safetensors"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "model")
    return tmp_path / "model"


def change(path, **tensors):
    """Replace tensors of a file; None removes one."""
    weights = {**load_file(path), **{name.replace("__", "."): value for name, value in tensors.items()}}
    save_file({name: value for name, value in weights.items() if value is not None}, path)


def rename_all(path, rule):
    save_file({rule(name): value for name, value in load_file(path).items()}, path)


def assert_refused(folder, *words):
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_published_checkpoints_get_the_published_defaults(folder):
    assert load_model(folder)[1] == GenerationDefaults(shift=3.0, padding="pair")


def test_the_shift_comes_from_the_scheduler(folder):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shift": 2.5}))
    assert load_model(folder)[1].shift == 2.5


def test_dynamic_shifting_is_refused(folder):
    (folder / "scheduler" / "scheduler_config.json").write_text('{"use_dynamic_shifting": true}')
    assert_refused(folder, "dynamic shifting", "scheduler_config.json")


def test_the_bridges_sizes_are_read_off_its_tensors(folder):
    config = load_model(folder)[0].bridge.config
    assert (config.num_fused_layers, config.num_queries, config.num_layers, config.num_heads) == (6, 8, 6, 4)
    assert (config.intermediate_size, config.pooled_dim, config.context_dim) == (44, 24, 40)


def test_a_projector_of_one_state_means_the_last_hidden_state(folder):
    change(folder / CONNECTOR, projector_1__weight=torch.randn(32, 32))
    model, _ = load_model(folder)
    assert model.bridge.config.num_fused_layers == 0 and model.vlm.indices == [36]


@pytest.mark.parametrize("name", ['["code", "Unknown"]', '"SD3Transformer2DKontextModel"'])
def test_class_names_are_neither_needed_nor_executed(folder, name):
    for file in ("model_index.json", "transformer/config.json"):
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**values, "_class_name": json.loads(name)}))
    (folder / "deepgen_pipeline.py").write_text("raise SystemExit('executed')")
    load_model(folder)


def test_a_missing_tensor_is_named(folder):
    change(folder / TRANSFORMER, proj_out__weight=None)
    assert_refused(folder, "proj_out.weight", "transformer", "lacks")


def test_an_unexpected_tensor_is_named(folder):
    change(folder / CONNECTOR, projector_9__weight=torch.ones(2, 2))
    assert_refused(folder, "projector_9.weight", "connector/model.safetensors", "unexpected")


def test_a_tensor_of_another_shape_is_named(folder):
    change(folder / TRANSFORMER, context_embedder__weight=torch.ones(32, 41))
    assert_refused(folder, "context_embedder.weight", TRANSFORMER, "[32, 41]", "[32, 40]")


@pytest.mark.parametrize(
    ("file", "name"),
    [(TRANSFORMER, "proj_out.weight"), (VLM, "model.embed_tokens.weight"), (CONNECTOR, "meta_queries")],
)
def test_a_matrix_of_zeros_is_refused(folder, file, name):
    weights = load_file(folder / file)
    save_file({**weights, name: torch.zeros_like(weights[name])}, folder / file)
    assert_refused(folder, name, file, "all zeros")


def test_zero_biases_and_zero_initialised_projectors_are_fine(folder):
    shapes = {"projector_2__weight": (24, 32), "projector_3__weight": (40, 32), "projector_3__bias": (40,)}
    change(folder / CONNECTOR, **{name: torch.zeros(shape) for name, shape in shapes.items()})
    load_model(folder)


@pytest.mark.parametrize("file", [TRANSFORMER, VLM, CONNECTOR, "vae/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_zero_filled_tail_is_refused(folder, file, share):
    content = bytearray((folder / file).read_bytes())
    count = int(len(content) * share)
    content[-count:] = bytes(count)
    (folder / file).write_bytes(content)
    assert_refused(folder, file, "zeros")


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_truncated_file_is_refused(folder, kept):
    path = folder / TRANSFORMER
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(folder, TRANSFORMER, "truncated or damaged")


@pytest.mark.parametrize("name", ["vae", "scheduler", "vlm/tokenizer.json", "vlm/config.json", CONNECTOR])
def test_what_is_missing_from_the_folder_is_named(folder, name):
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert_refused(folder, Path(name).name.removesuffix(".safetensors"))


def test_json_that_is_none_is_refused(folder):
    (folder / "transformer" / "config.json").write_text("{")
    assert_refused(folder, "transformer/config.json", "not JSON")


def test_a_folder_of_another_kind_is_refused(tmp_path):
    assert_refused(tmp_path, "no known layout")
    with pytest.raises(InputError, match="absent: no such file or folder"):
        load_model(tmp_path / "absent")


def test_an_early_repository_without_vlm_takes_one_from_elsewhere(folder, tmp_path):
    (folder / "vlm").rename(tmp_path / "qwen")
    assert_refused(folder, "no vlm/", "base_vlm")
    load_model(folder, base_vlm=tmp_path / "qwen")


SPELLINGS = {
    "in memory": lambda n: (
        f"model.{n}" if n.startswith("visual.") else n.replace("model.", "model.language_model.")
    ),
    "bare": lambda n: n if n.startswith("visual.") else n.replace("model.", "language_model."),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_vlm_tensors_load_under_every_spelling(folder, spelling):
    rename_all(folder / VLM, SPELLINGS[spelling])
    ours, golden = load_model(folder)[0].vlm.state_dict(), load_model(GOLDEN)[0].vlm.state_dict()
    assert ours.keys() == golden.keys() and all(torch.equal(ours[k], golden[k]) for k in ours)


def test_a_language_head_is_ignored_and_a_second_spelling_is_not(folder):
    change(folder / VLM, lm_head__weight=torch.ones(288, 32))
    load_model(folder)
    change(folder / VLM, model__language_model__norm__weight=torch.ones(32))
    assert_refused(folder, "norm.weight", "stored twice")


def flat(values):
    text = values.pop("text_config")
    return {**{k: v for k, v in text.items() if v is not None}, **values}


def hub_rope(values):
    section = values["text_config"]["rope_scaling"]["mrope_section"]
    return {**flat(values), "rope_scaling": {"type": "mrope", "mrope_section": section}}


def rope_parameters(values):
    text = values["text_config"]
    theta, section = text.pop("rope_theta"), text.pop("rope_scaling")["mrope_section"]
    for key in ("rope_scaling", "rope_theta"):
        values.pop(key)
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": theta, "mrope_section": section}
    return values


def untied(values):
    return {**values, "text_config": {**values["text_config"], "tie_word_embeddings": False}}


@pytest.mark.parametrize("spelling", [dict, flat, hub_rope, rope_parameters, untied])
def test_vlm_configs_load_under_every_spelling(folder, spelling):
    path = folder / "vlm" / "config.json"
    values = json.loads(path.read_text())
    values["text_config"]["rope_theta"] = values["rope_theta"] = 5000.0
    path.write_text(json.dumps(spelling(values)))
    text = load_model(folder)[0].vlm.model.language_model
    assert text.config.rope_parameters["rope_theta"] == 5000.0
    assert text.rotary_emb.mrope_section == [1, 1, 2] and len(text.layers) == 36
    assert text.rotary_emb.inv_freq.tolist() == pytest.approx([5000.0 ** -(i / 4) for i in range(4)])


def test_a_vlm_config_without_rotary_sections_is_refused(folder):
    path = folder / "vlm" / "config.json"
    values = json.loads(path.read_text())
    for part in (values, values["text_config"]):
        part.pop("rope_scaling")
    path.write_text(json.dumps(values))
    assert_refused(folder, "vlm/config.json", "mrope_section")


def test_a_bf16_model_keeps_its_rotary_frequencies_in_fp32(folder):
    model, _ = load_model(folder, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.vlm.model.language_model.rotary_emb.inv_freq.dtype == torch.float32
    assert not model.training


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("padding", "left"), ("area", 0), ("num_inference_steps", 2.5), ("shift", "3"), ("extra", 1)],
        *[("trained_sizes", [256]), ("untrained_categories", "words")],
    ],
)
def test_unusable_generation_defaults_are_refused(folder, key, value):
    save_model(*load_model(folder), folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert_refused(folder, "generation_config.json", key)


def test_a_vlm_config_with_a_value_of_the_wrong_kind_is_refused(folder):
    path = folder / "vlm" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_token_id": None}))
    assert_refused(folder, "vlm/config.json", "image_token_id")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"model": {"type": "BPE", "vocab": 3}}', b"\xff\xfe"]
)
def test_a_tokenizer_that_is_none_is_refused(folder, content):
    (folder / "vlm" / "tokenizer.json").write_bytes(content)
    assert_refused(folder, "the tokenizer in", "vlm")


@pytest.mark.parametrize("shards", [{"a": "../../secret.safetensors"}, {"a": 3}, {}, []])
def test_an_index_that_points_elsewhere_is_refused(folder, shards):
    (folder / "vae" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": shards})
    )
    assert_refused(folder, "diffusion_pytorch_model.safetensors.index.json")


@pytest.mark.parametrize("shift", [0, -1, "3", None, True, float("inf")])
def test_a_shift_that_is_no_positive_number_is_refused(folder, shift):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shift": shift}))
    assert_refused(folder, "scheduler_config.json", "shift")


def test_towers_that_do_not_fit_each_other_are_refused(folder):
    path = folder / "connector" / "model.safetensors"
    wide = {"projector_3__weight": torch.ones(41, 32), "projector_3__bias": torch.ones(41)}
    change(path, **wide)
    assert_refused(folder, "bridge context and transformer", "41 and 40")
