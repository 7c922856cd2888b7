"""What a run is told about its data."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from deepgen.config import Config
from deepgen.pipeline.sizes import MAX_ASPECT, Size

Task = Literal["t2i", "edit"]


class Fields(Config):
    """Which field of a row holds what; dots reach into nested fields (`meta.caption`).

    `references` may name several fields, each a path or a list of paths. With `prompt_file`, that field names a JSON
    file, and `prompt` is looked up in there. In tar shards the fields are the members' extensions: `prompt: txt`, or
    `prompt: json.caption`; several that a shard may use are separated by |.
    """

    prompt: str = "prompt"
    target: str = "target"
    references: list[str] = Field(default=["references"])
    prompt_file: str | None = None


LAYOUTS = {
    "deepgen": Fields(),
    "published_t2i": Fields(prompt="txt", target="image_path", references=[]),
    "published_captions": Fields(
        prompt="re_caption", prompt_file="annotation", target="image", references=[]
    ),
    "published_edit": Fields(prompt="instruction", target="output_image", references=["input_image"]),
}
"""Lists of samples whose layout is known. `published_captions` reads the recaption: in the documented files the
key that the published code asks for, `caption`, is the raw text or absent."""

Layout = Literal["deepgen", "published_t2i", "published_captions", "published_edit"]


class SetConfig(Config):
    """What every set has.

    Attributes:
        name: in messages, metrics and reports.
        weight: of the set among those of its task; null: its number of samples, so that all are seen equally often.
        min_side: targets with a shorter side, in pixels, are left out; another sample comes in their place.
        max_aspect: so are those whose longer side is more than this many times the shorter; null: none, and then what
            is longer than 8:1, which the model does not take, is broken.
    """

    name: str = Field(min_length=1)
    task: Task
    weight: float | None = Field(None, gt=0)
    min_side: int = Field(1, gt=0)
    max_aspect: float | None = Field(None, ge=1, le=MAX_ASPECT)

    @property
    def takes_all(self) -> bool:
        """Whether no size is left out, so that none need be known."""
        return self.min_side == 1 and self.max_aspect is None

    def takes(self, size: Size) -> bool:
        """Whether targets of this (width, height) belong to the set."""
        short, long = sorted(size)
        return short >= self.min_side and (self.max_aspect is None or long <= self.max_aspect * short)


class ListSet(SetConfig):
    """A .json or .jsonl list of samples with paths (or a folder of .json lists).

    `root` is the pictures' folder and `prompt_root` that of the caption files; null: the list's folder, and `root`.
    """

    format: Literal["list"]
    path: Path
    layout: Layout = "deepgen"
    fields: Fields | None = Field(None, description="instead of the layout's")
    root: Path | None = None
    prompt_root: Path | None = None


class FolderSet(SetConfig):
    """Pictures with a caption in a text file of the same name beside each, in any depth of folders."""

    format: Literal["folder"]
    path: Path
    task: Task = "t2i"


class TarSet(SetConfig):
    """webdataset shards, read in place and never unpacked; `path` may hold {000..099} or wildcards."""

    format: Literal["webdataset"]
    path: str
    fields: Fields = Fields(prompt="txt", target="jpg|jpeg|png|webp", references=[])


class ParquetSet(SetConfig):
    """Parquet files with pictures inside (bytes, or the {bytes, path} of Hugging Face) or their paths."""

    format: Literal["parquet"]
    path: str
    fields: Fields
    root: Path | None = None


class WorldSet(SetConfig):
    """The picture world, drawn on the fly; `length` samples make one round. Only its training split."""

    format: Literal["world"]
    sprites: Path | None = Field(None, description="of `deepgen world fetch`; null: procedural shapes")
    kinds: list[str] = Field([], description="some of the world's categories or edits; empty: all")
    length: int = Field(10_000_000, gt=0)
    split: Literal["train", "test"] = "train"


AnySet = Annotated[
    ListSet | FolderSet | TarSet | ParquetSet | WorldSet,
    Field(discriminator="format"),
]


class DataConfig(Config):
    """The mixture.

    Attributes:
        ratio: micro-batches (samples, with `mixing: mixed`) of each task in a cycle, in this order. Published: edit 1
            to t2i 3 in alignment, 1 to 2 in fine-tuning.
        mixing: single_task (published): a micro-batch holds one task; mixed: all in the ratio.
        consecutive: micro-batches of one task in a row. A multiple of the number of processes keeps all of them
            on the same task in every step, as published; the order itself never depends on that number.
        area: pixels of a target, about.
        resize: how pictures reach their sizes (see pipeline.sizes). area is published.
        buckets: gather samples of one size in a micro-batch, within `bucket_window` micro-batches of a task.
        dropout: share of a task's prompts replaced by "", for guidance.
        broken_budget: share of the drawn samples (of at least 10,000) that may be broken before the run stops;
            what a set leaves out by size is not broken.
        index_dir: where `deepgen data check` keeps what it found out about large sets; null: found out at each start.
    """

    seed: int = 0
    sets: list[AnySet] = Field(min_length=1)
    ratio: dict[Task, Annotated[int, Field(gt=0)]] = Field(min_length=1)
    mixing: Literal["single_task", "mixed"] = "single_task"
    consecutive: int = Field(1, gt=0)
    area: int = Field(512 * 512, ge=32 * 32)
    resize: Literal["area", "aspect", "square"] = "area"
    buckets: bool = False
    bucket_window: int = Field(64, gt=0)
    dropout: dict[Task, Annotated[float, Field(ge=0, le=1)]] = Field(default={"t2i": 0.1})
    broken_budget: float = Field(0.001, ge=0, le=1)
    index_dir: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        names = [one.name for one in self.sets]
        if len(set(names)) < len(names):
            raise ValueError("two sets have the same name")
        tasks = {one.task for one in self.sets}
        if tasks != set(self.ratio):
            raise ValueError(f"ratio is of {sorted(self.ratio)}, the sets are of {sorted(tasks)}")
        return self
