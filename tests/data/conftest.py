"""Sets of a few pictures; the helpers of `data_files.py` can be imported by these tests."""

import importlib.util
import sys
from pathlib import Path

import pytest

# pytest's importlib mode adds no folder to the path.
spec = importlib.util.spec_from_file_location("data_files", Path(__file__).with_name("data_files.py"))
sys.modules["data_files"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["data_files"])
from data_files import COLOURS, picture, set_of, write_json  # noqa: E402


@pytest.fixture
def t2i_list(tmp_path: Path) -> Path:
    """Six pictures, in the published layout for text→image."""
    rows = [
        {"image_path": picture(tmp_path / "t2i", f"{c}.png", c), "txt": f"a {c} field", "type": "x"}
        for c in COLOURS
    ]
    return write_json(tmp_path / "t2i" / "list.json", rows)


@pytest.fixture
def edit_list(tmp_path: Path) -> Path:
    """Three edits in the published layout; the last has two references."""
    folder = tmp_path / "edit"
    for colour in COLOURS:
        picture(folder, f"{colour}.png", colour, (64, 64))
    rows = [
        {"input_image": ["red.png"], "output_image": "green.png", "instruction": "make it green"},
        {"input_image": ["blue.png"], "output_image": "yellow.png", "instruction": "make it yellow"},
        {"input_image": ["red.png", "blue.png"], "output_image": "purple.png", "instruction": "mix them"},
    ]
    return write_json(folder / "list.json", rows)


@pytest.fixture
def two_tasks(t2i_list: Path, edit_list: Path) -> list[dict]:
    return [set_of(t2i_list), set_of(edit_list, "published_edit", "edit", "two")]
