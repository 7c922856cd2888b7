"""The tiny model as a pipeline."""

import pytest

from deepgen import DeepGenPipeline


@pytest.fixture(scope="session")
def pipe(tiny_checkpoint):
    pipeline = DeepGenPipeline.from_pretrained(tiny_checkpoint, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
