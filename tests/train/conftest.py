import random

import pytest
import torch

from deepgen.train.loop import LoopConfig
from deepgen.train.tokenizer import train_tokenizer
from deepgen.train.vlm import VlmConfig, build_vlm, sample_exchange


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    loop = LoopConfig(steps=1, learning_rate=1e-3)
    sizes = {"num_layers": 2, "vision_depth": 2, "hidden_size": 40, "vision_hidden_size": 32}
    folder = tmp_path_factory.mktemp("vlm")
    return VlmConfig(
        output_dir=folder, loop=loop, tokens_per_batch=400, picture_batch_size=2, workers=0, **sizes
    )


@pytest.fixture(scope="session")
def tokenizer():
    rng = random.Random(0)
    exchanges = (sample_exchange(rng, "train") for _ in range(300))
    return train_tokenizer((part for e in exchanges for part in (e.answer, "user\n", "assistant\n")), 600)


@pytest.fixture(scope="session")
def vlm(config, tokenizer):
    torch.manual_seed(0)
    return build_vlm(config, tokenizer).eval()
