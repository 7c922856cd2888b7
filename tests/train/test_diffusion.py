import random

import pytest
import torch
from diffusers import AutoencoderKL

from deepgen.model.deepgen import DeepGenModel
from deepgen.model.vlm import FusedVLM
from deepgen.train import diffusion
from deepgen.train.cache import (
    CONCEPT_NUMBERS,
    PICTURES,
    Emphasis,
    PairMaker,
    Shelf,
    Stream,
    token_labels,
    token_weights,
)
from deepgen.train.conditioner import Conditioner, PromptBatch, drop_prompts
from deepgen.train.diffusion import (
    Trainer,
    blank_prompts,
    build_modules,
    choose_batches,
    noise_levels,
    patchify,
)
from deepgen.train.diffusion_run import BridgeShape, DiffusionConfig, DitShape
from deepgen.train.loop import LoopConfig
from deepgen.world.scenes import Background, Object, Scene
from deepgen.world.sprites import Sprites

BRIDGE = BridgeShape(num_fused_layers=1, hidden_size=40, intermediate_size=64, num_layers=1, num_queries=4)
DIT = DitShape(
    num_layers=2,
    attention_head_dim=8,
    num_attention_heads=2,
    joint_attention_dim=40,
    caption_projection_dim=16,
    pooled_projection_dim=24,
    dual_attention_layers=(0,),
    in_channels=4,
    out_channels=4,
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffusion")
    loop = LoopConfig(steps=1, learning_rate=1e-3)
    return DiffusionConfig(
        output_dir=folder, vlm=folder, vae=folder, loop=loop, bridge=BRIDGE, transformer=DIT
    )


@pytest.fixture(scope="module")
def modules(settings, vlm):
    torch.manual_seed(0)
    bridge, dit = build_modules(settings, vlm.config.text_config.hidden_size)
    for parameter in (*bridge.parameters(), *dit.parameters()):
        torch.nn.init.normal_(parameter, std=0.1)
    return bridge.requires_grad_(False), dit


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_training_conditions_as_the_pipeline_does(vlm, tokenizer, modules, pictures):
    bridge, dit = modules
    vae = AutoencoderKL(latent_channels=4, block_out_channels=(32,))
    model = DeepGenModel(FusedVLM(vlm.model, tokenizer, 1), bridge, dit, vae)
    pixels = torch.rand(2, pictures, 3, 64, 96) * 2 - 1
    references = [list(row) for row in pixels] if pictures else None
    texts = ["a red car", "two dogs on a blue background"]
    expected = model.condition(texts, references)
    from deepgen.model.deepgen import build_prompt

    rows = [
        model.vlm.tokenize(build_prompt(t, r)) for t, r in zip(texts, references or [[], []], strict=True)
    ]
    ids = torch.zeros(2, max(map(len, rows)) + 3, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    vision = None
    if pictures:
        vision = model.vlm.image_embeds(pixels.flatten(0, 1)).view(2, pictures, 6, -1)
    batch = PromptBatch(ids, torch.tensor([len(row) for row in rows]), vision, 2)
    context, lengths, pooled = Conditioner(model.vlm, bridge, compiled=False)(batch)
    assert torch.equal(lengths, expected.lengths)
    assert torch.allclose(pooled, expected.pooled, atol=1e-5)
    for i, length in enumerate(lengths.tolist()):
        assert torch.allclose(context[i, :length], expected.context[i, :length], atol=1e-5)


def test_patches_are_in_the_order_of_the_transformers_output(modules):
    latents = torch.randn(2, 4, 6, 8)
    assert torch.equal(modules[1].unpatchify(patchify(latents, 2), 6, 8), latents)


def test_dropped_prompts_become_the_empty_one():
    ids, lengths = torch.full((1000, 8), 7), torch.full((1000,), 8)
    new_ids, new_lengths = drop_prompts(ids, lengths, torch.tensor([1, 2, 3]), 0.1)
    dropped = new_lengths == 3
    assert 60 < int(dropped.sum()) < 140
    assert new_ids[dropped][0].tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert bool((new_ids[~dropped] == 7).all())


def test_noise_levels_are_shifted_towards_noise():
    torch.manual_seed(0)
    plain, shifted = (noise_levels(20000, shift, torch.device("cpu")) for shift in (1.0, 2.0))
    assert plain.median().item() == pytest.approx(0.5, abs=0.02)
    assert shifted.median().item() == pytest.approx(2 / 3, abs=0.02)


def test_tokens_of_objects_weigh_more():
    scene = Scene(64, 64, "flat", Background(), (Object("apple", 20, 0, 44),))
    weights = token_weights(scene).view(4, 4)
    assert weights[0].tolist() == [1, 3, 3, 3]
    assert weights[3].tolist() == [1, 1, 1, 1]
    assert token_weights(scene, [(0, 48, 64, 64)]).view(4, 4)[3].tolist() == [3, 3, 3, 3]


def test_a_token_is_labelled_by_the_frontmost_object_at_its_middle():
    scene = Scene(64, 48, "flat", Background(), (Object("apple", 6, 0, 30), Object("dog", 25, 17, 16)))
    apple, dog = 1 + CONCEPT_NUMBERS["apple"], 1 + CONCEPT_NUMBERS["dog"]
    assert token_labels(scene).view(3, 4).tolist() == [
        [apple, apple, 0, 0],
        [apple, apple, dog, 0],
        [0, 0, 0, 0],
    ]


def test_a_perfect_velocity_has_no_loss(settings, modules, vlm, tokenizer, monkeypatch):
    bridge, dit = modules
    conditioner = Conditioner(FusedVLM(vlm.model, tokenizer, 1), bridge, compiled=False)
    labeller = torch.nn.Linear(16, 4)
    trainer = Trainer(settings, conditioner, dit, labeller, {("text", 256, 256): torch.tensor([1])})
    rows = {
        "ids": torch.ones(2, 8, dtype=torch.int16),
        "lengths": torch.tensor([8, 5]),
        "latents": torch.zeros(2, 4, 32, 32).bfloat16(),
        "weights": torch.ones(2, 256).bfloat16(),
        "labels": torch.zeros(2, 256, dtype=torch.int16),
    }
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.full_like(x, 0.5))
    for guess, loss in ((0.5, 0.0), (0.0, 0.25)):
        velocity = torch.full((2, 256, 16), guess)

        def answer(*_, packed, tap, velocity=velocity):
            tap.append(torch.zeros(2, 256, 16))
            return velocity

        monkeypatch.setattr(dit, "forward_tokens", answer)
        assert trainer.losses(("text", 256, 256), rows)[0].item() == pytest.approx(loss)


def edit_rows(image_id, pictures):
    """Two rows of a shelf of edits with so many source pictures of 64 × 96 pixels."""
    head = [image_id] * 6 + [9, 9]
    ids = torch.tensor([head * pictures + [9] * 8] * 2, dtype=torch.int16)
    return {
        "ids": ids,
        "lengths": torch.tensor([ids.shape[1] - 2, ids.shape[1] - 4]),
        "latents": torch.randn(2, 4, 8, 12).bfloat16(),
        "sources": 8 * torch.randn(2, pictures, 4, 8, 12).bfloat16(),
        "vision": torch.randn(2, pictures, 6, 40),
        "weights": torch.ones(2, 24).bfloat16(),
        "labels": torch.ones(2, 24, dtype=torch.int16),
    }


@pytest.mark.parametrize(("kind", "pictures"), [("edit", 1), ("insert", 2)])
def test_the_transformer_sees_sources_as_it_does_in_the_pipeline(
    settings, modules, vlm, tokenizer, monkeypatch, kind, pictures
):
    bridge, dit = modules
    conditioner = Conditioner(FusedVLM(vlm.model, tokenizer, 1), bridge, compiled=False)
    rows, key = edit_rows(conditioner.image_id, pictures), (kind, 64, 96)
    config = settings.model_copy(update={"prompt_dropout": 0.0})
    trainer = Trainer(config, conditioner, dit, torch.nn.Linear(16, 4), {key: rows["ids"][0].long()})
    noise, sigma = torch.randn(2, 4, 8, 12), torch.tensor([0.3, 0.8])
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    monkeypatch.setattr(diffusion, "noise_levels", lambda *_: sigma)
    prompts = PromptBatch(rows["ids"].long(), rows["lengths"], rows["vision"], 2)
    context, lengths, pooled = conditioner(prompts)
    clean, sources = rows["latents"].float(), [list(row) for row in rows["sources"].float()]
    noisy = torch.stack([s * n + (1 - s) * c for s, n, c in zip(sigma, noise, clean, strict=True)])
    velocity = dit(noisy, 1000 * sigma, context, pooled, lengths, sources)
    expected = (velocity - (noise - clean)).square().mean()
    assert trainer.losses(key, rows)[0].item() == pytest.approx(expected.item(), rel=2e-6)
    rows["sources"][:, 0] = 0  # the first picture matters
    assert trainer.losses(key, rows)[0].item() != pytest.approx(expected.item(), rel=2e-5)


def test_the_loss_reaches_the_think_tokens_through_the_frozen_vlm(settings, modules, vlm, tokenizer):
    bridge, dit = modules
    bridge.requires_grad_(True)
    conditioner = Conditioner(FusedVLM(vlm.model, tokenizer, 1), bridge, compiled=False)
    labeller = torch.nn.Linear(16, 4)
    rows = edit_rows(conditioner.image_id, 1)
    trainer = Trainer(settings, conditioner, dit, labeller, {("edit", 64, 96): rows["ids"][0, :10].long()})
    for loss in trainer.losses(("edit", 64, 96), rows):
        bridge.meta_queries.grad = None
        loss.backward(retain_graph=True)
        assert bridge.meta_queries.grad.abs().sum() > 0
    bridge.requires_grad_(False)


def test_edits_and_inserts_come_as_often_as_asked(settings):
    stream = Stream(iter(()), None, None, dict.fromkeys(PICTURES, 10))
    for kind in PICTURES:
        stream.shelves[kind, 256, 256] = Shelf(10)
        stream.shelves[kind, 256, 256].write(lengths=torch.ones(4))
    chosen = choose_batches(stream, settings, random.Random(0))
    drawn = [next(chosen) for _ in range(1000)]
    kinds = [key[0] for key, _ in drawn]
    assert 200 < kinds.count("edit") < 300 and 35 < kinds.count("insert") < 85
    assert {size for key, size in drawn if key[0] == "insert"} == {settings.insert_batch_size}


def test_a_kind_that_never_comes_is_not_waited_for(settings):
    config = settings.model_copy(update={"edit_share": 0.7, "insert_share": 0.3})
    assert config.shares == {"edit": 0.7, "insert": 0.3} and config.capacities.keys() == config.shares.keys()
    with pytest.raises(ValueError, match="exceed 1"):
        DiffusionConfig(**settings.model_dump() | {"edit_share": 0.8, "insert_share": 0.3})


def test_prompts_of_every_kind_have_their_pictures_before_the_text_and_fit(settings, tokenizer):
    lengths = {"text": 256, "edit": 256, "insert": 256}
    feed = PairMaker(tokenizer, dict.fromkeys(PICTURES, 1.0), 3, lengths)(
        random.Random(0), Sprites.procedural()
    )
    seen, blanks = {}, blank_prompts(tokenizer, torch.device("cpu"))
    while seen.keys() != PICTURES.keys():
        batch = next(feed)
        seen[batch["key"][0]] = batch
    image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    for kind, batch in seen.items():
        _, height, width = batch["key"]
        assert batch["ids"].shape == (3, 256) and len(batch["sources"]) == 3 * PICTURES[kind]
        assert {(s.height, s.width) for s in batch["sources"]} <= {(height, width)}
        pads = (batch["ids"] == image_id).int()
        assert pads.sum(1).tolist() == [PICTURES[kind] * height * width // 1024] * 3
        blank = blanks[batch["key"]]
        assert torch.equal((blank == image_id).int(), pads[0, : len(blank)])
        assert bool((pads == pads[0]).all())


def test_known_things_come_less_often_in_a_larger_world(tokenizer):
    emphasis = Emphasis(concepts=100, styles=("3d",), keep=0.0)
    lengths = {"text": 256}
    feed = PairMaker(tokenizer, {"text": 1.0}, 4, lengths, emphasis)(random.Random(0), Sprites.procedural())
    for _ in range(4):
        for scene in next(feed)["scenes"]:
            new = any(CONCEPT_NUMBERS[thing.concept] >= 100 for thing in scene.objects)
            assert new or scene.style != "3d" or scene.words


def test_a_full_shelf_forgets_its_oldest_rows():
    shelf = Shelf(5)
    for start in (0, 2, 4):
        shelf.write(lengths=torch.arange(start, start + 2))
    assert len(shelf) == 5
    assert sorted(shelf.take(torch.arange(5))["lengths"].tolist()) == [1, 2, 3, 4, 5]
