"""The supervised objective: the published numbers, draws by sample, accumulation, and that it can be learned."""

from pathlib import Path

import pytest
import torch
from train_kit import first_gradients

from deepgen.checkpoints import load_model
from deepgen.checkpoints.golden import native_parameters, read_cases
from deepgen.config import load_config
from deepgen.data.batch import TrainBatch
from deepgen.train import supervised
from deepgen.train.features import encode_all, open_caches
from deepgen.train.optimizer import OptimizerConfig, build_optimizer, update
from deepgen.train.parallel import Ranks
from deepgen.train.run_config import SupervisedConfig
from deepgen.train.supervised import Draws, Objective, batch_loss, draws_for
from deepgen.train.tiny import tiny_model
from deepgen.train.trainable import TrainableConfig, make_trainable

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
SHARED = Path(__file__).parents[3] / "shared" / "golden"
FOLDERS = [GOLDEN / "cases", *([SHARED / "cases"] if SHARED.exists() else [])]
LOSSES = [(f, case.name) for f in FOLDERS for case in read_cases(f) if case.kind == "loss"]
EVERYTHING = TrainableConfig(dit="full", bridge="full", think_tokens="full")


def batch_of(prompts, targets, references=None):
    references = references or [[] for _ in prompts]
    tasks = ["edit" if row else "t2i" for row in references]
    return TrainBatch(prompts, targets, references, tasks, ["set"] * len(prompts), prompts)


@pytest.mark.parametrize(("folder", "name"), LOSSES, ids=[f"{f.parent.name}-{name}" for f, name in LOSSES])
def test_golden_losses_and_gradients_come_out_of_a_training_batch(folder, name, monkeypatch):
    (case,) = (case for case in read_cases(folder) if case.name == name)
    tensors, prompts = case.tensors, list(case.settings["prompts"])
    numbered = lambda prefix: [v for k, v in sorted(tensors.items()) if k.startswith(prefix)]  # noqa: E731
    model, defaults = load_model(GOLDEN / "diffusers", torch.float32)
    make_trainable(model, EVERYTHING)
    draws = Draws(tensors["u"], numbered("noise_"))
    monkeypatch.setattr(supervised, "draws_for", lambda *_: draws)
    sources = [numbered(f"source_{i}_") for i in range(len(prompts))]
    batch = batch_of(prompts, numbered("target_pixels_"), sources)
    loss = batch_loss(model, batch, Objective(0, defaults.shift, "batch"), range(len(prompts))).losses.mean()
    loss.backward()
    assert loss.item() == pytest.approx(tensors["loss"].item(), abs=1e-4)
    expected = {key.removeprefix("grad."): v for key, v in tensors.items() if key.startswith("grad.")}
    assert "meta_queries" in expected
    for key, value in expected.items():
        gradient = native_parameters(model)[key].grad
        assert (gradient - value).abs().max() <= 1e-3 * value.abs().max(), key


def test_draws_belong_to_the_sample_and_are_spread_as_published():
    objective, shape = Objective(3, 3.0, "none"), torch.Size((2, 4, 4))
    whole = draws_for(objective, range(400), [shape] * 400)
    part = draws_for(objective, [7, 8], [shape] * 2)
    assert torch.equal(part.uniform, whole.uniform[7:9]) and torch.equal(part.noise[1], whole.noise[8])
    noise = torch.stack(whole.noise)
    assert (
        len({x.sum().item() for x in noise}) == 400
        and abs(noise.mean()) < 0.03
        and abs(noise.std() - 1) < 0.03
    )
    assert abs(whole.uniform.mean() - 0.5) < 0.05 and len(set(whole.uniform.tolist())) == 400
    other = draws_for(Objective(3, 3.0, "none", "validation"), [7], [shape])
    assert not torch.equal(other.noise[0], whole.noise[7])


def test_accumulated_micro_batches_give_the_gradient_of_the_large_batch(tmp_path):
    shared = ["validation.data=null", "samples.prompts=[]", "global_batch_size=4", "data.mixing=mixed"]
    shared += ["trainable.lora.dropout=0", "data.dropout={}"]
    found = [
        first_gradients([*shared, f"output_dir={tmp_path}", f"batch_size={size}"])["gradients"]
        for size in (4, 2, 1)
    ]
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=2e-6, msg=name)


def test_four_samples_are_learned_by_heart():
    model = tiny_model(0)
    make_trainable(model, TrainableConfig(dit="full", bridge="full", think_tokens="full", vlm="lora"))
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.rand(3, 32, 32, generator=generator) * 2 - 1 for _ in range(6)]
    references = [[], [], [pictures[4]], [pictures[5]]]
    batch = batch_of(["red", "blue", "make it green", "turn it"], pictures[:4], references)
    config = OptimizerConfig(learning_rate=1e-2, weight_decay=0)
    optimizer = build_optimizer(model, config)
    losses = []
    for _ in range(40):
        # The same noise and levels each time.
        loss = batch_loss(model, batch, Objective(0, 3.0, "none"), range(4)).losses
        loss.mean().backward()
        losses.append(loss.max().item())
        update(optimizer, config, config.learning_rate, Ranks())
    assert losses[-1] < 0.02 * losses[0]


def test_what_the_frozen_networks_make_of_pictures_is_kept_and_never_mixed(tmp_path, monkeypatch):
    from deepgen.errors import DataError

    model, pictures = tiny_model(0).requires_grad_(False), [torch.rand(3, 32, 64) * 2 - 1 for _ in range(3)]
    batch = batch_of(["a", "b"], pictures[:2], [[], pictures[2:]])
    computed = batch_loss(model, batch, Objective(0, 3.0, "none"), [0, 1]).losses
    caches = open_caches(tmp_path, model, "float32")
    first = batch_loss(model, batch, Objective(0, 3.0, "none"), [0, 1], caches).losses
    for name in ("encode", "embed_references"):
        monkeypatch.setattr(model, name, lambda *_: pytest.fail("computed again"))
    again = batch_loss(model, batch, Objective(0, 3.0, "none"), [0, 1], caches).losses
    assert torch.equal(computed, first) and torch.equal(first, again)
    assert len(encode_all(model, pictures, caches.latents)) == 3
    with pytest.raises(DataError, match=r"latents: made by another producer \(weights differ\)"):
        open_caches(tmp_path, tiny_model(1), "float32")
    with pytest.raises(DataError, match="compute_dtype differ"):
        open_caches(tmp_path, model, "bfloat16")
    model.vlm.model.visual.requires_grad_(True)
    assert open_caches(tmp_path, model, "float32").embeds is None


def test_a_prompt_longer_than_the_model_reads_breaks_its_sample(tmp_path, caplog):
    from PIL import Image

    from deepgen.errors import DataError
    from deepgen.train.engine import SupervisedRun

    for i in range(3):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("word " * (3000 if i == 1 else 1))
    sets = [f"data.sets=[{{name: mine, format: folder, path: {tmp_path}}}]", "data.ratio={t2i: 1}"]
    quick = [
        "validation.data=null",
        "samples.prompts=[]",
        f"output_dir={tmp_path / 'run'}",
        "data.broken_budget=0",
    ]
    run = SupervisedRun(load_config(SupervisedConfig, "train/smoke", [*quick, *sets]), Ranks())
    with pytest.raises(DataError, match=r"1\.png: the prompt has \d+ tokens; shorten it to 1024"):
        run._accumulate(iter(run.loader))
        run._accumulate(iter(run.loader))
