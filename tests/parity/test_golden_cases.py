import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from deepgen.checkpoints.golden import Difference, read_cases
from deepgen.cli import build_app
from deepgen.errors import CheckpointError

GOLDEN = Path(__file__).parent / "golden"
MODEL = GOLDEN / "diffusers"


def verify(cases, model=MODEL):
    arguments = ["verify", str(cases), "--model", str(model)]
    return CliRunner().invoke(build_app(arguments), arguments)


def altered_case(folder, name, **tensors):
    """A folder with one golden case in which some tensors are replaced."""
    cases = json.loads((GOLDEN / "cases" / "cases.json").read_text())
    (folder / "cases.json").write_text(json.dumps([case for case in cases if case["name"] == name]))
    stored = load_file(GOLDEN / "cases" / f"{name}.safetensors")
    save_file(
        {**stored, **{k: change(stored[k]) for k, change in tensors.items()}}, folder / f"{name}.safetensors"
    )
    return folder


def test_every_golden_case_holds():
    result = verify(GOLDEN / "cases")
    assert result.exit_code == 0, result.output
    assert "20 of 20 tensors in 4 cases hold" in result.output


@pytest.mark.parametrize(
    ("case", "tensor", "change"),
    [
        ("t2i_single", "pooled", lambda x: x + 2e-4),
        ("dit_ragged", "velocity_1", lambda x: x[:, :4].contiguous()),
        ("dit_ragged", "velocity_0", lambda x: x * float("nan")),
        ("loss_t2i", "grad.meta_queries", lambda x: x * 1.01),
    ],
)
def test_a_tensor_beyond_its_tolerance_fails(tmp_path, case, tensor, change):
    result = verify(altered_case(tmp_path, case, **{tensor: change}))
    assert result.exit_code == 1
    (line,) = (line for line in result.output.splitlines() if "TOO FAR" in line)
    assert tensor in line and case in line


def test_guidance_of_one_uses_the_positive_rows_only(tmp_path):
    folder = altered_case(tmp_path, "t2i_single")
    cases = json.loads((folder / "cases.json").read_text())
    (folder / "cases.json").write_text(json.dumps([{**cases[0], "guidance_scale": 1.0}]))
    path = folder / "t2i_single.safetensors"
    stored = load_file(path)
    kept = {k: v for k, v in stored.items() if k not in ("final_latents", "pixels")}
    save_file({**kept, "first_velocity": stored["first_velocity"][1:].contiguous()}, path)
    result = verify(folder)
    assert result.exit_code == 0, result.output


def test_a_difference_that_is_no_number_does_not_hold():
    assert not Difference("case", "tensor", float("nan"), 1e-4).holds


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([{"name": "x", "kind": "dream"}], "unknown kind 'dream'"),
        ([{"name": "x", "kind": "velocity"}], "is missing"),
        ([{"name": "x", "kind": "loss"}], "lacks prompts"),
        ([{"kind": "loss"}], "without a name"),
        ({}, "list of cases"),
    ],
)
def test_cases_that_cannot_be_read_are_named(tmp_path, cases, message):
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    with pytest.raises(CheckpointError, match=message):
        read_cases(tmp_path)


def test_a_folder_without_cases_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"cases\.json is missing"):
        read_cases(tmp_path)


def test_the_model_of_another_seed_does_not_pass(tmp_path):
    shutil.copytree(MODEL, tmp_path / "other")
    path = tmp_path / "other" / "connector" / "model.safetensors"
    weights = load_file(path)
    weights["projector_3.bias"] = weights["projector_3.bias"] + torch.full((40,), 1e-3)
    save_file(weights, path)
    result = verify(GOLDEN / "cases", tmp_path / "other")
    assert result.exit_code == 1 and "sequence" in result.output
