"""Shipped weights and written pictures."""

import os

import pytest
from PIL import Image

from deepgen.errors import InputError
from deepgen.pipeline.output import read_metadata, save_png
from deepgen.pipeline.shipped import check_sums, resolve_model, write_sums


def test_metadata_round_trips_through_a_png(tmp_path):
    path = tmp_path / "a.png"
    record = {"prompt": "ein Bär – 熊 🐻", "seed": 2**40, "guidance_scale": 4.0}
    save_png(Image.new("RGB", (8, 8)), path, record)
    assert read_metadata(path) == record
    assert os.listdir(tmp_path) == ["a.png"]
    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(plain)
    with pytest.raises(InputError, match=r"plain\.png: holds no"):
        read_metadata(plain)


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        save_png(Image.new("RGB", (8, 8)), path, {"not json": object()})
    with pytest.raises(OSError):
        save_png(Image.new("HSV", (8, 8)), path, {})
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.png"]


def test_sums_find_what_changed_is_missing_or_new(tmp_path):
    (tmp_path / "nano").mkdir()
    for name in ("a", "b"):
        (tmp_path / "nano" / name).write_text(name)
    write_sums(tmp_path)
    assert check_sums(tmp_path) == []
    (tmp_path / "nano" / "a").write_text("changed")
    (tmp_path / "nano" / "b").unlink()
    (tmp_path / "nano" / "c").write_text("new")
    assert sorted(check_sums(tmp_path)) == [
        "nano/a: changed or damaged",
        "nano/b: missing",
        "nano/c: not listed in SHA256SUMS",
    ]


def test_no_manifest_is_a_problem_and_unknown_models_are_refused(tmp_path):
    assert "missing" in check_sums(tmp_path)[0]
    assert resolve_model(tmp_path) == (tmp_path.name, tmp_path)
    with pytest.raises(InputError, match=r"unknown model 'micro'.*nano"):
        resolve_model("micro")
