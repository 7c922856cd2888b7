"""A tiny random model that the tests of several packages draw with."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before torch is imported, here and in the processes that tests start: the models are so small that several
# threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `pytest --hypothesis-profile full tests/fuzz` is the long search; `short` is what every run can afford.
# deadline: a first example pays for imports. too_slow: pictures and models are slower than integers.
shared = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("short", max_examples=50, derandomize=True, database=None, **shared)
settings.register_profile("full", max_examples=10_000, print_blob=True, **shared)
settings.load_profile("short")

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
