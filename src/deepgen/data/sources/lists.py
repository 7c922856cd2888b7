"""Lists of samples with paths, and folders of pictures with caption files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepgen.data.config import LAYOUTS, Fields, FolderSet, ListSet, Task
from deepgen.data.packed import PackedRows
from deepgen.data.pictures import FilePicture
from deepgen.data.sources.base import Record, check_task, lookup, paths_of, reference_fields, text_of
from deepgen.errors import DataError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".gif")


class ListSource:
    """Samples that a list names; see `config.Fields` for what its rows hold."""

    together = 1

    def __init__(self, rows: PackedRows, fields: Fields, roots: tuple[Path, Path], task: Task, name: str):
        """roots: folders of the pictures and of the caption files."""
        self.rows, self.fields, self.task, self.name = rows, fields, task, name
        self.root, self.prompt_root = roots
        self.groups: Sequence[int] = (len(rows),)

    def __len__(self) -> int:
        return len(self.rows)

    def identity(self) -> str:
        return f"list {self.rows.digest()} {self.root.resolve()}"

    def record(self, index: int) -> Record:
        where = f"{self.name}, sample {index}"
        try:
            row = json.loads(self.rows[index])
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: must be a mapping of fields, not {type(row).__name__}")
        targets = paths_of(lookup(row, self.fields.target, where), where, self.fields.target)
        if len(targets) != 1:
            raise DataError(f"{where}: {self.fields.target!r} names {len(targets)} pictures instead of one")
        references = [
            FilePicture(self.root / path)
            for field in reference_fields(self.fields, row)
            for path in paths_of(lookup(row, field, where), where, field)
        ]
        target = FilePicture(self.root / targets[0])
        return check_task(Record(target.name, self._prompt(row, where), target, tuple(references)), self.task)

    def _prompt(self, row: Mapping[str, Any], where: str) -> str:
        if self.fields.prompt_file is not None:
            named = paths_of(lookup(row, self.fields.prompt_file, where), where, self.fields.prompt_file)
            if len(named) != 1:
                raise DataError(f"{where}: {self.fields.prompt_file!r} must name one file")
            path = self.prompt_root / named[0]
            row, where = read_json(path), str(path)
        return text_of(lookup(row, self.fields.prompt, where), where, self.fields.prompt)


class FolderSource:
    """Pictures with a caption file beside each; those without one are no samples (`uncaptioned`, sorted paths)."""

    together = 1

    def __init__(self, paths: PackedRows, uncaptioned: PackedRows, root: Path) -> None:
        """Both of paths relative to the root."""
        self.paths, self.uncaptioned, self.root = paths, uncaptioned, root
        self.groups: Sequence[int] = (len(paths),)

    def __len__(self) -> int:
        return len(self.paths)

    def identity(self) -> str:
        return f"folder {self.paths.digest()} {self.root.resolve()}"

    def record(self, index: int) -> Record:
        path = self.root / self.paths[index]
        caption = path.with_suffix(".txt")
        try:
            text = caption.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{caption}: cannot be read ({error})") from error
        return Record(str(path), text_of(text, str(caption), "the caption"), FilePicture(path))


def read_json(path: Path) -> Any:
    """A JSON file. Raises DataError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error


def read_rows(path: Path) -> Iterator[str]:
    """The samples of a .json list, a .jsonl file or a folder of .json lists, each as JSON text. Raises DataError."""
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise DataError(f"{path}: no .json lists in this folder")
        for file in files:
            yield from read_rows(file)
        return
    try:
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                yield from (line.strip() for line in lines if line.strip())
            return
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a list of samples ({error})") from error
    if not isinstance(loaded, list):
        raise DataError(f"{path}: must be a JSON list of samples, not {type(loaded).__name__}")
    yield from (json.dumps(row) for row in loaded)


def open_list(config: ListSet) -> ListSource:
    """The source of a list. Raises DataError where it has no samples."""
    folder = config.path if config.path.is_dir() else config.path.parent
    root = config.root or folder
    rows = PackedRows(read_rows(config.path))
    if not len(rows):
        raise DataError(f"{config.path}: no samples in it")
    fields = config.fields or LAYOUTS[config.layout]
    return ListSource(rows, fields, (root, config.prompt_root or root), config.task, str(config.path))


def open_folder(config: FolderSet) -> FolderSource:
    """The source of a folder. Raises DataError where no picture has a caption."""
    captioned: list[str] = []
    uncaptioned: list[str] = []
    for path in config.path.rglob("*"):
        if path.suffix.lower() in PICTURES:
            kind = captioned if path.with_suffix(".txt").is_file() else uncaptioned
            kind.append(path.relative_to(config.path).as_posix())
    if not captioned:
        raise DataError(f"{config.path}: no picture with a .txt file of the same name beside it")
    return FolderSource(
        PackedRows(iter(sorted(captioned))), PackedRows(iter(sorted(uncaptioned))), config.path
    )
