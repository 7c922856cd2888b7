"""Small real files in every layout."""

import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from deepgen.data.config import DataConfig

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")


def picture(folder: Path, name: str, colour: str, size: tuple[int, int] = (48, 32)) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(folder / name)
    return name


def encoded(colour: str, size: tuple[int, int] = (48, 32), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def set_of(path: Path, layout: str = "published_t2i", task: str = "t2i", name: str = "one") -> dict:
    return {"name": name, "format": "list", "path": str(path), "layout": layout, "task": task}


def config_of(*sets: dict, **settings: object) -> DataConfig:
    tasks = {one.get("task", "t2i") for one in sets}
    defaults = {"ratio": {task: 1 for task in sorted(tasks)}, "area": 32 * 32}
    return DataConfig.model_validate({"sets": list(sets), **defaults, **settings})
