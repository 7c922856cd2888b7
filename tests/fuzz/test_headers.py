"""Checkpoints with a broken file: opened as something usable, or refused in our words, and nothing is run."""

import io
import json
import pickle
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from deepgen.checkpoints import load_model, open_checkpoint
from deepgen.errors import DeepGenError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "diffusers"
NAMES = [
    "config.json",
    "model_index.json",
    "scheduler_config.json",
    "generation_config.json",
    "tokenizer_config.json",
]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return shutil.copytree(GOLDEN, tmp_path_factory.mktemp("published") / "model")


@pytest.fixture(scope="module")
def own(tiny_checkpoint, tmp_path_factory):
    return shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("own") / "model")


def try_to(act):
    """Whether it worked; DeepGenError in one line is the only other end."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            act()
    except DeepGenError as error:
        assert str(error) and "\n" not in str(error)
        return False
    return True


def broken_place(data, broken, folder):
    """A file of the checkpoint with its header (or all of a short file) broken: (path, what it held)."""
    files = sorted(p for p in folder.rglob("*") if p.name in NAMES or p.suffix == ".safetensors")
    path = data.draw(st.sampled_from(files), label="file")
    content = path.read_bytes()
    return path, content, data.draw(broken_content(path, content, broken))


def broken_content(path, content, broken):
    if path.suffix == ".json":
        values = json.loads(content)
        return st.one_of(broken(st.just(content)), changed(values).map(lambda v: json.dumps(v).encode()))
    size = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + size], content[8 + size :]
    structured = changed(json.loads(header)).map(lambda v: json.dumps(v).encode())
    whole = structured.map(lambda h: len(h).to_bytes(8, "little") + h + rest)
    shifted = broken(st.just(header)).map(lambda h: len(h).to_bytes(8, "little") + h + rest)
    return st.one_of(whole, shifted, broken(st.just(content[: 8 + size])).map(lambda h: h + rest))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 1, 3, 2**31, 2**63, 10**30]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        ["F32", "BF16", "F4", "sdpa", "__import__('os')", "../../etc", "sin", "gelu", "rms_norm"]
    ),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-2, 9), max_size=3),
)


@st.composite
def changed(draw, values):
    """A JSON object with one or two values, at any depth, replaced or removed."""
    values = json.loads(json.dumps(values))
    for _ in range(draw(st.integers(1, 2))):
        inner = values
        while True:
            keys = sorted(inner) if isinstance(inner, dict) else list(range(len(inner)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            child = inner[key]
            if isinstance(child, dict | list) and child and draw(st.integers(0, 3)):
                inner = child
                continue
            if draw(st.booleans()):
                inner[key] = draw(scalars)
            else:
                del inner[key]
            break
    return values


@pytest.mark.parametrize("layout", ["published", "own"])
@given(data=st.data())
def test_any_broken_header_or_config_opens_or_is_refused(request, layout, broken, witness, data):
    folder = request.getfixturevalue(layout)
    path, content, replaced = broken_place(data, broken, folder)
    path.write_bytes(replaced)
    try:
        with witness.only_within(None):
            if try_to(lambda: open_checkpoint(folder)):
                try_to(lambda: open_checkpoint(folder).nbytes(None))
    finally:
        path.write_bytes(content)


@settings(max_examples=settings.default.max_examples // 5)  # a whole model each
@given(data=st.data())
def test_any_broken_checkpoint_loads_or_is_refused(published, broken, witness, data):
    path, content, replaced = broken_place(data, broken, published)
    path.write_bytes(replaced)
    try:
        with witness.only_within(None):
            try_to(lambda: load_model(published))
    finally:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def native():
    """The content of a native model.pt with the golden model's bridge and transformer."""
    tensors = load_file(GOLDEN / "connector" / "model.safetensors")
    transformer = load_file(GOLDEN / "transformer" / "diffusion_pytorch_model.safetensors")
    file = io.BytesIO()
    torch.save(tensors | {f"transformer.{name}": value for name, value in transformer.items()}, file)
    return file.getvalue()


def test_the_native_file_is_one_that_loads(native, tmp_path):
    (tmp_path / "model.pt").write_bytes(native)
    assert try_to(lambda: load_model(tmp_path / "model.pt", base_vlm=GOLDEN / "vlm", base_dit=GOLDEN))


@given(data=st.data())
def test_any_broken_torch_file_opens_or_is_refused_and_runs_nothing(native, tmp_path, broken, witness, data):
    # The pickle stands first in the zip, its directory last.
    head, tail = native[:40_000], native[-40_000:]
    content = data.draw(
        st.one_of(
            broken(st.just(head)).map(lambda h: h + native[40_000:]),
            broken(st.just(tail)).map(lambda t: native[:-40_000] + t),
        )
    )
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with witness.only_within(None):
        try_to(lambda: open_checkpoint(path, base_vlm=GOLDEN / "vlm", base_dit=GOLDEN))


class Caller:
    """Pickles as a call of any function."""

    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def touch(path):
    Path(path).touch()


FUNCTIONS = [eval, exec, open, print, __import__, touch, torch.load, Path, getattr, io.BytesIO]


@given(
    st.sampled_from(FUNCTIONS),
    st.lists(st.one_of(st.just("touched"), st.just("w"), st.integers(), st.text()), max_size=3).map(tuple),
    st.integers(0, 5),
    st.booleans(),
)
def test_a_pickle_that_would_call_something_is_refused_by_name(
    tmp_path, monkeypatch, witness, function, arguments, protocol, zipped
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    content = {"projector_1.weight": Caller(function, arguments)}
    if zipped:
        torch.save(content, path, pickle_protocol=max(protocol, 2))
    else:
        path.write_bytes(pickle.dumps(content, protocol))
    with witness.only_within(None), pytest.raises(DeepGenError, match="could run code") as caught:
        open_checkpoint(path)
    assert function.__name__.strip("_") in str(caught.value)
