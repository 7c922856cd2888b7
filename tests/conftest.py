"""A tiny random model that the tests of several packages draw with."""

import os
from pathlib import Path

import pytest

# Before torch is imported, here and in the processes that tests start: the models are so small that several
# threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PUBLISHED_LAYOUT = Path(__file__).parent / "parity" / "golden" / "diffusers"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """The golden cases' model in our own layout, with defaults small enough for a test."""
    from deepgen.checkpoints import GenerationDefaults, load_model, save_model

    model, _ = load_model(PUBLISHED_LAYOUT)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    defaults = GenerationDefaults(
        area=64 * 64, num_inference_steps=2, padding="none", negative_edit_prompt="spoilt"
    )
    save_model(model, defaults, folder)
    return folder
