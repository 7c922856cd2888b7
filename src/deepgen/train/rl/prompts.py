"""Prompts to roll out: files, data sets and the picture world, in an order that is a function of the position alone."""

import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, model_validator

from deepgen.config import Config, load_config, parse_yaml
from deepgen.data.config import FolderSet, ListSet, ParquetSet, TarSet
from deepgen.data.order import Interleave, ShuffledOrder, hash_of
from deepgen.data.pictures import FilePicture, ScenePicture, StoredPicture
from deepgen.data.sources import Source, open_set
from deepgen.data.sources.parquet import open_parquet
from deepgen.errors import ConfigError, DataError
from deepgen.pipeline.sizes import Size
from deepgen.rewards.protocol import WeightedReward
from deepgen.world.edits import EditSample
from deepgen.world.sampling import draw_edit, draw_sample, kinds_of
from deepgen.world.sprites import Sprites
from deepgen.world.testset import row_of

log = logging.getLogger("deepgen.train")

CONTAMINATED = ("corebench",)
"""Parts of names of prompt sets that come from a benchmark: the published mixture trains on T2I-CoReBench's style."""
TEXT_KEYS = ("prompt", "caption", "instruction")


@dataclass(frozen=True)
class Prompt:
    """What is drawn, and what rewards are told about it.

    Attributes:
        key: path or id, for messages.
        text: prompt or instruction.
        family: name of its set; decides its rewards and their weights.
        references: the pictures of an edit.
        target: the right result of an edit, where it is known.
        metadata: for rewards; "world" holds the scene that a prompt of the world asks for.
        size: (width, height) of what is asked for; None leaves it to the run.
    """

    key: str
    text: str
    family: str
    references: tuple[StoredPicture, ...] = ()
    target: StoredPicture | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    size: Size | None = None


class _Set(Config):
    name: str = Field(min_length=1, description="the family of its prompts")
    weight: float | None = Field(None, gt=0, description="share of the draws; null: the number of prompts")


class PromptFile(_Set):
    """Prompts in a .txt (one a line), .jsonl, .json or .yaml file (texts, or mappings), or a .parquet table.

    Rows hold the text as `prompt`, `caption` or `instruction`; for edits `references`, a path or several, and `target`
    where it is known; all other values are handed to rewards. Paths are relative to the file.
    """

    format: Literal["prompts"]
    path: Path


class WorldPrompts(_Set):
    """The picture world's training split, drawn on the fly, each with the scene that is asked for.

    `kinds` are some of its categories or edits; `size` keeps only scenes of that (width, height).
    """

    format: Literal["world"]
    task: Literal["t2i", "edit"] = "t2i"
    sprites: Path | None = None
    kinds: list[str] = Field([])
    size: tuple[int, int] | None = None
    length: int = Field(10_000_000, gt=0)

    @model_validator(mode="after")
    def _known_kinds(self) -> "WorldPrompts":
        known = kinds_of(self.task, "train")
        unknown = [kind for kind in self.kinds if kind not in known]
        if unknown:
            raise ValueError(
                f"set {self.name!r} has kinds {unknown[0]!r}; of {self.task} there are {', '.join(known)}"
            )
        return self


AnyPrompts = Annotated[
    PromptFile | WorldPrompts | ListSet | FolderSet | TarSet | ParquetSet, Field(discriminator="format")
]


class PromptsConfig(Config):
    """The prompts of a run: sets of ours, or a published mixture's YAML file.

    Attributes:
        sets: prompt files, the world, or any data set of training: its captions or its edits, with targets.
        published: `datasets: [{name, path, sample_weight, rewards: [{NAME: weight}]}]` and `sampling_mode`
            (sample_proportional: a set's weight counts for each of its prompts; weight_only: for the set). Its reward
            names must be names of the run's `rewards`, whose weights it sets.
        allow_contaminated: use sets that come from a benchmark too; scores on that benchmark then mean little.
        seed: of the order.
    """

    sets: list[AnyPrompts] = Field([])
    published: Path | None = None
    allow_contaminated: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _one_kind(self) -> "PromptsConfig":
        if bool(self.sets) == (self.published is not None):
            raise ValueError("give either sets or published")
        names = [one.name for one in self.sets]
        if len(set(names)) < len(names):
            raise ValueError("two sets have the same name")
        return self


class _PromptSource(Protocol):
    def __len__(self) -> int: ...

    def prompt(self, index: int) -> Prompt: ...


class FilePrompts:
    """See `PromptFile`."""

    def __init__(self, path: Path, family: str) -> None:
        """Raises DataError where the file cannot be read or holds no prompts."""
        self.path, self.family = path, family
        self.rows = read_rows(path)
        if not self.rows:
            raise DataError(f"{path}: no prompts in it")

    def __len__(self) -> int:
        return len(self.rows)

    def prompt(self, index: int) -> Prompt:
        key = f"{self.path} #{index + 1}"
        row = self.rows[index]
        if isinstance(row, str):
            return Prompt(key, row, self.family)
        if not isinstance(row, Mapping):
            raise DataError(f"{key}: must be a text or a mapping, not {type(row).__name__}")
        found = [row[name] for name in TEXT_KEYS if row.get(name)]
        if not found or not isinstance(found[0], str):
            raise DataError(f"{key}: no text under any of {', '.join(TEXT_KEYS)}")
        references = row.get("references") or []
        paths = [references] if isinstance(references, str) else references
        target = row.get("target")
        return Prompt(
            key,
            found[0],
            self.family,
            tuple(FilePicture(self.path.parent / one) for one in paths),
            FilePicture(self.path.parent / target) if target else None,
            {k: v for k, v in row.items() if k not in (*TEXT_KEYS, "references", "target")},
        )


def read_rows(path: Path) -> list[Any]:
    """The rows of a prompt file, texts or mappings. Raises DataError."""
    if path.suffix == ".parquet":
        return open_parquet(path).read().to_pylist()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    # Not splitlines(): prompts may hold U+2028 and others that it takes for ends of lines.
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if path.suffix in (".yaml", ".yml"):
        rows = parse_yaml(text, str(path))
    elif path.suffix in (".json", ".jsonl"):
        try:
            rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in lines]
        except ValueError as error:
            raise DataError(f"{path}: not JSON ({error})") from error
    else:
        rows = lines
    if not isinstance(rows, list):
        raise DataError(f"{path}: must hold a list of prompts")
    return rows


class WorldPromptSource:
    """See `WorldPrompts`."""

    def __init__(self, config: WorldPrompts) -> None:
        self.config = config
        self.sprites = Sprites.load(config.sprites) if config.sprites else Sprites.procedural()

    def __len__(self) -> int:
        return self.config.length

    def prompt(self, index: int) -> Prompt:
        config = self.config
        key = f"{config.name}/{index}"
        rng = random.Random(f"rl/{key}")
        while True:
            if config.task == "edit":
                sample: Any = draw_edit(rng, "train", config.kinds or None)
                shown = sample.target
            else:
                sample = draw_sample(rng, "train", config.kinds or None)
                shown = sample.scene
            if config.size in (None, (shown.width, shown.height)):
                break
        metadata = {"world": row_of(sample)}
        if not isinstance(sample, EditSample):
            size = shown.width, shown.height
            return Prompt(key, sample.prompt, config.name, metadata=metadata, size=size)
        pictures = tuple(
            ScenePicture(scene, self.sprites, f"{key}/{n}") for n, scene in enumerate(sample.pictures)
        )
        target = ScenePicture(sample.target, self.sprites, key)
        return Prompt(key, sample.instruction, config.name, pictures, target, metadata)


class DataPrompts:
    """The captions or edits of a data set."""

    def __init__(self, source: Source, config: ListSet | FolderSet | TarSet | ParquetSet) -> None:
        self.source, self.config = source, config

    def __len__(self) -> int:
        return len(self.source)

    def prompt(self, index: int) -> Prompt:
        record = self.source.record(index)
        target = record.target if record.references else None
        return Prompt(record.key, record.prompt, self.config.name, record.references, target)


class Prompts:
    """All prompts of a run.

    Position p belongs to one set, by the sets' weights evenly spread, and to the next prompt of a permutation of that
    set, which is shuffled anew each time round. So nothing has to be kept to go on.

    Attributes:
        families: names of the sets in use.
        weights: of each reward in each family, where the configuration of the prompts sets them.
    """

    def __init__(self, config: PromptsConfig) -> None:
        """Raises DataError, ConfigError."""
        self.weights: dict[str, dict[str, float]] | None = None
        shares: dict[str, float | None] = {}
        sources: dict[str, _PromptSource] = {}
        if config.published is not None:
            self._read_published(config.published, config.allow_contaminated, sources, shares)
        for one in config.sets:
            path = getattr(one, "path", "")
            if _usable(one.name, str(path), config.allow_contaminated):
                sources[one.name], shares[one.name] = _open(one), one.weight
        if not sources:
            raise ConfigError("prompts: no set is left that may be used")
        self.families = list(sources)
        self._sources = list(sources.values())
        self._turns = Interleave([shares[name] or float(len(source)) for name, source in sources.items()])
        self._orders = [
            ShuffledOrder((len(source),), hash_of(config.seed, "prompts", name))
            for name, source in sources.items()
        ]

    def _read_published(
        self,
        path: Path,
        allowed: bool,
        sources: dict[str, _PromptSource],
        shares: dict[str, float | None],
    ) -> None:
        mixture = read_published(path)
        self.weights = {}
        for one in mixture.datasets:
            if not _usable(one.name, one.path, allowed):
                continue
            source = FilePrompts(path.parent / one.path, one.name)
            sources[one.name] = source
            each = mixture.sampling_mode == "sample_proportional"
            shares[one.name] = one.sample_weight * (len(source) if each else 1)
            for rewards in one.rewards:
                for name, weight in rewards.items():
                    self.weights.setdefault(name, {})[one.name] = weight

    def at(self, position: int) -> Prompt:
        """The prompt at a position of the endless order. Raises DataError where it is malformed."""
        number, own = self._turns.at(position)
        return self._sources[number].prompt(self._orders[number].at(own))


def _open(config: AnyPrompts) -> _PromptSource:
    if isinstance(config, PromptFile):
        return FilePrompts(config.path, config.name)
    if isinstance(config, WorldPrompts):
        return WorldPromptSource(config)
    return DataPrompts(open_set(config), config)


def _usable(name: str, path: str, allowed: bool) -> bool:
    found = any(part in f"{name} {Path(path).name}".lower() for part in CONTAMINATED)
    if found and not allowed:
        log.warning(
            "prompts %s left out: they come from a benchmark (prompts.allow_contaminated=true uses them)",
            name,
        )
    return allowed or not found


class PublishedSet(Config):
    """One entry of a published mixture."""

    name: str
    path: str
    sample_weight: float = Field(1.0, gt=0)
    rewards: list[dict[str, float]]


class PublishedMixture(Config):
    """A published mixture's file."""

    sampling_mode: Literal["sample_proportional", "weight_only"] = "sample_proportional"
    datasets: list[PublishedSet] = Field(min_length=1)


def read_published(path: Path) -> PublishedMixture:
    """Raises ConfigError, naming the wrong key."""
    return load_config(PublishedMixture, path)


def weigh(rewards: Sequence[WeightedReward], prompts: Prompts) -> list[WeightedReward]:
    """The rewards with the weights that the prompts' mixture sets, where it does.

    Raises:
        ConfigError: the mixture names a reward that the run lacks, a reward names a family that no set has, or a family
            has no reward.
    """
    known = {one.name for one in rewards}
    weighed = list(rewards)
    if prompts.weights is not None:
        missing = sorted(set(prompts.weights) - known)
        if missing:
            raise ConfigError(
                f"prompts.published weighs reward {missing[0]!r}, but rewards has none of that name; it has "
                f"{', '.join(sorted(known))}"
            )
        weighed = [replace(one, families=prompts.weights.get(one.name, {})) for one in rewards]
    for one in weighed:
        unknown = sorted(set(one.families or {}) - set(prompts.families))
        if unknown:
            raise ConfigError(
                f"rewards: {one.name} weighs family {unknown[0]!r}; the prompt sets are {', '.join(prompts.families)}"
            )
    for family in prompts.families:
        if not any(one.weight_for(family) for one in weighed):
            raise ConfigError(f"rewards: none has a weight for family {family!r}: it would teach nothing")
    return weighed
