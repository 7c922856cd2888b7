"""The world's detector as it lies on disk, and how much of the truth it sees: the ceiling of what it judges."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from deepgen.errors import CheckpointError
from deepgen.evaluation.runner import Progress
from deepgen.pipeline.intake import to_pixels
from deepgen.pipeline.output import to_output
from deepgen.pipeline.pipeline import DeepGenPipeline
from deepgen.pipeline.shipped import weights_root
from deepgen.world.detector import Detector
from deepgen.world.draw import draw
from deepgen.world.judging import measure_detector
from deepgen.world.sampling import draw_edit, draw_sample
from deepgen.world.scenes import Scene
from deepgen.world.sprites import Sprites

METRICS_FILE = "metrics.json"
EDITS_SHARE = 0.25


def load_detector(folder: Path | None = None) -> tuple[Detector, dict[str, Any] | None]:
    """The detector (the shipped one if not given), in evaluation mode, and its `metrics.json`, if it has one:
    how much it misses on pictures of known content. Raises CheckpointError where there is none."""
    folder = folder or weights_root() / "detector"
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"no detector in {folder}: train it with `deepgen train train/nano_detector`")
    detector = Detector.from_pretrained(folder, torch_dtype=torch.float32).eval()
    metrics = folder / METRICS_FILE
    return detector, json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else None


def held_out_scenes(count: int, seed: int = 0) -> list[Scene]:
    """Scenes of held-out prompts, one in four the result of a held-out edit."""
    rng = random.Random(f"detector/{seed}")
    return [
        draw_edit(rng, "test").target if rng.random() < EDITS_SHARE else draw_sample(rng, "test").scene
        for _ in range(count)
    ]


@torch.inference_mode()
def reconstruct(pipe: DeepGenPipeline, pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """RGB pictures of one size through the pipeline's VAE."""
    pixels = torch.stack([to_pixels(picture, picture.size) for picture in pictures])
    images: list[Image.Image] = to_output(list(pipe.model.decode(pipe.model.encode(pixels))), "pil")
    return images


def measure(
    detector: Detector, pipe: DeepGenPipeline, sprites: Sprites, count: int, progress: Progress
) -> dict[str, dict[str, float]]:
    """What `metrics.json` holds: the detector's shares on `count` drawn scenes and on their reconstructions."""
    scenes = held_out_scenes(count)
    drawn = [draw(scene, sprites) for scene in scenes]
    reconstructed: list[NDArray[np.uint8]] = []
    for picture in drawn:
        (image,) = reconstruct(pipe, [Image.fromarray(picture)])
        reconstructed.append(np.asarray(image))
        progress("reconstruct", len(reconstructed), count)
    kinds = {"drawn": drawn, "reconstructed": reconstructed}
    return {kind: measure_detector(detector, some, scenes).to_json() for kind, some in kinds.items()}
