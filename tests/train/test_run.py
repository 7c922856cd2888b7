"""A run as its user sees it: what it says, measures, refuses and leaves behind."""

import json
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from deepgen import DeepGenPipeline
from deepgen.cli import build_app
from deepgen.errors import ConfigError, DataError
from deepgen.train import engine
from deepgen.train.engine import SupervisedRun, train_supervised
from deepgen.train.metrics import MetricsConfig, MetricsWriter, read_metrics
from deepgen.train.parallel import Ranks
from deepgen.train.run import RunError


def command(*arguments: str):
    return CliRunner().invoke(build_app(list(arguments)), list(arguments))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """The folder of a run that trained adapters alone, with validation and a sheet."""
    from deepgen.config import load_config
    from deepgen.train.run_config import SupervisedConfig

    folder = tmp_path_factory.mktemp("adapted")
    only_lora = ["trainable.dit=lora", "trainable.bridge=frozen", "trainable.think_tokens=frozen"]
    options = ["validation.samples=2", "validation.every_steps=2", "samples.every_steps=2", "steps=2"]
    config = load_config(
        SupervisedConfig,
        "train/smoke",
        [
            f"output_dir={folder}",
            *only_lora,
            *options,
            "log_every_steps=1",
            "data.area=8192",
            "optimizer.warmup=0",
        ],
    )
    assert train_supervised(config)
    return folder


def test_a_run_measures_by_task_and_noise_level_and_draws_its_prompts(adapted):
    records = read_metrics(adapted / "metrics.jsonl")
    assert {
        "loss",
        "loss/t2i",
        "loss/edit",
        "gradient_norm",
        "learning_rate",
        "images_per_second",
    } <= records[0].keys()
    assert 0 <= records[0]["data_wait"] <= 1 and any(key.startswith("loss/sigma_") for key in records[0])
    assert sum("validation" in record for record in records) == 1
    with Image.open(adapted / "samples" / "step_00000002.png") as sheet:
        assert sheet.width >= 128 and len(sheet.convert("RGB").getcolors(10**6)) > 2


def test_the_result_opens_merged_and_as_adapters_over_its_start(adapted, tmp_path):
    from deepgen.checkpoints.save import save_model
    from deepgen.train.tiny import tiny_defaults, tiny_model

    save_model(tiny_model(0), tiny_defaults(), tmp_path / "start")
    merged = DeepGenPipeline.from_pretrained(str(adapted / "final"))
    over = DeepGenPipeline.from_pretrained(str(tmp_path / "start"), lora=str(adapted / "final" / "lora"))
    bare = DeepGenPipeline.from_pretrained(str(tmp_path / "start"))
    drawn = [
        torch.tensor(
            list(pipe("a red ball", height=64, width=64, seed=1).images[0].tobytes()), dtype=torch.int
        )
        for pipe in (merged, over, bare)
    ]
    assert (drawn[0] - drawn[1]).abs().max() <= 1 and not torch.equal(drawn[0], drawn[2])
    said = json.loads((adapted / "final" / "generation_config.json").read_text())
    assert said["area"] == 8192


def test_speed_is_that_of_updates_whatever_else_the_run_does(smoke, monkeypatch):
    def rest(*_):
        time.sleep(2)
        return {"validation": 1.0}

    monkeypatch.setattr(engine, "validate", rest)
    config = smoke(
        "steps=3", "log_every_steps=1", "validation.every_steps=1", "samples.prompts=[]", quick=False
    )
    train_supervised(config)
    records = [r for r in read_metrics(config.output_dir / "metrics.jsonl") if "loss" in r]
    assert len(records) == 3 and all(4 / record["images_per_second"] < 2 for record in records)


def test_plot_draws_the_curves_of_a_run(adapted, tmp_path):
    result = command("plot", str(adapted), "-o", str(tmp_path / "c.png"))
    assert result.exit_code == 0 and "loss/edit" in result.output and "gradient_norm" in result.output
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width == 960
    assert "has no records yet" in str(command("plot", str(tmp_path)).exception)


def test_an_update_that_is_not_finite_changes_nothing_and_many_end_the_run(smoke, monkeypatch):
    run = SupervisedRun(smoke("max_skipped_updates=2", "ema_decay=0.9"), Ranks())
    make = engine.batch_loss

    def broken(*arguments):
        result = make(*arguments)
        return replace(result, losses=result.losses * float("inf"))

    batches = iter(run.loader)
    run._accumulate(batches)
    run.apply_update()
    state = {
        n: t.clone() for part in ("weights", "optimizer") for n, t in run.state[part].state_dict().items()
    }
    average = run.ema.averages["bridge.meta_queries"].clone()
    monkeypatch.setattr(engine, "batch_loss", broken)
    run._accumulate(batches)
    run.apply_update()
    after = {n: t for part in ("weights", "optimizer") for n, t in run.state[part].state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in state.items())
    assert torch.equal(average, run.ema.averages["bridge.meta_queries"]) and run.counters.skipped == 1
    run._accumulate(batches)
    with pytest.raises(RunError, match="2 updates in a row were not finite"):
        run.apply_update()


def test_a_sheet_that_fails_costs_no_update(smoke, monkeypatch):
    config = smoke("steps=4", "save_every_steps=2", "samples.prompts=[x]", "samples.every_steps=2")
    begun = SupervisedRun(config, Ranks())

    def fail(*_):
        raise RuntimeError("no sheet")

    monkeypatch.setattr("deepgen.train.run.draw_sheet", fail)
    with pytest.raises(RuntimeError, match="no sheet"):
        begun.train()
    assert begun.checkpointer.latest() == 2
    monkeypatch.undo()
    assert train_supervised(config)
    assert [p.name for p in (config.output_dir / "samples").iterdir()] == ["step_00000004.png"]


LATE = [
    (
        ["samples.prompts=[x]", "samples.height=50"],
        "samples.prompts.0: size 64x50: sides must be multiples of 32",
    ),
    (["samples.edits=[[paint it, gone.png]]"], r"samples.edits.0: .*gone\.png"),
    (["validation.data.sets=[{name: a, format: folder, path: gone, task: t2i}]"], "gone"),
]


@pytest.mark.parametrize(("overrides", "said"), LATE)
def test_what_would_fail_late_is_refused_before_the_run_and_by_a_dry_run(smoke, overrides, said):
    config = smoke(*overrides, quick=False)
    for check in (lambda: SupervisedRun(config, Ranks()), lambda: engine.dry_run(config)):
        with pytest.raises((ConfigError, DataError), match=said):
            check()


def test_what_is_not_installed_is_said_before_a_weight_is_read(smoke, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = smoke("metrics.tensorboard=true", "init_from=gone")
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        SupervisedRun(config, Ranks())
    engine.dry_run(smoke("metrics.tensorboard=true"))
    assert "tensorboard, which is not installed here" in caplog.text


def test_a_prompt_of_the_sheet_that_is_too_long_is_refused_before_the_run(smoke):
    with pytest.raises(ConfigError, match=r"samples.prompts.1: the prompt has \d+ tokens"):
        SupervisedRun(smoke(f"samples.prompts=[x, {'word ' * 1100}]"), Ranks())


def test_batches_that_do_not_divide_are_refused_with_numbers(smoke):
    with pytest.raises(ConfigError, match="global_batch_size is 6, no multiple of batch_size 4 times 1"):
        train_supervised(smoke("batch_size=4", "global_batch_size=6"))


def test_validation_is_as_training_where_nothing_else_is_said(smoke):
    sets = "sets: [{name: a, format: world, task: t2i}], ratio: {t2i: 1}"
    for own, expected in (
        ("", (9216, "aspect", {})),
        (", area: 1024, dropout: {t2i: 0.5}", (1024, "aspect", {"t2i": 0.5})),
    ):
        given = ["data.area=9216", "data.resize=aspect", f"validation.data={{{sets}{own}}}"]
        data = smoke(*given, quick=False).validation.data
        assert (data.area, data.resize, data.dropout) == expected


def test_the_best_checkpoint_is_kept_only_where_every_save_has_a_score(smoke):
    best = ["checkpoint.keep_best=true", "save_every_steps=2", "validation.samples=2"]
    with pytest.raises(ConfigError, match="keep_best is by the validation loss"):
        smoke(*best)
    with pytest.raises(ConfigError, match="save_every_steps 2 is no multiple"):
        smoke(*best, "validation.every_steps=4", quick=False)
    run = SupervisedRun(smoke(*best, "validation.every_steps=1", "steps=2", quick=False), Ranks())
    assert run.train() and run.checkpointer.best() == 2


def test_a_run_that_trains_nothing_is_refused(smoke):
    parts = [f"trainable.{part}=frozen" for part in ("dit", "bridge", "think_tokens", "vlm", "vision")]
    with pytest.raises(ConfigError, match="freezes everything"):
        train_supervised(smoke(*parts))


def test_a_resumed_writer_forgets_what_will_be_measured_again(tmp_path):
    writer = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write(step, loss=float(step), other=float("nan"))
    writer.path.write_text(writer.path.read_text() + '{"step": 4, "lo')
    MetricsWriter(tmp_path, resume_step=2)
    assert [(r["step"], r["loss"], r["other"]) for r in read_metrics(writer.path)] == [
        (1, 1.0, None),
        (2, 2.0, None),
    ]


def test_tensorboard_shows_the_records(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = MetricsWriter(tmp_path, MetricsConfig(tensorboard=True))
    writer.write(3, loss=0.5)
    writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.5)]


def test_wandb_goes_on_with_its_run_and_takes_no_other_of_the_same_name_for_it(tmp_path, monkeypatch):
    begun: list[dict[str, str]] = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: begun.append(given)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    for folder in ("one/sft", "one/sft", "other/sft"):
        MetricsWriter(tmp_path / folder, MetricsConfig(wandb_project="x"))
    first, again, other = (given["id"] for given in begun)
    assert first == again != other and all(given["name"] == "sft" for given in begun)


def test_what_is_not_installed_is_named_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        MetricsWriter(tmp_path, MetricsConfig(wandb_project="x"))
