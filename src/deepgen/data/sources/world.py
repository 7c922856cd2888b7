"""The picture world as a source: sample i is drawn from its own random stream."""

import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from deepgen.data.config import WorldSet
from deepgen.data.pictures import ScenePicture
from deepgen.data.sources.base import Record
from deepgen.world.sampling import draw_edit, draw_sample
from deepgen.world.sprites import Sprites


@lru_cache(maxsize=2)
def _sprites(path: Path | None) -> Sprites:
    return Sprites.load(path) if path is not None else Sprites.procedural()


class WorldSource:
    """Pictures or edits of the world, `length` of them."""

    together = 1

    def __init__(self, config: WorldSet) -> None:
        self.config = config
        self.groups: Sequence[int] = (config.length,)
        _sprites(config.sprites)  # a missing file is an error now, not in a worker

    def __len__(self) -> int:
        return self.config.length

    def identity(self) -> str:
        return f"world {self.config.model_dump_json()}"

    def record(self, index: int) -> Record:
        config, sprites = self.config, _sprites(self.config.sprites)
        rng = random.Random(f"{config.name}/{index}")
        key = f"{config.name}/{index}"
        if config.task == "edit":
            edit = draw_edit(rng, config.split, config.kinds or None)
            sources = [ScenePicture(scene, sprites, f"{key}/{n}") for n, scene in enumerate(edit.pictures)]
            return Record(key, edit.instruction, ScenePicture(edit.target, sprites, key), tuple(sources))
        sample = draw_sample(rng, config.split, config.kinds or None)
        return Record(key, sample.prompt, ScenePicture(sample.scene, sprites, key))
