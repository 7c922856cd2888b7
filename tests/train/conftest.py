"""A small VLM for nano's stages; runs of the tiny model, in this process and in others that may be killed."""

import random
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deepgen.train.loop import LoopConfig
from deepgen.train.tokenizer import train_tokenizer
from deepgen.train.vlm import VlmConfig, build_vlm, sample_exchange

# Processes of the tests' own must find the kit too, and pytest's importlib mode adds no folder to the path.
sys.path.append(str(Path(__file__).parent))
from train_kit import CONTEXT

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "diffusers"
QUICK = ["validation.data=null", "samples.prompts=[]", "ema_decay=null"]


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


@pytest.fixture
def golden_path() -> Path:
    """A small model whose weights are all alive."""
    return GOLDEN


@pytest.fixture
def smoke(tmp_path):
    """Makes the smoke configuration with overrides, in a folder of its own, without validation and pictures."""
    from deepgen.config import load_config
    from deepgen.train.run_config import SupervisedConfig

    def make(*overrides: str, folder: str = "run", quick: bool = True) -> SupervisedConfig:
        given = [f"output_dir={tmp_path / folder}", *(QUICK if quick else []), *overrides]
        return load_config(SupervisedConfig, "train/smoke", given)

    return make


@pytest.fixture
def weights():
    """All tensors under a folder, by file and name."""

    def read(folder: Path) -> dict[str, torch.Tensor]:
        found = {}
        for path in sorted(folder.rglob("*.safetensors")):
            found.update({f"{path.relative_to(folder)}/{k}": v for k, v in load_file(path).items()})
        assert found
        return found

    return read


@pytest.fixture
def same_weights(weights):
    """Whether two folders hold the same tensors, bit for bit."""

    def same(one: Path, other: Path) -> bool:
        a, b = weights(one), weights(other)
        return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

    return same


@pytest.fixture(scope="session")
def spawn():
    """Starts `deepgen train` in a process of its own, from a server that has imported everything already."""

    def start(config: str, overrides: list[str]) -> BaseProcess:
        from deepgen.cli.train import train

        process = CONTEXT.Process(target=train, args=(config, overrides))
        process.start()
        return process

    return start
