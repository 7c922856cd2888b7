"""Several processes train what one process trains; real gloo groups."""

import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from train_kit import build_only, first_gradients, on_ranks, train

from deepgen.model.bridge import Bridge
from deepgen.train.metrics import read_metrics

BARE = ["validation.data=null", "samples.prompts=[]", "ema_decay=null"]
EVERYTHING = [*BARE, "padding=batch", "trainable.vision=full", "global_batch_size=4"]
STRAIGHT = [*BARE, "optimizer.schedule=constant", "optimizer.warmup=0", "log_every_steps=1"]
SHEETS = ["samples.prompts=[a red ball]", "samples.every_steps=1"]
SHARDS = {
    "none": ["parallel.shard=none"],
    "fsdp": ["parallel.shard=fsdp"],
    "hsdp": ["parallel.shard=hsdp", "parallel.replicas=2"],
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(folder, what two processes computed): the gradients of each kind of sharding, and the start of a run."""
    root = tmp_path_factory.mktemp("pair")
    jobs = [(first_gradients, [*EVERYTHING, *s, f"output_dir={root / k}"]) for k, s in SHARDS.items()]
    checked = ["validation.every_steps=2", "validation.samples=3"]
    start = [
        *(x for x in STRAIGHT if "validation" not in x),
        *checked,
        *SHEETS,
        "parallel.shard=fsdp",
        "steps=2",
    ]
    jobs.append((train, [*start, f"output_dir={root / 'run'}"]))
    jobs.append((train, [*damaged(root), "steps=2", f"output_dir={root / 'damaged'}"]))
    ranks = on_ranks(2, root / "results", jobs)
    return root, {k: [rank[i] for rank in ranks] for i, k in enumerate(SHARDS)}


def damaged(folder):
    """Overrides: a run on eight pictures, of which three are missing and one is too long for the set."""
    rows = [{"prompt": f"{i}", "target": f"{i}.png"} for i in range(8)]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for number in range(5):
        Image.new("RGB", (32, 320 if number == 4 else 32)).save(folder / f"{number}.png")
    one = f"{{name: a, format: list, task: t2i, max_aspect: 8, path: {folder / 'list.jsonl'}}}"
    return [*STRAIGHT, f"data.sets=[{one}]", "data.ratio={t2i: 1}", "data.area=1024", "data.broken_budget=1"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return first_gradients([*EVERYTHING, f"output_dir={tmp_path_factory.mktemp('alone')}"])


def compare(alone, ranks):
    names = alone["gradients"].keys()
    assert {"bridge.meta_queries", "dit.proj_out.weight"} <= names
    assert any("lora_B" in n for n in names) and any(".visual." in n for n in names)
    for rank in ranks:
        assert rank["gradients"].keys() == names
        for name, expected in alone["gradients"].items():
            torch.testing.assert_close(rank["gradients"][name], expected, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("shard", SHARDS)
def test_two_processes_average_to_the_gradients_of_one(alone, pair, shard):
    compare(alone, pair[1][shard])


def test_noise_and_timesteps_differ_between_processes_and_are_those_of_one(alone, pair):
    for key in ("noise", "sigmas"):
        draws = [value for rank in pair[1]["none"] for value in rank[key]]
        assert draws == alone[key] and len(set(draws)) == 4


def test_a_run_of_two_processes_goes_on_with_one(pair, tmp_path, weights):
    train([*STRAIGHT, f"output_dir={pair[0] / 'run'}", "steps=4"])
    train([*STRAIGHT, f"output_dir={tmp_path / 'one'}", "steps=4"])
    records = [read_metrics(folder / "metrics.jsonl") for folder in (pair[0] / "run", tmp_path / "one")]
    losses = [[r["loss"] for r in one if "loss" in r] for one in records]
    assert len(losses[0]) == 4 and losses[0] == pytest.approx(losses[1], rel=1e-4)
    ours, theirs = weights(pair[0] / "run" / "final"), weights(tmp_path / "one" / "final")
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_broken_and_left_out_samples_are_counted_over_all_processes_and_restarts(pair, tmp_path):
    for folder in (pair[0] / "damaged", tmp_path):
        train([*damaged(pair[0]), f"output_dir={folder}", "steps=4"])
    parts, whole = (
        [(r["broken_samples"], r["left_out_samples"]) for r in read_metrics(folder / "metrics.jsonl")]
        for folder in (pair[0] / "damaged", tmp_path)
    )
    assert parts == whole and len(whole) == 4
    assert all(0 < early < late for early, late in zip(whole[1], whole[3], strict=True))


def test_validation_does_not_depend_on_the_number_of_processes(pair, tmp_path):
    options = ["validation.samples=3", "validation.every_steps=2", "steps=2"]
    train([*(x for x in STRAIGHT if "validation" not in x), *options, f"output_dir={tmp_path}"])
    records = [read_metrics(folder / "metrics.jsonl") for folder in (pair[0] / "run", tmp_path)]
    found = [[r["validation"] for r in one if "validation" in r] for one in records]
    assert len(found[0]) == 1 and found[0] == pytest.approx(found[1], rel=1e-4)


def test_sharded_processes_draw_the_sheets_that_one_process_draws(pair, tmp_path):
    train([*STRAIGHT, *SHEETS, f"output_dir={tmp_path}", "steps=2"])
    for name in ("step_00000001.png", "step_00000002.png"):
        with (
            Image.open(pair[0] / "run" / "samples" / name) as ours,
            Image.open(tmp_path / "samples" / name) as theirs,
        ):
            a, b = (torch.tensor(list(sheet.tobytes()), dtype=torch.int) for sheet in (ours, theirs))
        assert len(a.unique()) > 50 and (a - b).abs().max() <= 2


@pytest.mark.slow
def test_four_processes_as_two_replicas_of_two_shards(tmp_path):
    small = [*EVERYTHING, "batch_size=1"]
    one = first_gradients([*small, f"output_dir={tmp_path / 'one'}"])
    ranks = on_ranks(
        4, tmp_path, [(first_gradients, [*small, *SHARDS["hsdp"], f"output_dir={tmp_path / 'run'}"])]
    )
    compare(one, [rank[0] for rank in ranks])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_weights_are_read_once_and_spread_in_little_more_memory_than_they_take(tmp_path, golden_path):
    folder, size = grown(golden_path, tmp_path / "mid")
    seen: dict[int, list[int]] = {}

    def watch(processes):
        for process in processes:
            status = Path(f"/proc/{process}/status")
            if status.exists() and (found := re.search(r"RssAnon:\s+(\d+)", status.read_text())):
                seen.setdefault(process, []).append(int(found[1]) * 1024)
        node.append(sum(values[-1] for values in seen.values() if values))

    node: list[int] = []
    shared = [f"init_from={folder}", "trainable.dit=frozen", "trainable.vlm=frozen", *SHARDS["fsdp"]]
    on_ranks(2, tmp_path, [(build_only, [*BARE, *shared, f"output_dir={tmp_path / 'run'}"])], watch)
    small = [*BARE, *shared[1:], f"init_from={golden_path}", f"output_dir={tmp_path / 'run'}"]
    with_weights, node = max(node), []
    seen.clear()
    on_ranks(2, tmp_path, [(build_only, small)], watch)
    assert 0.9 * size < with_weights - max(node) < 1.3 * size


def grown(golden_path, folder):
    """A checkpoint whose bridge holds most of its weights; returns it and the bridge's bytes."""
    import json
    import shutil

    from safetensors.torch import save_file

    shutil.copytree(golden_path, folder)
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_layers": 6, "num_heads": 32}
    sizes |= {"vlm_hidden_size": 32, "num_queries": 8, "pooled_dim": 24, "context_dim": 40}
    with torch.device("meta"):
        wanted = Bridge(**sizes).state_dict()
    tensors = {name: torch.full(value.shape, 0.01) for name, value in wanted.items()}
    save_file(tensors, folder / "connector" / "model.safetensors")
    (folder / "connector" / "config.json").write_text(json.dumps(sizes))
    return folder, 4 * sum(math.prod(value.shape) for value in wanted.values())
