"""`deepgen convert` and `deepgen inspect`."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from deepgen.checkpoints import load_model, open_checkpoint
from deepgen.checkpoints.describe import describe, shape_lines
from deepgen.checkpoints.licences import OWN, QWEN, SD35, licence_of
from deepgen.checkpoints.tensors import Span, Stored
from deepgen.cli import build_app
from deepgen.errors import CheckpointError, InputError, OutputError


def deepgen(*words, **options):
    named = [word for n, v in options.items() for word in (f"--{n.replace('_', '-')}", str(v))]
    arguments = [*map(str, words), *named]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(build_app(arguments), arguments)


def convert(layouts, source, name="own", *flags, **options):
    target = layouts.root / name
    result = deepgen("convert", source, target, *flags, **options)
    assert result.exit_code == 0, result.output or result.exception
    return target


def states(model):
    return model.state_dict()


def test_a_converted_checkpoint_needs_nothing_else_and_is_the_same(layouts):
    source = layouts.file("model.pt", layouts.native)
    target = convert(layouts, source, **layouts.bases)
    assert open_checkpoint(target).layout == "deepgen"
    ours, golden = states(load_model(target)[0]), states(load_model(layouts.diffusers)[0])
    assert ours.keys() == golden.keys() and all(torch.equal(ours[n], golden[n]) for n in ours)
    assert [p.name for p in layouts.root.iterdir() if p.name.startswith(".")] == []


def test_adapters_are_kept_so_that_the_golden_numbers_are_too(layouts):
    source = layouts.file("model.pt", {**layouts.native, **layouts.lora})
    target = convert(layouts, source, **layouts.bases)
    stored = load_file(target / "vlm" / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(stored, load_file(layouts.vlm / "model.safetensors")["model.embed_tokens.weight"])
    result = deepgen("verify", layouts.golden / "cases_lora", model=target)
    assert result.exit_code == 0, result.output
    merged, direct = load_model(target)[0], load_model(source, **layouts.bases)[0]
    assert all(torch.equal(states(merged)[n], v) for n, v in states(direct).items())


def test_adapters_can_be_merged_for_tools_that_read_the_vlm_alone(layouts):
    source = layouts.file("model.pt", {**layouts.native, **layouts.lora})
    target = convert(layouts, source, "own", "--merge", **layouts.bases)
    assert not (target / "adapters").exists()
    ours, direct = (states(m) for m in (load_model(target)[0], load_model(source, **layouts.bases)[0]))
    assert all(torch.equal(ours[n], direct[n]) for n in ours)


def test_types_are_kept_unless_another_is_asked_for(layouts):
    bf16 = {n: v.bfloat16() if n.startswith("transformer.") else v for n, v in layouts.native.items()}
    source = layouts.file("model.pt", bf16)
    target = convert(layouts, source, **layouts.bases)
    types = {p.parent.name: next(iter(load_file(p).values())).dtype for p in target.glob("*/*.safetensors")}
    assert types["transformer"] == torch.bfloat16 and types["connector"] == torch.float32
    small = convert(layouts, source, "small", dtype="bf16", **layouts.bases)
    found = {t.dtype for p in small.glob("*/*.safetensors") for t in load_file(p).values()}
    assert found == {torch.bfloat16}


def test_a_folder_that_holds_something_is_not_written_to(layouts):
    (layouts.root / "own").mkdir()
    (layouts.root / "own" / "mine.txt").write_text("mine")
    result = deepgen("convert", layouts.diffusers, layouts.root / "own")
    assert isinstance(result.exception, InputError) and "is there already" in str(result.exception)


def limited(code, size, cwd):
    """Run Python that cannot write a file of more bytes: what a full disk does, at a place of our choosing."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
    return subprocess.run([sys.executable, "-c", limit + code], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("size", [1, 5_000, 1_000_000])
def test_a_conversion_without_space_is_one_line_and_leaves_nothing_behind(layouts, size):
    before = set(layouts.root.iterdir())
    words = ["convert", str(layouts.diffusers), "own"]
    done = limited(f"from deepgen.cli import main; main({words})", size, layouts.root)
    assert done.returncode == 1 and set(layouts.root.iterdir()) == before
    assert done.stderr.startswith("deepgen: ") and "cannot be written (File too large)\n" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_tokenizer_without_space_is_an_error_of_ours(layouts):
    code = (
        "from pathlib import Path; from deepgen.checkpoints.save import save_tokenizer\n"
        "from deepgen.checkpoints.towers import load_tokenizer\n"
        f"save_tokenizer(load_tokenizer([Path({str(layouts.vlm)!r})]), Path('.'))"
    )
    assert "OutputError: .: the tokenizer cannot be written (" in limited(code, 4_000, layouts.root).stderr


def test_a_place_that_cannot_be_written_to_is_told_before_anything_is_read(layouts, monkeypatch):
    monkeypatch.setattr("deepgen.checkpoints.checkpoint.load_strictly", lambda *_: pytest.fail("read"))
    (layouts.root / "file").write_text("")
    for target in (layouts.root / "file" / "own", "/proc/own"):
        result = deepgen("convert", layouts.diffusers, target)
        assert isinstance(result.exception, OutputError) and f"{target}: cannot be" in str(result.exception)


def test_inspect_tells_layout_towers_sizes_types_and_licences(layouts):
    result = deepgen("inspect", layouts.diffusers)
    assert result.exit_code == 0, result.exception
    for words in (
        "diffusers",
        "vlm",
        "connector",
        "transformer",
        "vae",
        "float32",
        "hidden_size 32",
        "licence",
    ):
        assert words in result.output
    assert "127 tensors, 151,936 values" in result.output and "657,891 stored values" in result.output
    shapes = deepgen("inspect", layouts.diffusers, "--shapes").output
    assert "language_model.layers.*.mlp.up_proj.weight [48, 32]  x36" in shapes


def test_inspect_says_what_is_missing_and_fails(layouts):
    result = deepgen("inspect", layouts.file("model.pt", {**layouts.native, **layouts.lora}))
    assert result.exit_code == 1
    assert "275 adapters of rank 4" in result.output
    assert "--base-vlm" in result.output and "--base-dit" in result.output
    complete = deepgen("inspect", layouts.root / "model.pt", **layouts.bases)
    assert complete.exit_code == 0, complete.output


def test_inspect_names_tensors_that_do_not_fit(layouts):
    folder = layouts.copy("model")
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["extra.weight"] = weights.pop("encoder.conv_in.weight")
    save_file(weights, path)
    result = deepgen("inspect", folder)
    assert result.exit_code == 1
    assert "vae: 1 tensors missing: encoder.conv_in.weight" in result.output
    assert "vae: 1 tensors unexpected: extra.weight" in result.output


def test_inspect_notes_an_untuned_vlm(layouts):
    result = deepgen("inspect", layouts.file("model.pt", layouts.native), **layouts.bases)
    assert result.exit_code == 0 and "untuned" in result.output


def test_a_config_that_makes_no_network_is_an_error(layouts):
    folder = layouts.copy("model")
    (folder / "transformer" / "config.json").write_text(json.dumps({"num_layers": 10**9}))
    with pytest.raises(CheckpointError, match="num_layers is 1000000000"):
        describe(open_checkpoint(folder))


def test_published_weights_are_known_by_their_shapes():
    def item(*shape):
        return Stored(shape, (Span(Path("weights"), 0, torch.float32, 0),))

    qwen = {"language_model.embed_tokens.weight": item(151936, 2048)}
    sd35 = {"pos_embed.pos_embed": item(1, 147456, 1536)}
    assert licence_of("vlm", qwen) == QWEN and licence_of("transformer", sd35) == SD35
    assert licence_of("vlm", {"language_model.embed_tokens.weight": item(288, 32)}) == OWN
    assert shape_lines({"a.0.b": item(2), "a.1.b": item(2), "a.2.b": item(3), "c": item()}) == [
        "a.*.b [2]  x2",
        "a.*.b [3]",
        "c []",
    ]
