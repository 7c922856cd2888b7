"""Files of prompts."""

import json
from pathlib import Path

import pytest
from PIL import Image

from deepgen.errors import InputError
from deepgen.pipeline.jobs import Job, read_jobs


def read(folder: Path, text: str | bytes, suffix: str = "jsonl") -> list[Job]:
    path = folder / f"p.{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_jobs(path)


def test_a_text_file_has_a_prompt_a_line_and_names_pictures_by_line(tmp_path):
    jobs = read(tmp_path, "\ufeffa cat\r\n\n  ein Bär – 熊 🐻\u2028‏דוב \n", "txt")
    assert [(j.line, j.prompt, j.out) for j in jobs] == [
        (1, "a cat", "0001.png"),
        (3, "ein Bär – 熊 🐻\u2028‏דוב", "0003.png"),
    ]


def test_json_lines_say_more_about_a_picture(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / f"{name}.png")
    lines = [
        {"prompt": "a", "image": "pictures/a.png", "seed": 7, "size": "64x32", "out": "x/y"},
        {"prompt": "b", "image": ["pictures/a.png", str(tmp_path / "pictures" / "b.png")], "size": 96},
        {"prompt": "c"},
    ]
    first, second, third = read(tmp_path, "\n".join(map(json.dumps, lines)))
    here = tmp_path / "pictures"
    assert first == Job(1, "a", (here / "a.png",), 7, (64, 32), "x/y.png")
    assert second == Job(2, "b", (here / "a.png", here / "b.png"), None, (96, 96), "0002.png")
    assert third == Job(3, "c", (), None, None, "0003.png")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "not JSON"),
        ("3", "not an object"),
        ("{}", 'has no "prompt"'),
        ('{"prompt": " "}', "the prompt is empty"),
        ('{"prompt": 3}', "must be text, not int"),
        ('{"prompt": "\\ud800"}', "not UTF-8"),
        ('{"prompt": "a", "steps": 3}', "unknown key 'steps'; known: prompt, image, seed, size, out"),
        ('{"prompt": "a", "seed": 1.5}', "whole number"),
        ('{"prompt": "a", "seed": true}', "whole number"),
        ('{"prompt": "a", "size": [3]}', "size"),
        ('{"prompt": "a", "size": "100x64"}', "nearest is 96x64"),
        ('{"prompt": "a", "image": "gone.png"}', "gone.png: no such file"),
        ('{"prompt": "a", "image": [3]}', "a path or a list of paths"),
        ('{"prompt": "a", "image": "\\u0000"}', "a path or a list of paths"),
        ('{"prompt": "a", "image": ["p.jsonl"' + ', "p.jsonl"' * 8 + "]}", "9 reference images, at most 8"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, words):
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, f'{{"prompt": "good"}}\n{line}\n')
    assert "p.jsonl, line 2: " in str(caught.value) and "\n" not in str(caught.value)


OUTSIDE = [
    "/a.png",
    "../a.png",
    "a/../../b.png",
    "C:\\a.png",
    "..\\a.png",
    "C:a.png",
    "\\\\host\\a.png",
    "a/..",
]


@pytest.mark.parametrize("out", [*OUTSIDE, "", ".", "a\n.png", "\ud800.png", 3, None])
def test_a_name_that_leaves_the_folder_or_is_none_is_refused(tmp_path, out):
    with pytest.raises(InputError, match='line 1: "out" must'):
        read(tmp_path, json.dumps({"prompt": "a", "out": out}))


@pytest.mark.parametrize(
    ("text", "suffix", "words"),
    [
        (b"\xff\xfe", "txt", r"not UTF-8 text \(byte 0\)"),
        ("\n \n", "txt", "holds no prompt"),
        ("a", "csv", r"from .txt \(one a line\) or .jsonl"),
    ],
)
def test_a_file_that_holds_no_prompts_is_refused(tmp_path, text, suffix, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, text, suffix)
    with pytest.raises(InputError, match="no such file"):
        read_jobs(tmp_path / "gone.txt")
