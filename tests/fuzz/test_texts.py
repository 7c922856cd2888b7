"""Prompts, options, files of prompts and records of pictures: whatever they hold, the answer is ours."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deepgen import DeepGenPipeline
from deepgen.cli import main
from deepgen.errors import DeepGenError
from deepgen.pipeline.jobs import read_jobs
from deepgen.pipeline.output import read_metadata
from deepgen.pipeline.repeat import read_repeat

PIECES = [
    *[
        "<|im_end|>",
        "<|image_pad|>",
        "<|vision_start|>",
        "熊",
        "🐻‍❄️",
        "👩🏽‍🚀",
        "דוב",
        "دب",
        "\u202e",
        "\u200f",
        "\ufeff",
    ],
    *[
        "\0",
        "\x1b[31m",
        "\x7f",
        "\r",
        "\n",
        "\t",
        "\u2028",
        "e\u0301",
        "\U0010ffff",
        "\ud800",
        "a cat ",
        "-",
        "--n ",
    ],
]
texts = st.one_of(
    st.text(st.characters()),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.builds(lambda piece, times: piece * times, st.sampled_from(PIECES), st.integers(0, 2000)),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from(["", "nan", "1e400", "0x5", "٣", "--"])).map(
    str
)
options = st.fixed_dictionaries(
    {},
    optional={
        "--seed": numbers,
        "--cfg": numbers,
        "--size": st.sampled_from(["32", "64x32", "33", "0", "-32", "999999999", "64x", "x", "1e3", "８"]),
        "--steps": st.sampled_from(["0", "1", "-1", "1001", "two"]),
        "--n": st.sampled_from(["0", "1", "2", "-1", "x"]),
        "--negative": texts,
        "-o": st.sampled_from(
            ["out.png", "new/out.png", "out.PNG", "out.gif", "", ".", ".png", "x" * 300 + ".png"]
        ),
    },
)


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint):
    pipeline = DeepGenPipeline.from_pretrained(tiny_checkpoint, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def run(tiny, tmp_path, monkeypatch, witness):
    """Run a command in an empty folder: (exit code, standard error). Nothing is written outside the folder."""
    folder = tmp_path / "work"
    monkeypatch.setattr("deepgen.cli.drawing.load_pipeline", lambda model: tiny)

    def run(arguments):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        monkeypatch.chdir(folder)
        errors = io.StringIO()
        silent = contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO())
        with silent[0], silent[1], witness.only_within(folder), pytest.raises(SystemExit) as caught:
            main(arguments)
        return caught.value.code, errors.getvalue()

    return run


def assert_told(code, errors):
    """One line of ours, or the usage."""
    assert code in (1, 2)
    assert errors.startswith("Usage: ") or (errors.startswith("deepgen: ") and errors.count("\n") == 1)


def files():
    return [path for path in Path().rglob("*") if path.is_file()]


@given(texts, options, st.booleans())
def test_any_prompt_and_options_draw_whole_pictures_or_end_in_one_line(run, prompt, options, marked):
    given_options = [word for pair in options.items() for word in pair]
    code, errors = run(["generate", *given_options, *(["--", prompt] if marked else [prompt])])
    if code != 0 or "Usage" in errors:
        assert_told(code, errors)
        assert files() == []
        return
    assert len(files()) == int(options.get("--n", 1))
    for path in files():
        assert path.suffix.lower() == ".png" and read_metadata(path)["prompt"] == prompt


lines = st.one_of(
    values.map(json.dumps),
    texts,
    st.fixed_dictionaries(
        {"prompt": texts},
        optional={
            "image": st.one_of(values, st.sampled_from(["p.jsonl", ".", "/dev/zero", "/dev/full"])),
            "seed": values,
            "size": st.one_of(values, st.sampled_from(["64x32", 96, "33", 10**400])),
            "out": st.one_of(
                texts, st.lists(st.sampled_from(["a", "..", ".", "/", "\\", "C:", ".png"])).map("".join)
            ),
        },
    ).map(json.dumps),
)


@given(st.data(), st.sampled_from(["txt", "jsonl"]))
def test_any_file_of_prompts_is_read_or_refused_and_names_stay_inside(
    tmp_path, witness, broken, data, suffix
):
    text = st.lists(lines, max_size=4).map(lambda rows: "\n".join(rows).encode("utf-8", "surrogatepass"))
    path = tmp_path / f"p.{suffix}"
    path.write_bytes(data.draw(broken(text)))
    try:
        with witness.only_within(None):
            jobs = read_jobs(path)
    except DeepGenError as error:
        assert str(path) in str(error)
        return
    inside = os.path.join(tmp_path, "out")
    for job in jobs:
        written = os.path.normpath(os.path.join(inside, job.out))
        assert written.startswith(inside + os.sep) and written.lower().endswith(".png")


@pytest.fixture(scope="module")
def record(tiny):
    return tiny("a cat", seed=1).metadata[0]


@given(st.data())
def test_any_record_is_repeated_or_refused(tmp_path, tiny, record, broken, witness, data):
    changes = data.draw(st.dictionaries(st.sampled_from([*record, "references"]), values, max_size=2))
    written = json.dumps(record | changes, ensure_ascii=True).encode()
    info = PngInfo()
    info.add_itxt("deepgen", data.draw(broken(st.just(written))).decode("utf-8", "replace"))
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    try:
        with witness.only_within(None):
            repeat = read_repeat(path)
            repeat.check_model(tiny)
            arguments = repeat.arguments()
            repeat.differences(tiny, "0")
            if {arguments["width"], arguments["height"]} <= {32, 64} and arguments["num_inference_steps"] < 9:
                tiny(**arguments)
    except DeepGenError as error:
        assert "\n" not in str(error)
