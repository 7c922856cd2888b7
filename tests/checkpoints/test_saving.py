import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from deepgen.checkpoints import load_model, save_model
from deepgen.checkpoints.safetensors_file import read_folder
from deepgen.checkpoints.save import save_weights
from deepgen.model.bridge import Bridge
from deepgen.model.deepgen import DeepGenModel
from deepgen.model.dit import DiT

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "diffusers"


@pytest.fixture(scope="module")
def golden():
    return load_model(GOLDEN)


def test_a_saved_model_loads_back_bit_for_bit(golden, tmp_path):
    model, defaults = golden
    own = dataclasses.replace(
        defaults,
        area=256 * 256,
        padding="none",
        shift=2.0,
        trained_sizes=((256, 256),),
        untrained_categories=("words",),
    )
    save_model(model, own, tmp_path)
    loaded, loaded_defaults = load_model(tmp_path)
    assert loaded_defaults == own
    weights, expected = loaded.state_dict(), model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_weights_can_be_stored_in_half_the_bytes(golden, tmp_path):
    save_model(*golden, tmp_path, dtype=torch.bfloat16)
    stored = load_file(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    name = "transformer_blocks.0.attn.to_q.weight"
    assert torch.equal(stored[name], golden[0].dit.state_dict()[name].bfloat16())
    assert golden[0].dit.dtype == torch.float32


def test_no_shard_is_larger_than_asked_and_all_are_read(golden, tmp_path):
    save_model(*golden, tmp_path, shard_bytes=100_000)
    sizes = [path.stat().st_size for path in (tmp_path / "transformer").glob("*.safetensors")]
    assert len(sizes) > 5 and max(sizes) < 110_000
    loaded, _ = load_model(tmp_path)
    assert torch.equal(loaded.dit.proj_out.weight, golden[0].dit.proj_out.weight)


def test_a_missing_shard_is_named(golden, tmp_path):
    from deepgen.errors import CheckpointError

    save_model(*golden, tmp_path, shard_bytes=100_000)
    shard = sorted((tmp_path / "transformer").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        load_model(tmp_path)


def test_saving_again_leaves_no_old_shards(tmp_path):
    many = {f"w{i}": torch.randn(8, 8) for i in range(4)}
    save_weights(many, tmp_path, "model", None, shard_bytes=300)
    save_weights({"w0": many["w0"]}, tmp_path, "model", None)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert list(read_folder(tmp_path)) == ["w0"]


def test_a_model_can_be_saved_over_the_files_it_was_loaded_from(golden, tmp_path):
    save_model(*golden, tmp_path)
    model, defaults = load_model(tmp_path)
    save_model(model, defaults, tmp_path)
    assert torch.equal(load_model(tmp_path)[0].dit.proj_out.weight, golden[0].dit.proj_out.weight)


def test_a_new_model_survives_although_much_of_it_is_zero(golden, tmp_path):
    model, defaults = golden
    bridge, dit = Bridge(**dict(model.bridge.config)), DiT(**dict(model.dit.config))
    save_model(DeepGenModel(model.vlm, bridge, dit, model.vae), defaults, tmp_path)
    assert load_model(tmp_path)[0].dit.proj_out.weight.abs().max() == 0


def test_the_saved_vlm_is_one_that_transformers_reads(golden, tmp_path):
    save_model(*golden, tmp_path)
    kind = Qwen2_5_VLForConditionalGeneration
    theirs, report = kind.from_pretrained(tmp_path / "vlm", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    norm = golden[0].vlm.model.language_model.norm.weight
    assert torch.equal(theirs.model.language_model.norm.weight, norm)


def test_a_saved_model_names_no_folder_of_the_machine_that_made_it(golden, tmp_path):
    model, defaults = golden
    dit = DiT.from_pretrained(GOLDEN / "transformer")
    assert str(GOLDEN) in dit.to_json_string()
    save_model(DeepGenModel(model.vlm, model.bridge, dit, model.vae), defaults, tmp_path)
    assert not any(str(GOLDEN) in path.read_text() for path in tmp_path.rglob("*.json"))
