"""DeepSpeed folders that are incomplete, of another stage, or read through classes that are not there."""

import sys

import pytest
import torch

from deepgen.checkpoints.deepspeed_layout import read_flat
from deepgen.errors import CheckpointError


def test_every_parameter_is_cut_out_of_the_ranks_shares_exactly(layouts):
    trained, buffers = layouts.trained_and_buffer()
    stored = read_flat(layouts.deepspeed("x.pth", trained, buffers, ranks=5, groups=3))
    assert stored.keys() == {**trained, **buffers}.keys()
    for name, value in {**trained, **buffers}.items():
        assert torch.equal(stored[name].read(name), value), name
    assert any(len(item.spans) > 1 for item in stored.values())
    assert not any(name.startswith("deepspeed") for name in sys.modules)


def test_ranks_are_ordered_by_number_and_not_by_letter(layouts):
    trained, buffers = layouts.trained_and_buffer()
    stored = read_flat(layouts.deepspeed("x.pth", trained, buffers, ranks=11, groups=1))
    assert torch.equal(stored["meta_queries"].read("meta_queries"), trained["meta_queries"])
    last = next(reversed(trained))
    assert torch.equal(stored[last].read(last), trained[last])


def test_frozen_parameters_that_were_kept_and_shared_ones_are_there(layouts):
    trained, buffers = layouts.trained_and_buffer()
    kept = {"vae.frozen.weight": torch.ones(3)}
    more = {"frozen_param_fragments": kept, "shared_params": {"tied": "meta_queries"}}
    stored = read_flat(layouts.deepspeed("x.pth", trained, buffers, states=more))
    assert torch.equal(stored["vae.frozen.weight"].read("x"), kept["vae.frozen.weight"])
    assert stored["tied"] == stored["meta_queries"]


def test_a_missing_rank_is_named(layouts):
    folder = layouts.deepspeed("x.pth", *layouts.trained_and_buffer())
    (folder / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(CheckpointError, match="states of 2 of 3 ranks"):
        read_flat(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {"zero_stage": 3}}, "stage 3"),
        ({"optimizer": {"single_partition_of_fp32_groups": None}}, "stages 1 and 2 can be read"),
        ({"optimizer": {"single_partition_of_fp32_groups": [torch.ones(2)] * 2}}, "files are missing"),
        ({"optimizer": {"single_partition_of_fp32_groups": [torch.ones(2, 2)] * 2}}, "no plain vector"),
        ({"states": {"param_shapes": None}}, "lists no parameter groups"),
        ({"states": {"param_shapes": [{}]}}, "lists 1 parameter groups"),
        ({"states": {"param_shapes": [3, 4]}}, "no usable param_shapes"),
    ],
)
def test_a_folder_that_does_not_add_up_is_refused(layouts, changes, words):
    folder = layouts.deepspeed("x.pth", *layouts.trained_and_buffer(), **changes)
    with pytest.raises(CheckpointError, match=words):
        read_flat(folder)


def test_a_folder_without_optimizer_states_is_refused(layouts):
    folder = layouts.deepspeed("x.pth", *layouts.trained_and_buffer(), ranks=1)
    next(folder.glob("*optim_states.pt")).unlink()
    with pytest.raises(CheckpointError, match="copy the whole folder"):
        read_flat(folder)
