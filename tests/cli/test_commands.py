"""The command line as a user meets it: real processes, exit codes, one-line messages."""

import functools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from deepgen import __version__
from deepgen.cli import COMMANDS, main
from deepgen.pipeline.output import read_metadata


def command_line(*arguments):
    return [sys.executable, "-c", "from deepgen.cli import main; main()", *map(str, arguments)]


def deepgen(*arguments, **options):
    command = command_line(*arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_the_help_is_quick_and_loads_no_torch():
    code = "import sys; from deepgen.cli import main\ntry: main(['--help'])\n"
    code += "finally: assert 'torch' not in sys.modules"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("generate", "edit", "train", "world", "bench", "verify", "doctor"):
        assert f"  {name} " in done.stdout
    assert "demo" not in done.stdout
    assert time.perf_counter() - started < 3


def test_generate_writes_pictures_that_can_be_drawn_again(tiny_checkpoint, tmp_path):
    folder = tmp_path / "new"
    shared = ("--model", tiny_checkpoint, "--size", "96x64", "--steps", "3", "--cfg", "2.5")
    done = deepgen("generate", "a cat", "-o", folder / "out.png", "--n", "2", "--seed", "5", *shared)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["out-1.png", "out-2.png"]
    assert str(folder / "out-2.png") in done.stdout and "seed 6" in done.stdout
    record = read_metadata(folder / "out-2.png")
    expected = {
        **{"prompt": "a cat", "negative_prompt": "", "seed": 6, "width": 96, "height": 64},
        **{"num_inference_steps": 3, "guidance_scale": 2.5, "model": "tiny", "version": __version__},
    }
    assert expected.items() <= record.items()
    again = deepgen("generate", record["prompt"], "-o", tmp_path / "a.png", "--seed", record["seed"], *shared)
    assert again.returncode == 0, again.stderr
    first, second = (np.asarray(Image.open(p), int) for p in (folder / "out-2.png", tmp_path / "a.png"))
    assert first.shape == (64, 96, 3) and np.abs(first - second).max() <= 1


def test_edit_keeps_the_shape_of_its_picture(tiny_checkpoint, tmp_path):
    for name in ("in", "more"):
        Image.new("RGB", (300, 100), "red").save(tmp_path / f"{name}.png")
    pictures = (tmp_path / "in.png", "make it blue", "-i", tmp_path / "more.png")
    done = deepgen("edit", *pictures, "-o", tmp_path / "out.png", "--model", tiny_checkpoint)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out.png").size == (96, 32)
    record = read_metadata(tmp_path / "out.png")
    assert record["references"] == [str(tmp_path / "in.png"), str(tmp_path / "more.png")]
    assert record["negative_prompt"] == "spoilt"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", " "], "the prompt is empty"),
        (["generate", "a cat", "--size", "250"], "the nearest is 256x256"),
        (["generate", "a cat", "--size", "big"], "320x192"),
        (["generate", "a cat", "-o", "out.gif"], "out.png"),
        (["edit", "notes.txt", "make it red"], "notes.txt: not an image"),
        (["edit", "gone.png", "make it red"], "gone.png: no such file"),
        (["generate", "a cat", "--model", "micro"], "unknown model 'micro'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(tiny_checkpoint, tmp_path, arguments, words):
    (tmp_path / "notes.txt").write_text("not a picture")
    model = [] if "--model" in arguments else ["--model", tiny_checkpoint]
    done = deepgen(*arguments, *model, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.count("\n") == 1 and done.stderr.startswith("deepgen: ")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_checkpoint_is_exit_code_1_and_debug_shows_the_trace(tmp_path):
    (tmp_path / "connector").mkdir()
    (tmp_path / "transformer").mkdir()
    done = deepgen("generate", "a cat", "--model", tmp_path, "--debug", "-o", tmp_path / "out.png")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "CheckpointError" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_interrupt_ends_it_quietly_and_leaves_no_file(tiny_checkpoint, tmp_path):
    settings = ("--model", tiny_checkpoint, "--size", "256", "--steps", "1000")
    command = command_line("generate", "a cat", "-o", tmp_path / "out.png", *settings)
    # A shell's background jobs ignore SIGINT, and so would their children.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=heed) as process:
        assert process.stderr is not None
        assert process.stderr.read(1)  # the progress bar: sampling has begun
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().decode()
    assert process.returncode == 130
    assert "Traceback" not in rest and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", COMMANDS)
def test_every_listed_command_exists_and_explains_itself(path, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*path.split(), "--help"])
    assert caught.value.code == 0
    assert f"Usage: deepgen {path}" in capsys.readouterr().out


def test_unknown_commands_and_options_are_exit_code_2():
    for arguments in (["draw"], ["generate"], ["generate", "a", "--n", "0"], ["world", "nothing"]):
        done = deepgen(*arguments)
        assert done.returncode == 2 and done.stderr.startswith("Usage: deepgen")
    assert deepgen("--version").stdout == f"deepgen {__version__}\n"
