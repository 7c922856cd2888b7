"""The packaged configurations: they load, say everything, dry-run, and train exactly what they declare."""

from types import UnionType
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel

from deepgen.cli.train import NANO_STAGES, _engine_stage, _nano_stages, train
from deepgen.config import find_config, load_config, packaged_configs, parse_yaml
from deepgen.data.batch import TrainBatch
from deepgen.train.build import build_empty
from deepgen.train.run_config import SupervisedConfig
from deepgen.train.supervised import Objective, batch_loss
from deepgen.train.tiny import tiny_model
from deepgen.train.trainable import TrainableConfig, make_trainable, trained_parameters


def raw(name: str) -> dict[str, Any]:
    return parse_yaml(find_config(name).read_text(), name)


RUNS = [name for name in packaged_configs() if "stage" in raw(name)]
SUPERVISED = [name for name in RUNS if raw(name)["stage"] == "train"]
REINFORCED = [name for name in RUNS if raw(name)["stage"] == "rl"]
NANO = [name for name in RUNS if raw(name)["stage"] in NANO_STAGES]


def test_every_packaged_configuration_is_a_run_that_a_test_here_loads():
    assert sorted([*SUPERVISED, *REINFORCED, *NANO]) == packaged_configs()


def test_both_stages_of_the_published_model_and_their_one_gpu_variants_are_packaged():
    assert {"train/align", "train/sft", "train/sft_lora", "train/sft_full", "train/smoke"} <= set(SUPERVISED)


@pytest.mark.parametrize("name", SUPERVISED)
def test_every_configuration_dry_runs_without_a_weight_or_a_picture(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "8")
    train(name, ["global_batch_size=1536"], dry_run=True)
    said = capsys.readouterr().out
    assert "1536 samples" in said and "8 process(es)" in said and "estimated, GiB" in said
    assert all(part in said for part in ("dit", "bridge", "think_tokens", "vlm", "vision", "vae"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", REINFORCED)
def test_every_configuration_of_reinforcement_dry_runs(name, capsys):
    train(name, [], dry_run=True)
    assert "estimated, GiB" in capsys.readouterr().out


@pytest.mark.parametrize("name", NANO)
def test_every_configuration_of_nano_dry_runs_and_makes_nothing(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assembles = raw(name)["stage"] == "assemble"
    train(name, [] if assembles else ["loop.budget_minutes=null", "loop.steps=7", "workers=3"], dry_run=True)
    said = capsys.readouterr().out
    assert f"stage {raw(name)['stage']}, writes runs/" in said
    assert assembles or ("7 updates on cuda, 3 workers" in said and "batch" in said)
    assert "vae" not in raw(name) or "reads vae: runs/nano_vae/vae (not here)" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*NANO, *REINFORCED])
def test_every_other_configuration_loads(name):
    stage = raw(name)["stage"]
    model = _engine_stage(stage)[0] if name in REINFORCED else _nano_stages()[stage][0]
    assert load_config(model, name)


def unsaid(model: type[BaseModel], given: dict[str, Any], where: str = "") -> list[str]:
    """Keys of a configuration that its YAML leaves to their defaults; sets of data aside."""
    found = [f"{where}{name}" for name in model.model_fields if name not in given]
    for name, value in given.items():
        kinds = [model.model_fields[name].annotation]
        kinds = list(get_args(kinds[0])) if isinstance(kinds[0], UnionType) else kinds
        inner = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
        if inner is not None and isinstance(value, dict):
            found += unsaid(inner, value, f"{where}{name}.")
    return found


@pytest.mark.parametrize("name", ["train/align", "train/sft"])
def test_the_published_stages_leave_no_value_to_a_default(name):
    assert unsaid(SupervisedConfig, raw(name)) == []


def test_the_published_stages_hold_the_published_values():
    align, sft = (load_config(SupervisedConfig, f"train/{n}") for n in ("align", "sft"))
    assert (align.steps, sft.steps) == (200_000 // 4, 400_000 // 3)
    assert (align.global_batch_size, sft.global_batch_size) == (64 * 4 * 4, 64 * 4 * 3)
    assert (align.optimizer.learning_rate, sft.optimizer.learning_rate) == (1e-4, 5e-5)
    assert [list(c.data.ratio.items()) for c in (align, sft)] == [
        [("edit", 1), ("t2i", 3)],
        [("edit", 1), ("t2i", 2)],
    ]
    assert align.model.new_bridge is not None and align.model.new_bridge.num_queries == 128
    lora = sft.trainable.lora
    assert (lora.rank, lora.alpha, lora.dropout, sft.trainable.vlm) == (64, 128, 0.05, "lora")
    assert [c.data.dropout["t2i"] for c in (align, sft)] == [0.1, 0.1]


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("train/align", 432_449_532),
        # Adapters of rank 64: 3,325,952 on each of the 35 decoder layers in use.
        ("train/sft", 432_449_532 + 2_243_171_520 + 35 * 3_325_952),
    ],
)
def test_at_published_sizes_each_stage_trains_as_many_parameters_as_published(name, trained):
    built = build_empty(load_config(SupervisedConfig, name))
    assert all(p.is_meta for p in built.model.parameters())
    assert sum(part.trained for part in built.parts) == trained


def declared(model: torch.nn.Module, config: TrainableConfig) -> set[str]:
    """Names that a stage's declaration means, by names alone."""
    depth = max(model.vlm.indices)
    dead = [f"layers.{n}." for n in range(depth, 9)] + ["language_model.norm."]
    found = set()
    for name, _ in model.named_parameters():
        part = name.split(".")[0]
        if name == "bridge.meta_queries":
            how = config.think_tokens
        elif part == "vlm":
            how = config.vision if ".visual." in name else config.vlm
        else:
            how = {"dit": config.dit, "bridge": config.bridge, "vae": "frozen"}[part]
        unused = part == "vlm" and any(piece in name for piece in dead)
        if not unused and how != "frozen" and (how == "full") != ("lora_" in name):
            found.add(name)
    return found


@pytest.mark.parametrize("name", [*SUPERVISED, "auto", "transformer alone"])
def test_each_stage_trains_exactly_what_it_declares_and_all_of_it_learns(name):
    config = load_config(SupervisedConfig, name if name in SUPERVISED else "train/sft").trainable
    if name == "transformer alone":
        config = TrainableConfig(dit="full", bridge="frozen", think_tokens="frozen")
    if name == "auto":
        config = TrainableConfig.model_validate(
            {**config.model_dump(), "vision": "lora", "lora": {"targets": "auto"}}
        )
    model = tiny_model(0)
    make_trainable(model, config)
    trained = trained_parameters(model)
    assert trained.keys() == declared(model, config)
    for key, value in trained.items():
        if "lora_" in key:  # one of the two factors starts at zero, and keeps the other's gradient away
            torch.nn.init.normal_(value, std=0.1)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    pictures = [torch.rand(3, 64, 64) * 2 - 1 for _ in range(3)]
    batch = TrainBatch(
        ["a dog", "make it red"], pictures[:2], [[], pictures[2:]], ["t2i", "edit"], ["s"] * 2, ["k"] * 2
    )
    batch_loss(model.train(), batch, Objective(0, 3.0, "none"), [0, 1]).losses.mean().backward()
    chosen = [p for p in model.parameters() if p.requires_grad]
    torch.optim.AdamW(chosen, lr=0.1, weight_decay=0).step()
    changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    # Nothing reads the context that the last block could give, so that its queries learn nothing, here as published.
    unread = {
        key for key in trained if "blocks.2.attn.add_q_proj" in key or "blocks.2.attn.norm_added_q" in key
    }
    assert changed == declared(model, config) - unread
