"""CLIP as a reward, with tiny random weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from deepgen.rewards import RewardInput
from deepgen.rewards.clip import ClipReward
from deepgen.scorers.clip import Clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {"vocab_size": len(words), "eos_token_id": len(words) - 1, "bos_token_id": len(words) - 2}
    torch.manual_seed(0)
    vision = small | {"image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(
        folder
    )
    return folder


def test_every_picture_is_held_against_its_own_prompt_however_they_are_batched(folder):
    rng = np.random.default_rng(0)
    batch = [
        RewardInput(rng.integers(0, 256, (24, 24, 3), np.uint8), prompt, "g")
        for prompt in ("cat", "dog", "cat")
    ]
    clip = Clip(folder)
    expected = [clip.similarity(Image.fromarray(one.picture), one.prompt) for one in batch]
    assert len(set(expected)) == 3
    for at_once in (1, 2, 8):
        found = [score.value for score in ClipReward("clip", folder, "cpu", at_once)(batch)]
        assert found == pytest.approx(expected, abs=1e-5)
