"""Loading streams: host memory for the weights as they will be, and little more, whatever is on disk."""

import json
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from deepgen.model.bridge import Bridge

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

BRIDGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_layers": 6, "num_heads": 128}
FACTOR = 1.2
STACKS = 32 * 2**20  # stacks of threads that start late count as data though nothing is in them
MEASURE = """
import re, resource, sys, warnings
from pathlib import Path
import torch
from deepgen.checkpoints import load_model

def memory(name):
    return int(re.search(rf"{name}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

small, path, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
arguments = dict(zip(sys.argv[4::2], sys.argv[5::2]))
load_model(small)  # what libraries take once
resource.setrlimit(resource.RLIMIT_DATA, (memory("VmData") + limit,) * 2)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = memory("VmRSS")
model, _ = load_model(path, torch.bfloat16, **arguments)
print(memory("VmHWM") - before)
"""


def grown_bridge(folder, shard_bytes):
    """Give a checkpoint a bridge of 80 M random fp32 values in shards; returns the bytes it has as bf16."""
    with torch.device("meta"):
        wanted = Bridge(
            vlm_hidden_size=32, num_queries=8, pooled_dim=24, context_dim=40, **BRIDGE
        ).state_dict()
    shards, size = [{}], 0
    for name, value in wanted.items():
        if size > shard_bytes:
            shards, size = [*shards, {}], 0
        shards[-1][name] = torch.full(value.shape, 0.5)
        size += value.numel() * 4
    places = {}
    for number, shard in enumerate(shards):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / "connector" / file)
        places |= dict.fromkeys(shard, file)
    (folder / "connector" / "model.safetensors").unlink()
    (folder / "connector" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    config = {"vlm_hidden_size": 32, "num_queries": 8, "pooled_dim": 24, "context_dim": 40, **BRIDGE}
    (folder / "connector" / "config.json").write_text(json.dumps(config))
    return 2 * sum(value.numel() for value in wanted.values())


def measured(small, path, limit, **bases):
    words = [str(word) for pair in bases.items() for word in pair]
    command = [sys.executable, "-c", MEASURE, str(small), str(path), str(limit), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(re.findall(r"\d+", done.stdout)[-1])


def test_fp32_shards_load_as_bf16_in_less_than_a_fifth_more_than_their_weights(layouts):
    folder = layouts.copy("mid")
    weights = grown_bridge(folder, shard_bytes=100_000_000)
    used = measured(layouts.diffusers, folder, int(FACTOR * weights) + STACKS)
    assert 0.9 * weights < used < FACTOR * weights, used / weights


def test_a_native_fp32_file_does_too(layouts):
    folder = layouts.copy("mid")
    weights = grown_bridge(folder, shard_bytes=10**12)
    bridge = load_file(folder / "connector" / "model-00000-of-00001.safetensors")
    dit = {name: value for name, value in layouts.native.items() if name.startswith("transformer.")}
    file = layouts.file("model.pt", {**bridge, **dit})
    used = measured(layouts.diffusers, file, int(FACTOR * weights) + STACKS, **layouts.bases)
    assert 0.9 * weights < used < FACTOR * weights, used / weights
