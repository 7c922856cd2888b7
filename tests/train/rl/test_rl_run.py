"""Whole runs of a tiny model: what they do exactly, and that they go on as if nothing had happened."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from PIL import Image

from deepgen.errors import ConfigError, InputError
from deepgen.rewards import Score
from deepgen.rewards.simple import MeanBrightness
from deepgen.train.parallel import Ranks
from deepgen.train.rl import learner
from deepgen.train.rl.learner import Learner, Task
from deepgen.train.rl.measures import Measures
from deepgen.train.rl.rollout import Drawer
from deepgen.train.rl.stage import RLRun, train_rl
from deepgen.train.run import RunError

SMALL = [
    *["group_size=4", "groups_per_rollout=4", "rollout_batch_size=8", "train_batch_size=24"],
    *["sampler.num_inference_steps=3", "window={placement: random, size: 1}", "area=1024"],
]
EDITS = "prompts.sets=[{name: t2i, format: world, weight: 1}, {name: edits, format: world, task: edit, weight: 1}]"
SFT = (
    "sft={weight: 0.1, batch_size: 1, global_batch_size: 2, workers: 0, data: {sets: "
    "[{name: a, format: world, task: t2i}, {name: b, format: world, task: edit}], ratio: {t2i: 1, edit: 1}, "
    "area: 1024}}"
)
EVERYTHING = [
    *[*SMALL, EDITS, SFT, "updates_per_rollout=2", "trainable.bridge=full", "trainable.think_tokens=full"],
    *[
        "trainable.vlm=lora",
        "trainable.lora.rank=2",
        "loss.kl_weight=0.1",
        "loss.clip_low=0.01",
        "ema_decay=0.9",
    ],
    *[
        "rewards=[{kind: mean_brightness, families: {t2i: 1}}, {kind: jpeg_size, families: {edits: 1, t2i: 0.1}}]"
    ],
    *["held_out=[{name: watch, kind: jpeg_size}]", "measure_gradients_every=2"],
]


def first_rollout(config):
    """A run, and the pictures of its first rollout."""
    from deepgen.train.rl.window import choose_window

    run = RLRun(config, Ranks())
    window = choose_window(config.window, config.sampler.num_inference_steps, config.seed, 0)
    return run, run._draw(window)[0], window


def shift_log_probs(monkeypatch, distance):
    """Rollouts whose log-probabilities are off by a little."""
    draw = Drawer.draw

    def nearly(self, *arguments):
        drawn = draw(self, *arguments)
        return replace(drawn, log_probs={step: x + distance for step, x in drawn.log_probs.items()})

    monkeypatch.setattr(Drawer, "draw", nearly)


def test_a_run_in_two_parts_ends_in_the_weights_of_one_run_bit_for_bit(rl_smoke, same_weights, records):
    whole, parts = (rl_smoke(*EVERYTHING, "steps=4", folder=name) for name in ("whole", "parts"))
    train_rl(whole)
    train_rl(parts.model_copy(update={"steps": 2}))
    assert train_rl(parts)
    assert same_weights(whole.output_dir / "final", parts.output_dir / "final")
    told = [[r["reward/mean"] for r in records(config)] for config in (whole, parts)]
    assert told[0] == told[1] and len(told[0]) == 2
    first = records(whole)[0]
    assert {"gradient_norm/sft", "gradient_norm/policy", "gradient_norm/kl", "held_out/watch", "kl"} <= set(
        first
    )
    assert 0 < first["kl"] < records(whole)[1]["kl"] and first["mismatch/max"] <= 1e-6


@pytest.mark.parametrize("updates", [1, 4])
def test_a_rollout_makes_exactly_the_declared_number_of_updates(rl_smoke, updates):
    run = RLRun(rl_smoke(*SMALL, f"updates_per_rollout={updates}", "steps=8"), Ranks())
    made = []
    run.optimizer.register_step_post_hook(lambda *_: made.append(run.progress.rollout))
    run.train()
    assert len(made) == run.counters.step == 8
    assert made == [i // updates for i in range(8)]


def test_with_one_update_the_ratio_is_one_and_with_more_the_first_is(rl_smoke, records):
    for updates in (1, 2):
        config = rl_smoke(*SMALL, f"updates_per_rollout={updates}", "steps=2", folder=f"u{updates}")
        train_rl(config)
        record = records(config)[0]
        assert (record["ratio/max"] == record["ratio/min"] == 1) == (updates == 1)
        assert record["mismatch/max"] <= 1e-6 and ("clip/low" in record)


def test_the_fixed_prompts_are_drawn_where_updates_of_a_rollout_step_over_their_number(rl_smoke):
    """Rollouts end at updates 2, 4, 6, 8 here; of the sheets at 3, 6 and 9 the first is due at 4."""
    config = rl_smoke(
        *SMALL,
        "updates_per_rollout=2",
        "steps=8",
        "samples={prompts: [a red ball, two cats], every_steps: 3, num_inference_steps: 1, height: 32, width: 64}",
    )
    train_rl(config)
    sheets = sorted((config.output_dir / "samples").glob("step_*.png"))
    assert [sheet.stem for sheet in sheets] == ["step_00000004", "step_00000006"]
    with Image.open(sheets[0]) as early, Image.open(sheets[1]) as late:
        assert early.size == late.size == (2 * 68, 36) and early.tobytes() != late.tobytes()


def test_training_on_another_policy_than_the_rollouts_is_an_error_and_changes_nothing(rl_smoke, monkeypatch):
    config = rl_smoke(*SMALL, "steps=1")
    run = RLRun(config, Ranks())
    before = {name: p.detach().clone() for name, p in run.trained.items()}
    forward = Learner._forward

    def wrong(self, drawn, micro):
        passed = forward(self, drawn, micro)
        return type(passed)(passed.move, passed.velocity, passed.log_probs + 1e-5, passed.sizes)

    monkeypatch.setattr(Learner, "_forward", wrong)
    with pytest.raises(RunError, match="not of one policy"):
        run.train()
    assert all(torch.equal(before[name], p) for name, p in run.trained.items())


def test_a_rollout_without_any_difference_teaches_nothing_and_is_counted(rl_smoke, records, monkeypatch):
    monkeypatch.setattr(MeanBrightness, "__call__", lambda self, batch: [Score.of(0.5)] * len(batch))
    config = rl_smoke(*SMALL, "steps=2")
    run = RLRun(config, Ranks())
    before = {name: p.detach().clone() for name, p in run.trained.items()}
    # An update without a gradient would move by the optimizer's memory alone.
    monkeypatch.setattr(run, "apply_update", None)
    assert run.train() and run.counters.step == 2
    assert [r["advantage/zero_spread"] for r in records(config)] == [1, 1]
    assert all(torch.equal(before[name], p) for name, p in run.trained.items())


def test_pictures_without_a_reward_are_left_out_and_counted(rl_smoke, records, monkeypatch):
    score = MeanBrightness.__call__
    monkeypatch.setattr(
        MeanBrightness,
        "__call__",
        lambda self, batch: [Score(None, "unreadable"), *score(self, batch)[1:]],
    )
    config = rl_smoke(*SMALL, "steps=1")
    assert train_rl(config)
    record = records(config)[0]
    assert record["advantage/invalid"] == pytest.approx(2 / 16)  # of each of two blocks the first
    assert record["reward_valid_share/mean_brightness"] == 0.875
    assert record["reward_missing/mean_brightness"] == 2


def test_a_mismatch_in_bf16_is_a_warning_with_advice(rl_smoke, records, caplog, monkeypatch):
    shift_log_probs(monkeypatch, 1e-4)
    config = rl_smoke(*SMALL, "parallel.compute_dtype=bfloat16", "steps=1", "result_guidance_scale=1.5")
    with caplog.at_level("INFO", "deepgen.train"):
        assert train_rl(config)
    assert records(config)[0]["mismatch/max"] == pytest.approx(1e-4, rel=0.1)
    assert "train_batch_size" in caplog.text
    told = json.loads((config.output_dir / "final" / "generation_config.json").read_text())
    assert told["guidance_scale"] == 1.5


def test_the_checkpoint_of_the_highest_reward_can_be_kept(rl_smoke):
    config = rl_smoke(*SMALL, "steps=3", "checkpoint={save_every_steps: 1, keep_last: 1, keep_best: true}")
    run = RLRun(config, Ranks())
    run.train()
    notes = {step: run.checkpointer._note(step)["score"] for step in run.checkpointer.steps()}
    assert 3 in notes and run.checkpointer.best() == min(notes, key=notes.get)
    assert all(-1 < score < 0 for score in notes.values())


def test_a_prompt_that_is_too_long_is_named(rl_smoke, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("word " * 2000)
    with pytest.raises(InputError, match=r"prompts\.txt #1 has \d+ tokens"):
        train_rl(rl_smoke(*SMALL, f"prompts.sets=[{{name: mine, format: prompts, path: {path}}}]"))


def test_rows_that_fill_up_where_another_process_has_more_change_nothing(rl_smoke, monkeypatch):
    score = MeanBrightness.__call__
    monkeypatch.setattr(
        MeanBrightness, "__call__", lambda self, batch: [Score(None, "no"), *score(self, batch)[1:]]
    )
    found = []
    for extra in (0, 1):
        monkeypatch.setattr(learner, "most_of", lambda turns, ranks, extra=extra: turns + extra)
        run = RLRun(rl_smoke(*SMALL, "steps=1", "loss.kl_weight=1", folder=f"extra{extra}"), Ranks())
        assert run.train()
        found.append({name: p.detach().clone() for name, p in run.trained.items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_picture_does_not_depend_on_what_it_is_drawn_with(rl_smoke):
    found = []
    for at_once in (4, 16):
        config = rl_smoke(*SMALL, f"rollout_batch_size={at_once}", EDITS, folder=f"at{at_once}")
        _, drawn, window = first_rollout(config)
        found.append((drawn, window.trained))
    (few, steps), (many, _) = found
    for step in steps:
        torch.testing.assert_close(few.states[step], many.states[step], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(few.log_probs[step], many.log_probs[step], rtol=0, atol=1e-6)


def test_the_one_updates_ratio_is_to_the_policy_itself_and_not_to_what_the_rollout_kept(
    rl_smoke, records, monkeypatch
):
    shift_log_probs(monkeypatch, 5e-7)
    config = rl_smoke(*SMALL, "steps=1")
    train_rl(config)
    record = records(config)[0]
    assert record["log_ratio/absolute"] == 0
    assert record["mismatch/mean"] == pytest.approx(5e-7, rel=0.5)


def test_an_only_updates_way_is_measured_and_warned_of(rl_smoke, records):
    """Within its rollout every ratio is 1, whatever the rate."""
    found = {}
    for rate in (1e-12, 3e-2):
        config = rl_smoke(
            *SMALL,
            "steps=2",
            "measure_gradients_every=2",
            f"optimizer.learning_rate={rate}",
            folder=f"at{rate}",
        )
        train_rl(config)
        found[rate] = records(config)
        assert found[rate][0]["log_ratio/absolute"] == 0 and "log_ratio/after" not in found[rate][1]
    near, far = (found[rate][0] for rate in found)
    assert near["log_ratio/after"] < 1e-6 < 5e-4 < far["log_ratio/after"]
    assert "warning" not in near and "learning_rate" in far["warning"]


def test_the_distance_of_an_update_is_that_of_the_log_probabilities_of_its_rows(rl_smoke):
    run, drawn, window = first_rollout(rl_smoke(*SMALL))
    task = Task(drawn, window.trained, torch.ones(16), None, None)
    rows, measures = [1, 5, 6], Measures(run.ranks)
    before = run.learner.glimpse(task, rows)
    kept = drawn.log_probs[window.trained[0]][rows]
    torch.testing.assert_close(before[0], kept, rtol=0, atol=1e-6)
    run._moved((before[0] + 0.25, before[1]), task, rows, measures)
    assert measures.read() == {"log_ratio/after": pytest.approx(0.25, abs=1e-6)}
    assert run.learner.glimpse(task, []) is None


def test_a_group_starts_from_one_noise_where_the_window_is_first(rl_smoke):
    _, drawn, _ = first_rollout(rl_smoke(*SMALL, "window={placement: fixed, size: 1}"))
    states = drawn.states[0].view(4, 4, -1)
    assert torch.equal(states, states[:, :1].expand_as(states)) and not torch.equal(states[0], states[1])
    after = drawn.states[1].view(4, 4, -1)
    assert all(not torch.equal(after[:, 0], after[:, i]) for i in (1, 2, 3))


def test_a_group_starts_from_one_noise_and_parts_at_the_window(rl_smoke):
    config = rl_smoke(*SMALL, "window={placement: fixed, size: 1, first: 1}")
    _, drawn, window = first_rollout(config)
    states = drawn.states[window.trained[0]].view(4, 4, -1)
    assert window.trained == (1,) and set(drawn.states) == {1, 2}
    assert torch.equal(states, states[:, :1].expand_as(states))
    after = drawn.states[2].view(4, 4, -1)
    assert all(not torch.equal(after[:, 0], after[:, i]) for i in (1, 2, 3))
    assert not torch.equal(states[0, 0], states[1, 0])


def test_without_shared_noise_every_picture_starts_alone(rl_smoke):
    config = rl_smoke(*SMALL, "sampler.share_noise=false", "window={placement: fixed, size: 1}")
    _, drawn, _ = first_rollout(config)
    states = drawn.states[0].view(4, 4, -1)
    assert len({row[0].item() for row in states[0]}) == 4


def test_guided_policies_are_rolled_out_and_trained_alike(rl_smoke, records):
    config = rl_smoke(*SMALL, EDITS, "sampler.guidance_scale=2", "steps=1", "sampler.padding=pair")
    assert train_rl(config)
    assert records(config)[0]["mismatch/max"] <= 1e-6


def test_adapters_off_are_the_frozen_copy_of_an_adapted_model(rl_smoke, records, same_weights):
    lora = ["trainable.dit=lora", "trainable.lora.rank=2", "loss.kl_weight=1", "steps=2"]
    both = [
        rl_smoke(*SMALL, *lora, f"loss.reference={kind}", folder=kind) for kind in ("copy", "adapters_off")
    ]
    for config in both:
        train_rl(config)
    kl = [[r["kl"] for r in records(config)] for config in both]
    assert kl[0] == kl[1] and kl[0][0] == 0 < kl[0][1]
    assert same_weights(*(config.output_dir / "final" for config in both))
    with pytest.raises(ConfigError, match="adapters_off"):
        RLRun(rl_smoke(*SMALL, "loss.kl_weight=1", "loss.reference=adapters_off"), Ranks())


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_in_the_weights_of_one_run(rl_smoke, spawn, same_weights):
    config = rl_smoke(*EVERYTHING, "steps=40", folder="killed")
    given = [*EVERYTHING, "steps=40", f"output_dir={config.output_dir}", "checkpoint.save_every_steps=2"]
    kills = 0
    while True:
        process = spawn("train/rl_smoke", given)
        process.join(2 + 0.7 * kills)
        if process.exitcode is not None:
            break
        if kills == 10:
            process.join(300)
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    assert process.exitcode == 0 and kills > 2
    whole = rl_smoke(*EVERYTHING, "steps=40", folder="whole")
    train_rl(whole)
    assert same_weights(whole.output_dir / "final", config.output_dir / "final")
