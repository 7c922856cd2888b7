"""The small CLIP: its loss in float64 by hand, captions that are false, and captions that are true of others."""

import math
import random

import pytest
import torch

from deepgen.checkpoints.towers import load_tokenizer
from deepgen.pipeline.shipped import weights_root
from deepgen.world.contradictions import agreements, contradiction, is_true
from deepgen.world.dual_encoder import DualEncoder, caption_ids
from deepgen.world.sampling import CATEGORIES, draw_plan, draw_sample, sample_of


@pytest.fixture(scope="module")
def encoder() -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(vocab_size=2048).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer([weights_root() / "nano" / "vlm"])


def test_it_has_at_most_one_and_a_half_million_parameters(encoder: DualEncoder) -> None:
    assert sum(p.numel() for p in encoder.parameters()) <= 1.5e6


def test_what_fills_a_row_and_who_shares_its_batch_do_not_matter(encoder: DualEncoder, tokenizer) -> None:
    texts = ["a red car", 'a cat and the word "OPEN" in blue letters']
    together = encoder.texts(*caption_ids(tokenizer, texts))
    for row, text in zip(together, texts, strict=True):
        assert torch.allclose(encoder.texts(*caption_ids(tokenizer, [text]))[0], row, atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(2))
    pictures = torch.rand(2, 3, 192, 320)
    assert torch.allclose(encoder.pictures(pictures)[1], encoder.pictures(pictures[1:])[0], atol=1e-5)


def test_the_loss_is_the_mean_of_both_directions_without_what_is_true_besides(encoder: DualEncoder) -> None:
    torch.manual_seed(2)
    pictures, texts = (torch.nn.functional.normalize(torch.randn(n, 4).double(), dim=1) for n in (2, 3))
    agrees = torch.tensor([[True, False, False], [True, True, False]])
    scores = (math.exp(encoder.log_scale.item()) * pictures @ texts.T).tolist()

    def surprise(own: float, *others: float) -> float:
        return math.log(sum(math.exp(other - own) for other in (own, *others)))

    to_text = surprise(scores[0][0], scores[0][1], scores[0][2]) + surprise(scores[1][1], scores[1][2])
    to_picture = surprise(scores[0][0]) + surprise(scores[1][1], scores[0][1])
    expected = (to_text / 2 + to_picture / 2) / 2
    assert encoder.loss(pictures, texts, agrees).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("category", [name for name in CATEGORIES if not name.startswith("reasoning")])
def test_a_contradiction_is_another_caption(category: str) -> None:
    rng = random.Random(category)
    found = []
    for _ in range(20):
        plan, template = draw_plan(rng, "train", (category,))
        sample = sample_of(rng, plan, template, "train")
        assert is_true(sample, sample.scene)
        found.append(contradiction(rng, plan, sample.scene))
    assert sum(text is not None for text in found) >= 18


def test_facts_have_no_contradiction() -> None:
    rng = random.Random(0)
    plan, template = draw_plan(rng, "train", ("reasoning_seen",))
    assert contradiction(rng, plan, sample_of(rng, plan, template, "train").scene) is None


def test_a_caption_agrees_with_every_scene_of_which_it_is_true() -> None:
    rng = random.Random(1)
    samples = [draw_sample(rng, "train", ("single", "two", "counting")) for _ in range(150)]
    slow = [
        (i, j)
        for i, one in enumerate(samples)
        for j, other in enumerate(samples)
        if i != j and is_true(other, one.scene)
    ]
    assert sorted(agreements(samples)) == slow and slow


def test_it_learns_which_caption_is_whose(tokenizer) -> None:
    torch.manual_seed(0)
    encoder = DualEncoder(
        2048, width=32, widths=(8, 16, 24, 32), picture_layers=1, text_layers=1, num_heads=2
    )
    pictures = torch.rand(4, 3, 64, 64)
    ids, lengths = caption_ids(tokenizer, ["a red car", "a blue car", "two cats", "a cat", "a green car"])
    optimizer = torch.optim.Adam(encoder.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss = encoder.loss(encoder.pictures(pictures), encoder.texts(ids, lengths), torch.eye(4, 5).bool())
        loss.backward()
        optimizer.step()
    encoder.eval()
    nearest = (encoder.pictures(pictures) @ encoder.texts(ids, lengths).T).argmax(dim=1)
    assert nearest.tolist() == [0, 1, 2, 3]
