"""Shipped weights and written pictures."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deepgen.errors import InputError, OutputError
from deepgen.pipeline.output import check_writable, read_metadata, save_png, to_output
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


def test_a_picture_is_replaced_and_never_written_over(tmp_path):
    path, other = tmp_path / "a.png", tmp_path / "other.png"
    path.write_bytes(b"old")
    os.link(path, other)
    save_png(Image.new("RGB", (8, 8)), path, {})
    assert other.read_bytes() == b"old" and path.read_bytes() != b"old"


def test_a_name_that_is_not_utf8_stays_in_the_record(tmp_path):
    record = {"references": [os.fsdecode(b"caf\xe9.png")]}
    save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", record)
    assert read_metadata(tmp_path / "a.png") == record


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(path, mode):
        return open("/dev/full", "wb") if "x" in mode else pytest.fail("opened otherwise")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match=r"a\.png: cannot be written \(No space left on device\)"):
        save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", {})
    assert os.listdir(tmp_path) == []


def test_a_file_limit_is_said_and_keeps_the_picture_that_was_there(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    code = (
        "import resource; from pathlib import Path; from PIL import Image\n"
        "from deepgen.pipeline.output import save_png\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "save_png(Image.effect_noise((256, 256), 90), Path('a.png'), {})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "OutputError: a.png: cannot be written (File too large)" in done.stderr
    assert os.listdir(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"old"


@pytest.fixture
def no_superuser():
    """Permissions hold for everyone but the superuser, whom tests in containers often run as."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written_to_is_said_before_and_after(tmp_path, no_superuser):
    path = Path("/proc/self/new/a.png") if os.geteuid() == 65534 else tmp_path / "new" / "a.png"
    if path.is_relative_to(tmp_path):
        tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written to; choose another"):
        check_writable(path)
    with pytest.raises(OutputError, match=r"a\.png: cannot be written \("):
        save_png(Image.new("RGB", (8, 8)), path, {})


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        check_writable(tmp_path / "file" / "a.png")
    with pytest.raises(OutputError, match=r"a\.png: cannot be written \("):
        save_png(Image.new("RGB", (8, 8)), tmp_path / "file" / "a.png", {})
    with pytest.raises(OutputError, match="name too long"):
        check_writable(tmp_path / ("x" * 300) / "a.png")
    check_writable(tmp_path / "new" / "deep" / "a.png")
    assert os.listdir(tmp_path) == ["file"]


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    save_png(Image.new("RGB", (8, 8)), path, {})
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "9" * 5000, "\0"])
def test_a_damaged_record_is_said(tmp_path, text):
    info = PngInfo()
    info.add_itxt("deepgen", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(InputError, match=r"a\.png: its 'deepgen' metadata is damaged"):
        read_metadata(tmp_path / "a.png")


def test_levels_are_rounded_in_float32_whatever_the_networks_dtype():
    halves = torch.tensor([-1.5, -1.0, -0.995, 0.0, 0.502, 0.996, 1.0, 1.5], dtype=torch.bfloat16)
    (picture,) = to_output([halves.view(1, 1, 8).expand(3, 1, 8)], "pil")
    exact = ((halves.double() * 0.5 + 0.5).clamp(0, 1) * 255).round()
    assert np.asarray(picture)[0, :, 0].tolist() == exact.tolist()


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
