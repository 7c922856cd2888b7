"""Recomputation and compilation change what a step costs, not what it computes."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from train_kit import compiled_gradients, first_gradients, on_ranks

from deepgen.speed.training import Work, make_trainer, random_batch
from deepgen.train.parallel import ParallelConfig, Ranks, blocks_of, computing, recompute
from deepgen.train.supervised import Objective, batch_loss
from deepgen.train.tiny import tiny_model
from deepgen.train.trainable import trained_parameters

BARE = [
    "validation.data=null",
    "samples.prompts=[]",
    "ema_decay=null",
    "global_batch_size=4",
    "padding=batch",
]
NO_DROPOUT = [*BARE, "trainable.lora.dropout=0"]


def recomputed(model):
    return {
        name: [isinstance(b.forward, partial) and b.forward.func is checkpoint for b in blocks]
        for name, blocks in blocks_of(model).items()
    }


def test_a_share_of_recomputed_blocks_is_spread_evenly_and_can_be_changed():
    model = tiny_model(0)
    recompute(model, 0.5)
    assert recomputed(model) == {
        "vlm": [False, True, False],
        "bridge": [False, True],
        "dit": [False, True, False],
    }
    recompute(model, 1)
    assert all(all(row) for row in recomputed(model).values())
    recompute(model, 0)
    assert not any(any(row) for row in recomputed(model).values())


def test_recomputed_blocks_give_the_same_gradients(tmp_path):
    found = [
        first_gradients([*BARE, f"parallel.checkpoint_activations={share}", f"output_dir={tmp_path / share}"])
        for share in ("false", "0.5", "true")
    ]
    for name, expected in found[0]["gradients"].items():
        assert all(torch.equal(one["gradients"][name], expected) for one in found[1:]), name


@pytest.mark.slow
def test_compiled_blocks_give_the_same_gradients_alone_and_sharded(tmp_path):
    expected = first_gradients([*NO_DROPOUT, f"output_dir={tmp_path / 'eager'}"])["gradients"]
    alone = compiled_gradients([*NO_DROPOUT, f"output_dir={tmp_path / 'compiled'}"])
    sharded = [*NO_DROPOUT, "parallel.shard=fsdp", f"output_dir={tmp_path / 'sharded'}"]
    ranks = on_ranks(2, tmp_path / "ranks", [(compiled_gradients, sharded)], seconds=1200)
    for found in (alone, *(rank[0] for rank in ranks)):
        for name, value in expected.items():
            torch.testing.assert_close(found["gradients"][name], value, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.gpu
def test_compiled_blocks_on_a_gpu_give_nearly_the_losses_and_gradients_of_eager_ones():
    device, found = torch.device("cuda"), {}
    batch = random_batch(Work("sft", "edit", 3, 64))
    # Prompts of different lengths, which take the kernel for ragged rows.
    batch = replace(batch, prompts=["a", "a red ball", "two blue cubes on a table"])
    for compiled in (False, True):
        parallel = ParallelConfig(compile=compiled, compute_dtype="bfloat16")
        trainer = make_trainer("tiny", "sft", parallel, Ranks(device=device))
        with computing(parallel, trainer.ranks):
            losses = batch_loss(trainer.model.eval(), batch, Objective(0, 3.0, "none"), range(3)).losses
        losses.sum().backward()
        norms = [p.grad.norm() for p in trained_parameters(trainer.model).values()]
        found[compiled] = losses.detach(), torch.stack(norms)
    torch.testing.assert_close(found[True][0], found[False][0], rtol=2e-2, atol=1e-3)
    torch.testing.assert_close(found[True][1], found[False][1], rtol=0.1, atol=1e-2)
