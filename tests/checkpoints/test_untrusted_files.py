"""Files that would run code are refused by the name of what they ask for, and run nothing."""

import os
import pickle

import pytest
import torch

from deepgen.checkpoints import load_model, open_checkpoint
from deepgen.checkpoints.torch_file import read_torch_file
from deepgen.errors import CheckpointError


class Payload:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.fixture
def trap(tmp_path):
    return tmp_path / "executed"


@pytest.mark.parametrize("wrap", [dict, lambda x: {"state_dict": x}, lambda x: [x]])
def test_a_model_file_that_would_run_code_is_refused_by_name(layouts, trap, wrap):
    evil = {**layouts.native, "x": Payload(os.system, f"touch {trap}")}
    with pytest.raises(CheckpointError, match=r"model\.pt asks for \w+\.system.*do not trust"):
        load_model(layouts.file("model.pt", wrap(evil)), **layouts.bases)
    assert not trap.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, open, torch.load, pickle.loads])
def test_no_function_is_let_through(tmp_path, function):
    torch.save({"x": Payload(function, "1")}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=f"{function.__name__} to be loaded"):
        read_torch_file(tmp_path / "model.pt")


def test_a_bare_pickle_is_refused_by_name_too(tmp_path, trap):
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Payload(os.system, f"touch {trap}")))
    with pytest.raises(CheckpointError, match=r"system to be loaded"):
        load_model(tmp_path)
    assert not trap.exists()


def test_a_trainers_folder_that_would_run_code_is_refused_by_name(layouts, trap):
    evil = {"meta": Payload(os.system, f"touch {trap}")}
    folder = layouts.deepspeed("iter.pth", *layouts.trained_and_buffer(), states=evil)
    with pytest.raises(CheckpointError, match=r"model_states\.pt asks for \w+\.system"):
        load_model(folder, **layouts.bases)
    assert not trap.exists()


def test_adapters_that_would_run_code_are_refused_by_name(layouts, trap):
    folder = layouts.peft("peft", layouts.lora)
    (folder / "adapter_model.safetensors").unlink()
    torch.save({**layouts.lora, "x": Payload(os.system, f"touch {trap}")}, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="system to be loaded"):
        open_checkpoint(layouts.diffusers, lora=folder)
    assert not trap.exists()


def test_what_torch_saves_is_read_as_torch_reads_it(tmp_path):
    values = torch.arange(24.0).view(2, 3, 4)
    saved = {
        **{"rows": values, "turned": values.transpose(0, 2), "part": values[1, :2], "one": torch.tensor(3)},
        **{"none": torch.empty(0, 3), "flags": torch.tensor([True, False]), "half": values.bfloat16()},
        **{"repeated": values[0, 0].expand(5, 4), "parameter": torch.nn.Parameter(values)},
    }
    torch.save(saved, tmp_path / "x.pt")
    read = read_torch_file(tmp_path / "x.pt")
    for name, value in saved.items():
        tensor = read[name].read(name)
        assert tensor.dtype == value.dtype and torch.equal(tensor, value), name


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_torch_file_cut_short_is_refused(layouts, kept):
    path = layouts.file("model.pt", layouts.native)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    with pytest.raises(CheckpointError, match=r"model\.pt is truncated or damaged"):
        load_model(path, **layouts.bases)


def test_a_torch_file_from_before_zips_asks_to_be_saved_again(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"not a zip written by torch\.save"):
        read_torch_file(tmp_path / "old.pt")
