import random

import pytest
import torch

from deepgen.train.vlm import (
    ExchangeMaker,
    asked_caption,
    embed_batch,
    next_token_loss,
    picture_positions,
)
from deepgen.world.sampling import draw_sample
from deepgen.world.sprites import Sprites


def batches(config, tokenizer, pictures):
    stream = ExchangeMaker(tokenizer, config, "train")(random.Random(1), Sprites.procedural())
    return next(b for b in stream if (b["pixels"].shape[1] if "pixels" in b else 0) == pictures)


@pytest.fixture(scope="module")
def roomy(config):
    """Without words of its own the small tokenizer spells: longer sequences, and two samples of two pictures."""
    return config.model_copy(update={"picture_batch_size": 4})


@pytest.mark.parametrize("pictures", [1, 2])
def test_picture_positions_are_those_of_qwen(roomy, tokenizer, vlm, pictures):
    batch = batches(roomy, tokenizer, pictures)
    _, positions = embed_batch(vlm, batch, torch.device("cpu"))
    ids = batch["ids"].long()
    height, width = batch["pixels"].shape[3:]
    grid = torch.tensor([[1, height // 16, width // 16]] * (pictures * len(ids)))
    kinds = (ids == vlm.config.image_token_id).int()
    expected, _ = vlm.model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grid)
    assert torch.equal(positions, expected)


def test_text_goes_on_after_the_larger_side_of_a_picture():
    positions = picture_positions(12, [2], 2, 4)
    assert positions[:, 10].tolist() == [6, 6, 6]
    assert positions[:, 9].tolist() == [2, 3, 5]


def test_the_loss_of_a_new_model_is_that_of_guessing(config, tokenizer, vlm):
    for pictures in (0, 1, 2):
        loss, right = next_token_loss(vlm, batches(config, tokenizer, pictures), torch.device("cpu"))
        assert loss.item() == pytest.approx(torch.tensor(float(len(tokenizer))).log().item(), rel=0.15)
        assert not right.any()


def test_answers_only_count_after_the_question(config, tokenizer):
    batch = batches(config, tokenizer, 0)
    last = batch["weights"].max(dim=1).values
    assert torch.equal(last, torch.ones_like(last))
    assert bool((batch["weights"][:, 0] < 1).all())


def test_what_a_prompt_leaves_open_is_not_in_its_answer():
    rng = random.Random(3)
    samples = [draw_sample(rng, "train", ("single",)) for _ in range(50)]
    for sample in samples:
        assert ("background" in sample.mentions) == (" on " in f" {asked_caption(sample)} ")
        assert ("style" in sample.mentions) == asked_caption(sample).endswith(" style")
