"""Two processes draw, score and train what one does; real gloo groups."""

import pytest
import torch
from train_kit import on_ranks, reinforce, reinforce_until_a_failure, reinforce_until_a_stop

from deepgen.train.metrics import read_metrics

EVERYTHING = [
    *["steps=4", "updates_per_rollout=2", "group_size=4", "groups_per_rollout=8", "rollout_batch_size=8"],
    *[
        "train_batch_size=24",
        "sampler.num_inference_steps=3",
        "window={placement: random, size: 1}",
        "area=1024",
    ],
    "prompts.sets=[{name: t2i, format: world, weight: 1}, {name: edits, format: world, task: edit, weight: 1}]",
    "sft={weight: 0.1, batch_size: 1, global_batch_size: 2, workers: 0, data: {sets: [{name: a, format: world, "
    "task: t2i}], ratio: {t2i: 1}, area: 1024}}",
    *[
        "trainable.bridge=full",
        "trainable.think_tokens=full",
        "trainable.vlm=lora",
        "trainable.lora.rank=2",
        "loss.kl_weight=0.1",
        "loss.clip_low=0.01",
    ],
    *["optimizer.learning_rate=1e-3", "measure_gradients_every=2", "checkpoint.asynchronous=false"],
    "rewards=[{kind: mean_brightness, families: {t2i: 1}}, {kind: jpeg_size, families: {edits: 1, t2i: 0.1}}]",
]
COMPARED = ("reward/mean", "reward/jpeg_size", "kl", "sft_loss", "policy_loss", "gradient_norm/all")
COUNTED = ("reward_asked/mean_brightness", "reward_asked/jpeg_size", "reward_valid_share/jpeg_size")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(records, weights) of one process, and of two with whole and with sharded weights."""
    root = tmp_path_factory.mktemp("rl")

    def job(name, *more):
        return reinforce, [*EVERYTHING, *more, f"output_dir={root / name}"]

    _, overrides = job("one")
    found = {"one": reinforce(overrides)}
    names = ("none", "fsdp")
    first, _ = on_ranks(2, root / "results", [job(name, f"parallel.shard={name}") for name in names])
    found |= dict(zip(names, first, strict=True))
    return {name: (read_metrics(root / name / "metrics.jsonl"), w) for name, w in found.items()}


@pytest.mark.parametrize("shard", ["none", "fsdp"])
def test_two_processes_reinforce_as_one_does(runs, shard):
    (records, weights), (theirs, expected) = runs[shard], runs["one"]
    assert len(records) == len(theirs) == 2
    for ours, other in zip(records, theirs, strict=True):
        for name in COMPARED:
            assert ours[name] == pytest.approx(other[name], rel=2e-3, abs=1e-6), name
        assert [ours[name] for name in COUNTED] == [other[name] for name in COUNTED]
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=2e-4, msg=name)


def test_a_failure_or_a_stop_of_one_process_ends_all_of_them_with_every_update_saved(tmp_path):
    works = (reinforce_until_a_failure, reinforce_until_a_stop)
    jobs = [(work, [*EVERYTHING, f"output_dir={tmp_path / work.__name__}"]) for work in works]
    first, last = on_ranks(2, tmp_path / "results", jobs)
    assert first == [("a reward failed in another process, which says why", 2), ("complete: False", 2)]
    assert last == [("broken", 2), ("complete: False", 2)]
