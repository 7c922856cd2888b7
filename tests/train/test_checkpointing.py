"""Checkpoints of a run: whole or absent, the last and the best kept, a failure said."""

import threading

import pytest
import torch

from deepgen.errors import CheckpointError
from deepgen.train import checkpointing
from deepgen.train.checkpointing import CheckpointConfig, Checkpointer, TensorState
from deepgen.train.parallel import Ranks


class Number:
    """A part of a run that is no tensor."""

    def __init__(self, value: int) -> None:
        self.value = value

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


def parts(value: float = 0.0):
    return {"weights": TensorState({"a": torch.full((3, 2), value)}), "counters": Number(int(value))}


def keeper(folder, **settings):
    return Checkpointer(folder, CheckpointConfig(**settings), Ranks())


@pytest.mark.parametrize("asynchronous", [True, False])
def test_what_was_saved_comes_back_as_it_was_at_the_time_of_saving(tmp_path, asynchronous):
    saved, saver = parts(7), keeper(tmp_path, asynchronous=asynchronous)
    saver.save(7, saved)
    saved["weights"].tensors["a"].zero_()
    saver.wait()
    loaded = parts()
    assert keeper(tmp_path).load(loaded) == 7 and loaded["counters"].value == 7
    assert torch.equal(loaded["weights"].tensors["a"], torch.full((3, 2), 7.0))


def test_the_last_ones_and_the_best_one_are_kept(tmp_path):
    saver = keeper(tmp_path, keep_last=2, keep_best=True)
    for step, score in ((1, float("nan")), (2, 0.1), (3, None), (4, 0.3), (5, 0.4)):
        saver.save(step, parts(step), score)
    saver.wait()
    assert saver.steps() == [2, 4, 5] and saver.best() == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step_0000000{n}" for n in (2, 4, 5)]


def test_a_save_waits_for_the_one_before_it_so_that_a_kill_loses_two_intervals_at_most(tmp_path, monkeypatch):
    saver, gate, write = keeper(tmp_path), threading.Event(), checkpointing.dcp.save

    def slow(*given, **named):
        assert gate.wait(10)
        write(*given, **named)

    monkeypatch.setattr(checkpointing.dcp, "save", slow)
    saver.save(1, parts(1))
    second = threading.Thread(target=saver.save, args=(2, parts(2)))
    second.start()
    second.join(0.3)
    assert second.is_alive() and saver.latest() is None
    gate.set()
    second.join(10)
    saver.wait()
    assert saver.steps() == [1, 2]


def test_a_save_that_ended_half_way_is_no_checkpoint(tmp_path, monkeypatch):
    saver = keeper(tmp_path)
    saver.save(1, parts(1))
    saver.wait()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing, "_write_synced", full)
    saver.save(2, parts(2))
    with pytest.raises(CheckpointError, match=r"state cannot be saved.*No space left"):
        saver.wait()
    assert (tmp_path / "step_00000002.partial").is_dir() and saver.latest() == 1
    monkeypatch.undo()
    saver.save(2, parts(2))
    saver.wait()
    assert keeper(tmp_path).latest() == 2 and not list(tmp_path.glob("*.partial"))


def test_a_save_that_fails_by_any_error_is_told_by_the_next_wait(tmp_path, monkeypatch):
    saver = keeper(tmp_path, keep_best=True)
    saver.save(1, parts(1), 0.5)
    saver.wait()
    (tmp_path / "step_00000001" / "complete.json").write_text("{")
    saver.save(2, parts(2), 0.4)
    with pytest.raises(CheckpointError, match=r"step_00000001 cannot be read"):
        saver.wait()
    monkeypatch.setattr(checkpointing.dcp, "save", lambda *_, **__: [][0])
    saver.save(3, parts(3))
    with pytest.raises(IndexError):
        saver.save(4, parts(4))


def test_a_folder_without_its_marker_and_a_damaged_marker_do_not_load(tmp_path):
    saver = keeper(tmp_path)
    saver.save(1, parts(1))
    saver.wait()
    marker = tmp_path / "step_00000001" / "complete.json"
    marker.write_text("{")
    with pytest.raises(CheckpointError, match="remove that folder to begin anew"):
        saver.load(parts())
    marker.unlink()
    assert saver.latest() is None
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        saver.load(parts())


@pytest.mark.parametrize(
    ("file", "left", "said"),
    [
        ("__0_0.distcp", 0.5, "RuntimeError: PytorchStreamReader failed"),
        ("__0_0.distcp", None, r"FileNotFoundError: .*__0_0\.distcp"),
        (".metadata", 0.5, "UnpicklingError: pickle data was truncated"),
        ("complete.json", 0.5, "JSONDecodeError: "),
    ],
)
def test_of_a_damaged_checkpoint_is_said_what_is_wrong_and_where_the_run_can_go_on(
    tmp_path, capfd, file, left, said
):
    saver = keeper(tmp_path)
    for step in (1, 2):
        saver.save(step, parts(step))
    saver.wait()
    path = tmp_path / "step_00000002" / file
    whole = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(CheckpointError, match=rf"{said}.*; if .* remove that folder to go on from update 1$"):
        saver.load(parts())
    assert "Traceback" not in capfd.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    saver = keeper(tmp_path)
    saver.save(1, parts(1))
    saver.wait()
    for tensors, said in (
        ({"b": torch.zeros(3, 2)}, "holds weights/a, which this run lacks; it lacks weights/b;"),
        ({}, "holds weights/a, which this run lacks;"),
        ({"a": torch.zeros(3, 4)}, r"weights/a is \[3, 2\] there and \[3, 4\] here;"),
    ):
        with pytest.raises(CheckpointError, match=f"does not fit this run: .*{said}"):
            saver.load({"weights": TensorState(tensors), "counters": Number(0)})
    with pytest.raises(CheckpointError, match="holds counters, which this run lacks;"):
        saver.load({"weights": TensorState({"a": torch.zeros(3, 2)})})
    with pytest.raises(CheckpointError, match="it lacks more;"):
        saver.load({**parts(), "more": Number(0)})
