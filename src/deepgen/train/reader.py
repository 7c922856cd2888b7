"""Trains the reader of the world: the network that rewards nano's words."""

import random
from collections.abc import Iterator, Sequence

import torch
from pydantic import Field
from torch import Tensor

from deepgen.rewards.text_match import levenshtein
from deepgen.train.feeds import Batch, draw_stacked
from deepgen.train.seeing import SeeingConfig, by_size, held_out_pictures, train_seeing, write_measures
from deepgen.world.reader import Reader, misspelt, word_of
from deepgen.world.sampling import draw_edit, draw_sample
from deepgen.world.scenes import Scene
from deepgen.world.sprites import Sprites


class ReaderConfig(SeeingConfig):
    """`deepgen train nano_reader`."""

    stage: str = "reader"
    wordless: float = Field(0.15, ge=0, le=1, description="share of pictures without a word")
    misspelt: float = Field(0.5, ge=0, le=1, description="share of words with wrong letters")
    held_out_scenes: int = Field(500, gt=0, description="test scenes that the result is measured on")


def random_scene(rng: random.Random, config: ReaderConfig) -> Scene:
    """A scene with a word, or any other."""
    if rng.random() < config.wordless:
        return draw_edit(rng).target if rng.random() < 0.3 else draw_sample(rng).scene
    scene = draw_sample(rng, "train", ["words"]).scene
    return misspelt(rng, scene) if rng.random() < config.misspelt else scene


class WordMaker:
    """Batches of one picture size: {"pixels": uint8 [n, 3, H, W], "letters", "lengths": the reader's targets}."""

    def __init__(self, config: ReaderConfig) -> None:
        self.config = config

    def __call__(self, rng: random.Random, sprites: Sprites) -> Iterator[Batch]:
        reader = Reader()
        scenes = iter(lambda: random_scene(rng, self.config), None)
        for some in by_size(scenes, lambda scene: scene, self.config.batch_size):
            letters, lengths = reader.targets([word_of(scene) for scene in some])
            yield {"pixels": draw_stacked(some, sprites), "letters": letters, "lengths": lengths}


def train_reader(config: ReaderConfig) -> dict[str, dict[str, float]]:
    """Runs the stage; writes `output_dir/reader` with its measures, and returns those."""
    torch.manual_seed(config.loop.seed)
    reader = Reader()

    def loss_of(pixels: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return reader.loss(reader(pixels), batch["letters"], batch["lengths"]), {}

    metrics = train_seeing(config, reader, WordMaker(config), loss_of)
    folder = config.output_dir / "reader"
    reader.save_pretrained(folder)
    scenes = held_out_words(config.held_out_scenes)
    found = {
        kind: measure([text for one in pictures for text in reader.read(one)], scenes)
        for kind, pictures in held_out_pictures(config, scenes).items()
    }
    write_measures(config, folder, metrics, found)
    return found


def held_out_words(count: int, seed: int = 0) -> list[Scene]:
    """Scenes of held-out prompts: of five, two with a word, two with a word spelt wrongly, one without a word."""
    rng = random.Random(f"reader/{seed}")
    scenes = []
    for number in range(count):
        if number % 5 == 4:
            scenes.append(draw_sample(rng, "test", ["single", "two", "counting"]).scene)
            continue
        scene = draw_sample(rng, "test", ["words"]).scene
        scenes.append(misspelt(rng, scene) if number % 2 else scene)
    return scenes


def measure(texts: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """Shares in [0, 1]: `exact` of words read to the letter, `letters` right (1 − distance/length), `none` of pictures
    without a word in which none is read."""
    asked = [word_of(scene) for scene in scenes]
    words = [(text, word) for text, word in zip(texts, asked, strict=True) if word]
    blank = [text for text, word in zip(texts, asked, strict=True) if not word]
    wrong = sum(levenshtein(text, word) for text, word in words)
    length = sum(len(word) for _, word in words)
    return {
        "exact": sum(text == word for text, word in words) / max(1, len(words)),
        "letters": 1 - wrong / max(1, length),
        "none": sum(not text for text in blank) / max(1, len(blank)),
        "pictures": len(scenes),
    }
