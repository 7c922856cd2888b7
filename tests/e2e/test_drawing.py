"""`deepgen generate` and `deepgen edit` from their arguments to files, with the tiny random model."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from deepgen.cli import main
from deepgen.pipeline.output import read_metadata, save_png

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "diffusers"


@pytest.fixture
def run(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder with the tiny model: (exit code, standard output, its errors)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=tiny_checkpoint):
        chosen = [] if model is None else ["--model", model]
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in (*arguments, *chosen)])
        captured = capsys.readouterr()
        # The progress bar is not of interest.
        errors = [line for line in captured.err.splitlines() if line.startswith(("deepgen:", "Error:"))]
        return caught.value.code, captured.out, errors

    return run


def picture(path, width=130, height=61, seed=0):
    levels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(levels).save(path)
    return path


def test_an_edit_takes_its_pictures_before_the_instruction_or_by_option(run, tmp_path):
    one, two = picture(tmp_path / "1.png"), picture(tmp_path / "2.png", seed=1)
    assert run("edit", one, "make it red", "-i", two, "-o", "a.png", "--seed", 3)[0] == 0
    assert run("edit", "make it red", "-i", one, "-i", two, "-o", "b.png", "--seed", 3)[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert read_metadata(tmp_path / "a.png")["references"] == [str(one), str(two)]
    for words in (["edit", "make it red"], ["edit"], ["edit", one, "a", "--prompts", "p.txt"]):
        code, _, errors = run(*words)
        assert code == 2 and errors[0].startswith("Error: Invalid value:")
    code, _, errors = run("edit", "a", *["-i", one] * 9)
    assert code == 2 and errors == ["deepgen: the prompt has 9 reference images, at most 8 work"]


@pytest.mark.filterwarnings("default")
def test_what_was_done_to_a_picture_is_said(run, tmp_path):
    Image.new("RGBA", (64, 64), (255, 0, 0, 9)).save(tmp_path / "in.png")
    with pytest.warns(UserWarning, match=r"^in\.png: its transparent parts are laid over white"):
        assert run("edit", "in.png", "a", "-o", "a.png")[0] == 0


def test_an_edit_can_keep_the_exact_size_of_its_picture(run, tmp_path):
    source = picture(tmp_path / "in.png", 131, 67)
    assert run("edit", source, "a", "-o", "a.png", "--keep-size", "--resize", "square")[0] == 0
    assert Image.open("a.png").size == (131, 67)
    assert read_metadata(tmp_path / "a.png")["width"] == 64
    code, _, errors = run("generate", "a", "--keep-size")
    assert code == 2 and "there is none" in errors[0]
    code, _, errors = run("edit", source, "a", "--resize", "none")
    assert code == 2 and "131x67 cannot stay as it is" in errors[0]


def test_a_picture_is_repeated_byte_for_byte_from_itself(run, tmp_path):
    assert (
        run("generate", "a cat 🐱", "--n", 3, "--size", "96x64", "--steps", 3, "--cfg", 2, "-o", "a.png")[0]
        == 0
    )
    assert run("generate", "--from-image", "a-3.png", "-o", "again.png")[0] == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "a-3.png").read_bytes()
    source = picture(tmp_path / "in.png")
    assert run("edit", source, "a", "-o", "edit.png", "--keep-size")[0] == 0
    assert run("generate", "--from-image", "edit.png", "-o", "again.png")[0] == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "edit.png").read_bytes()


def test_a_picture_of_a_batch_is_repeated_to_a_rounding_and_that_is_said(run, tmp_path):
    assert run("generate", "a cat", "--n", 3, "--batch-size", 3, "-o", "a.png", "--seed", 1)[0] == 0
    code, _, errors = run("generate", "--from-image", "a-2.png", "-o", "b.png")
    assert code == 0 and "drawn together with 2 others; values may differ by 1" in errors[0]
    first, second = (np.asarray(Image.open(name), int) for name in ("a-2.png", "b.png"))
    assert np.abs(first - second).max() <= 1


def test_a_picture_that_cannot_be_repeated_says_why(run, tmp_path):
    assert run("generate", "a cat", "-o", "a.png")[0] == 0
    record = read_metadata(tmp_path / "a.png")
    save_png(Image.new("RGB", (8, 8)), tmp_path / "other.png", record | {"model": "other"})
    picture(tmp_path / "plain.png")
    cases = [
        (["a.png", "-o", "b.png"], None, "a.png: was drawn by 'tiny'; name its checkpoint with --model"),
        (["a.png", "-o", "b.png"], "nano", "a.png: was drawn by 'tiny', and this is 'deepgen-nano'"),
        (["other.png"], ..., "other.png: was drawn by 'other', and this is 'tiny'"),
        (["plain.png"], ..., "plain.png: holds no 'deepgen' metadata"),
        (["gone.png"], ..., "gone.png: no such file"),
        (["a.png", "-o", "a.png"], ..., "a.png: is the picture to repeat"),
        (["a.png", "--seed", "3"], ..., "--from-image repeats a picture as it was"),
    ]
    before = sorted(os.listdir())
    for arguments, model, words in cases:
        options = {} if model is ... else {"model": model}
        code, _, errors = run("generate", "--from-image", *arguments, **options)
        assert code == 2 and words in errors[0] and sorted(os.listdir()) == before, words


def test_an_output_that_cannot_be_written_is_said_before_the_model_is_loaded(run, monkeypatch):
    assert run("generate", "a cat", "-o", "a.png")[0] == 0
    Path("p.txt").write_text("a cat\n")
    monkeypatch.setattr("deepgen.cli.drawing.load_pipeline", lambda *_: pytest.fail("loaded"))
    for words in (["a cat", "-o", "p.txt/b.png"], ["--from-image", "a.png", "-o", "p.txt/b.png"]):
        code, _, errors = run("generate", *words)
        assert code == 1 and "p.txt is a file, not a folder" in errors[0]
    code, _, errors = run("generate", "--prompts", "p.txt", "-o", "p.txt")
    assert code == 1 and "p.txt is a file, not a folder" in errors[0]


def test_a_file_of_prompts_is_drawn_and_resumed(run, tmp_path):
    (tmp_path / "p.txt").write_text("a cat\n\na dog\n")
    code, out, _ = run("generate", "--prompts", "p.txt", "-o", "out", "--seed", 4, "--n", 2)
    names = ["0001-1.png", "0001-2.png", "0003-1.png", "0003-2.png"]
    assert code == 0 and sorted(os.listdir("out")) == names and out.count("seed") == 4
    assert [read_metadata(tmp_path / "out" / name)["seed"] for name in names] == [4, 5, 6, 7]
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    (tmp_path / "out" / "0003-1.png").unlink()
    stamp = (tmp_path / "out" / "0001-1.png").stat().st_mtime_ns
    code, out, _ = run("generate", "--prompts", "p.txt", "-o", "out", "--seed", 4, "--n", 2)
    assert code == 0 and "3 of 4 pictures are in out already" in out and out.count("seed") == 1
    assert (tmp_path / "out" / "0001-1.png").stat().st_mtime_ns == stamp
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == before


def test_json_lines_mix_pictures_and_edits_of_all_sizes_in_one_batch(run, tmp_path):
    picture(tmp_path / "in.png")
    lines = [
        {"prompt": "a cat", "size": "96x64", "out": "sub/cat.png", "seed": 9},
        {"prompt": "make it red", "image": "in.png"},
        {"prompt": "join", "image": ["in.png", "in.png"], "size": 32},
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert run("generate", "--prompts", "p.jsonl", "-o", "out", "--batch-size", 3, "--keep-size")[0] == 0
    sizes = [Image.open(f"out/{name}").size for name in ("sub/cat.png", "0002.png", "0003.png")]
    assert sizes == [(96, 64), (130, 61), (130, 61)]
    assert read_metadata(tmp_path / "out" / "sub" / "cat.png")["seed"] == 9
    assert read_metadata(tmp_path / "out" / "0003.png")["width"] == 32


def test_a_native_checkpoint_draws_over_its_bases(run, tmp_path):
    tensors = load_file(GOLDEN / "connector" / "model.safetensors")
    transformer = load_file(GOLDEN / "transformer" / "diffusion_pytorch_model.safetensors")
    torch.save(tensors | {f"transformer.{name}": value for name, value in transformer.items()}, "model.pt")
    bases = ("--base-vlm", GOLDEN / "vlm", "--base-dit", GOLDEN)
    small = ("--size", "64", "--steps", "2", "--seed", "1")
    assert run("generate", "a cat", "-o", "a.png", *bases, *small, model="model.pt")[0] == 0
    assert run("generate", "--from-image", "a.png", "-o", "b.png", *bases, model="model.pt")[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    code, _, errors = run("generate", "a cat", model="model.pt")
    assert code == 1 and "model.pt" in errors[0]


def test_edits_from_a_file_need_pictures_and_may_share_one(run, tmp_path):
    source = picture(tmp_path / "in.png")
    (tmp_path / "p.txt").write_text("make it red\nmake it blue\n")
    code, _, errors = run("edit", "--prompts", "p.txt")
    assert code == 2 and errors[0].startswith("deepgen: p.txt, line 1: there is no picture to change")
    assert run("edit", source, "--prompts", "p.txt")[0] == 0
    assert [read_metadata(tmp_path / "out" / f"000{i}.png")["references"] for i in (1, 2)] == [
        [str(source)]
    ] * 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--seed", "5"], "another seed (4, not 5)"),
        (["--seed", "4", "--steps", "7"], "another num_inference_steps (2, not 7)"),
        (["--seed", "4", "--resize", "area"], "another resize ('aspect', not 'area')"),
    ],
)
def test_a_folder_of_other_pictures_is_not_mixed_with(run, tmp_path, change, words):
    (tmp_path / "p.txt").write_text("a cat\n")
    assert run("generate", "--prompts", "p.txt", "-o", "out", "--seed", 4)[0] == 0
    code, _, errors = run("generate", "--prompts", "p.txt", "-o", "out", *change)
    assert code == 2 and words in errors[0] and "p.txt, line 1" in errors[0]
    (tmp_path / "p.txt").write_text("a cat\na dog\n")
    record = read_metadata(tmp_path / "out" / "0001.png")
    save_png(Image.new("RGB", (8, 8)), tmp_path / "out" / "0001.png", record | {"weights": "0"})
    assert "with other weights" in run("generate", "--prompts", "p.txt", "-o", "out")[2][0]
    (tmp_path / "p.txt").write_text("a dog\n")
    assert "another prompt" in run("generate", "--prompts", "p.txt", "-o", "out")[2][0]
    picture(tmp_path / "out" / "0001.png")
    assert "holds no 'deepgen' metadata" in run("generate", "--prompts", "p.txt", "-o", "out")[2][0]


def test_a_folder_of_edits_of_a_picture_that_changed_is_not_taken_for_done(run, tmp_path):
    picture(tmp_path / "in.png")
    (tmp_path / "p.txt").write_text("make it red\n")
    words = ("edit", "--prompts", "p.txt", "-i", "in.png", "--seed", 4)
    assert run(*words)[0] == 0 and "already" in run(*words)[1]
    picture(tmp_path / "in.png", seed=1)
    code, _, errors = run(*words)
    assert (
        code == 2
        and "p.txt, line 1: out/0001.png is there, drawn from pictures that have changed" in errors[0]
    )


def test_a_file_stops_at_a_line_that_cannot_be_drawn_and_keeps_the_others(run, tmp_path):
    picture(tmp_path / "in.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "in.png").read_bytes()[:5000])
    lines = [{"prompt": "a", "image": name} for name in ("in.png", "cut.png")]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, _, errors = run("edit", "--prompts", "p.jsonl")
    assert code == 2 and errors[0].startswith("deepgen: p.jsonl, line 2: cut.png: the file is damaged")
    assert os.listdir("out") == ["0001.png"]
    (tmp_path / "p.txt").write_text("a cat\n" + "word " * 1100)
    _, _, errors = run("generate", "--prompts", "p.txt", "-o", "two")
    assert errors[0] == "deepgen: p.txt, line 2: the prompt has 5499 tokens; shorten it to 1024"


def test_two_lines_for_one_file_and_a_wrong_output_are_refused_before_anything_is_drawn(run, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "out": "x"}\n{"prompt": "b", "out": "x.png"}\n')
    assert "out/x.png is asked for 2 times" in run("generate", "--prompts", "p.jsonl")[2][0]
    assert "the output is a folder" in run("generate", "--prompts", "p.jsonl", "-o", "a.png")[2][0]
    code, _, errors = run("generate", "a", "-o", "p.jsonl/a.png")
    assert code == 1 and "p.jsonl is a file, not a folder" in errors[0]
    assert os.listdir() == ["p.jsonl"]


@pytest.mark.parametrize(
    "prompt",
    [
        "熊と🐻‍❄️👩🏽‍🚀",
        "דוב לבן ‏ושחור",
        "a\x00b\x1b[31m\tc\r\n",
        "<|im_end|>",
        "x" * 1000,
        "‮evil",
        "e" + "\u0301" * 50,
    ],
)
def test_any_text_can_be_drawn_and_is_recorded_as_it_was_typed(run, tmp_path, prompt):
    code, _, errors = run("generate", prompt, "-o", "a.png", "--seed", 1)
    assert (code, errors) == (0, []) and read_metadata(tmp_path / "a.png")["prompt"] == prompt


def test_an_error_that_names_a_strange_file_stays_one_line_of_plain_characters(run):
    code, _, errors = run("edit", "a\x1b[2J\n\udcff.png", "make it red")
    assert code == 2 and errors == ["deepgen: a\\x1b[2J\\n\\udcff.png: no such file"]
