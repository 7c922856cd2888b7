"""What the environment must look like for the libraries to import at all."""

import importlib
import importlib.util
import re
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"


def test_torchvision_is_absent_or_imports():
    # One built for another torch installs silently and then breaks transformers and diffusers on import.
    if importlib.util.find_spec("torchvision"):
        importlib.import_module("torchvision")


def test_the_lock_pins_everything_exactly_and_brings_no_torchvision():
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("torch==")
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert not [line for line in lines if line.startswith("torchvision")]
