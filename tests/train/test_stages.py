"""The whole recipe at toy size: every stage from its packaged configuration, then a picture from the result."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from deepgen import DeepGenPipeline
from deepgen.cli.train import train
from deepgen.config import load_config
from deepgen.rewards import RewardInput, build_rewards
from deepgen.rewards.config import Rewards

COMMON = ["device=cpu", "workers=0", "loop.budget_minutes=null", "loop.steps=2", "loop.log_every_steps=1"]
INSERTS = ["insert_share=0.4", "insert_tokens=256", "insert_batch_size=2", "cache_insert=4"]
EAGER = [*COMMON, "compile=false"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")

    def run(stage, *overrides):
        train(f"train/nano_{stage}", [f"output_dir={root / stage}", *overrides])

    vae = ["channels=[8,8,8,8]", "norm_num_groups=4", "batch_size=2", "crop=64", "held_out_scenes=2"]
    run("vae", *EAGER, *vae, "minimum_psnr=null")
    sizes = [
        "num_layers=2",
        "hidden_size=40",
        "vision_depth=2",
        "vision_hidden_size=32",
        "tokenizer_texts=200",
    ]
    run("vlm", *EAGER, *sizes, "tokens_per_batch=320", "picture_batch_size=2", "held_out_batches=2")
    run("detector", *COMMON, f"vae={root}/vae/vae", "batch_size=2")
    for stage in ("reward_detector", "reader"):
        held_out = ["held_out_scenes=5"] if stage == "reader" else []
        run(stage, *COMMON, f"vae={root}/vae/vae", "batch_size=2", *held_out)
    run(
        "clip",
        "held_out_pairs=4",
        *COMMON,
        f"vae={root}/vae/vae",
        "batch_size=2",
        f"tokenizer={root}/vlm/vlm",
    )
    towers = [f"vlm={root}/vlm/vlm", f"vae={root}/vae/vae"]
    cache = [
        "cache_text=8",
        "cache_edit=8",
        "cache_chunk=2",
        "batch_size=2",
        "edit_batch_size=2",
        "edit_tokens=256",
        *INSERTS,
    ]
    bridge = ["bridge.num_fused_layers=1", "bridge.hidden_size=40", "bridge.num_layers=1", "text_tokens=256"]
    fresh = ["init_from=null", "trainable.vlm=frozen", f"output_dir={root}/diffusion"]
    run("sft", *EAGER, *towers, *cache, *bridge, "transformer.num_layers=2", *fresh)
    run("assemble", *towers, f"diffusion={root}/diffusion")
    return root


def test_every_stage_leaves_its_configuration_and_measures(runs):
    for stage in ("vae", "vlm", "detector", "reader", "clip", "diffusion"):
        assert (runs / stage / "config.yaml").stat().st_size > 0
        assert "loss" in (runs / stage / "metrics.jsonl").read_text()


def test_networks_that_give_rewards_say_how_well_they_see_and_load_as_rewards(runs):
    for stage, network in (("reader", "exact"), ("clip", "told_apart")):
        found = json.loads((runs / stage / stage / "metrics.json").read_text())
        assert found.keys() == {"drawn", "reconstructed"} and 0 <= found["drawn"][network] <= 1
    paths = {
        "world_text": "reader/reader",
        "world_clip": "clip/clip",
        "world_detector": "reward_detector/detector",
    }
    entries = [{"kind": kind, "path": str(runs / path)} for kind, path in paths.items()]
    rewards = build_rewards(load_config(Rewards, {"rewards": entries}).rewards)
    picture = np.full((64, 64, 3), 200, np.uint8)
    one = RewardInput(picture, 'a cat and the word "OPEN"', "g")
    assert all(weighted.reward([one])[0].valid for weighted in rewards)


def test_the_towers_together_draw_and_edit(runs):
    pipe = DeepGenPipeline.from_pretrained(str(runs / "assemble"))
    picture = pipe("a red apple", seed=1, num_inference_steps=2).images[0]
    assert picture.size == (256, 256)
    assert pipe("make it blue", image=picture, seed=1, num_inference_steps=2).images[0].size == (256, 256)
    both, words = [[picture, picture.rotate(90)]], "put the object of picture 1 into picture 2"
    assert pipe(words, image=both, seed=1, num_inference_steps=2).images[0].size == (256, 256)


def test_a_continued_run_goes_on_where_it_stopped(runs):
    state = (runs / "diffusion" / "state.pt").stat().st_mtime_ns
    overrides = (runs / "diffusion" / "config.yaml").read_text()
    path = runs / "again.yaml"
    path.write_text(overrides)
    train(str(path), ["loop.steps=3"])
    assert (runs / "diffusion" / "state.pt").stat().st_mtime_ns > state
    steps = [
        line for line in (runs / "diffusion" / "metrics.jsonl").read_text().splitlines() if "step" in line
    ]
    assert '"step": 2' in steps[-1]


def test_base_alignment_and_fine_tuning_train_what_they_declare(runs):
    towers = [f"vlm={runs}/vlm/vlm", f"vae={runs}/vae/vae"]
    sizes = ["cache_text=8", "cache_edit=8", "cache_chunk=2", "batch_size=2", "edit_batch_size=2"]
    bridge = ["bridge.num_fused_layers=1", "bridge.hidden_size=40", "bridge.num_layers=1"]
    common = [*EAGER, *towers, *sizes, *bridge, *INSERTS]
    common += ["text_tokens=256", "edit_tokens=256", "loop.warmup_steps=0"]
    train("train/nano_base", [f"output_dir={runs}/base", *common, "transformer.num_layers=2"])
    for stage, start in (("align", "base"), ("sft", "align")):
        train(f"train/nano_{stage}", [f"output_dir={runs}/{stage}", f"init_from={runs}/{start}", *common])
    weights = {name: load_file(path) for name, path in _files(runs).items()}

    def changed(one, other):
        return any(not torch.equal(value, weights[other][name]) for name, value in weights[one].items())

    assert not changed("align/transformer", "base/transformer")
    assert changed("sft/transformer", "align/transformer") and changed("sft/connector", "align/connector")
    assert changed("sft/vlm", "vlm/vlm") and weights["sft/vlm"].keys() == weights["vlm/vlm"].keys()
    for stage in ("base", "align", "sft"):
        assert "loss_insert" in (runs / stage / "metrics.jsonl").read_text()
    assert not (runs / "base" / "connector").exists() and (runs / "base" / "reader").exists()


def test_two_processes_draw_samples_of_their_own_and_share_one_schedule(runs):
    settings = runs / "two.yaml"
    text = (runs / "diffusion" / "config.yaml").read_text()
    settings.write_text(text.replace("cooldown: 0.6", "cooldown: 0.0"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    overrides = [f"output_dir={runs}/two", "loop.steps=null", "loop.budget_minutes=0.12"]
    command = [*launch, "deepgen", "train", str(settings), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (runs / "two" / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "step" in row]
    assert steps == sorted(set(steps)) and len(steps) > 1
    state = torch.load(runs / "two" / "state.pt", weights_only=True)
    assert state["step"] == steps[-1] + 1 and all(torch.isfinite(p).all() for p in state["trained"])


def _files(runs):
    towers = ("base/transformer", "align/transformer", "align/connector", "sft/transformer", "sft/connector")
    files = {tower: runs / tower / "diffusion_pytorch_model.safetensors" for tower in towers}
    return files | {tower: runs / tower / "model.safetensors" for tower in ("vlm/vlm", "sft/vlm")}
