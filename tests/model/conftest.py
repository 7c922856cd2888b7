from pathlib import Path

import pytest

from deepgen.checkpoints import load_model

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "diffusers"


@pytest.fixture(scope="session")
def tiny():
    """The golden model: the published architecture at tiny scale."""
    return load_model(GOLDEN)[0].requires_grad_(False)
