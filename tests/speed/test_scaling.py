"""The run over several processes at tiny sizes: real gloo groups, its checks, and what it does when a part fails."""

import json
import sys

import pytest

from deepgen.errors import InputError
from deepgen.speed.scaling import Host, Job, ScalingPlan, Task, plan_jobs, run_scaling
from deepgen.speed.scaling_table import table

DONE = {"rates": {}, "same": {}, "facts": {}, "ended": "done", "beside": []}
SIMPLE = """
import json, os, sys, time
from pathlib import Path
Path(sys.argv[1]).touch()
for task in json.loads(sys.stdin.readline())["tasks"]:
    {0}
    place = Path(f"{{sys.argv[1]}}.part")
    place.write_text('{{"rates": {{}}, "same": {{}}, "facts": {{}}, "done": true}}')
    place.rename(task["output"])
"""
"""A worker without deepgen; `{0}` is what it does for a task."""


def plan(folder, **values):
    return ScalingPlan(folder / "scaling.json", "tiny", "cpu", **values)


def measured(folder, *parts, processes=(1, 2), breakage="", **values):
    """(the table, parts by name) of a real run, in whose processes some code runs first."""

    class Broken(Host):
        def command(self, job):
            return [sys.executable, "-c", f"{breakage}\nfrom deepgen.speed.parts import work\nwork()"]

    jobs = plan_jobs(parts, processes)
    host = Broken(plan(folder, **values), folder, jobs, list(range(max(processes))), lambda _: None)
    host.run()
    found = {f"{x['part']}-{x['processes']}": x for x in host.report()["parts"]}
    return table(host.report()), found


def host_of(folder, work, jobs, slots, **values):
    class Scripted(Host):
        def command(self, job):
            return [sys.executable, "-c", SIMPLE.format(work)]

    return Scripted(plan(folder, **values), folder, jobs, list(range(slots)), lambda _: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of all parts but nano's with one and with two processes."""
    folder = tmp_path_factory.mktemp("whole")
    parts = ("noise", "sft", "rl", "resume", "draw")
    return *measured(folder, *parts), json.loads((folder / "scaling.json").read_text())


def test_two_processes_train_together_and_the_table_says_so(tmp_path):
    said = []
    told, failures = run_scaling(plan(tmp_path, processes=(2,), parts=("sft",)), tmp_path, said.append)
    assert not failures, told
    (part,) = json.loads((tmp_path / "scaling.json").read_text())["parts"]
    assert part["ended"] == "done" and set(part["rates"]) == {"sft t2i", "sft edit"}
    assert part["rates"]["sft t2i"]["collective_seconds"] > 0
    assert "sft edit                 2" in told and len(said) == 2


@pytest.mark.slow
def test_every_part_writes_its_rows_and_the_file_holds_them(whole):
    told, found, written = whole
    assert all(part["ended"] == "done" for part in found.values()), told
    assert {f"{x['part']}-{x['processes']}": x for x in written["parts"]} == found
    rows = {"sft": ["sft t2i", "sft edit"], "rl": ["rl rollout", "rl all"], "draw": ["draw"]}
    for part, names in rows.items():
        for count in (1, 2):
            assert list(found[f"{part}-{count}"]["rates"]) == names
            assert all(rate["images_per_second"] > 0 for rate in found[f"{part}-{count}"]["rates"].values())
    assert told.count("100.0%") >= 5 and told.count(" alone") == 10


@pytest.mark.slow
def test_reinforcement_has_mfu_and_time_in_collectives(whole):
    _, found, _ = whole
    for count in (1, 2):
        rates = found[f"rl-{count}"]["rates"]
        assert 0 < rates["rl rollout"]["mfu"] < 1 and 0 < rates["rl all"]["mfu"] < 1
    assert found["rl-1"]["rates"]["rl all"]["collective_seconds"] == 0
    for name, part in (("rl all", "rl-2"), ("sft t2i", "sft-2")):
        rate = found[part]["rates"][name]
        assert rate["collective_seconds"] > 0


@pytest.mark.slow
def test_a_checkpoint_goes_from_two_processes_to_one_and_back(whole):
    told, found, _ = whole
    half, double = found["resume-1"]["facts"], found["resume-2"]["facts"]
    assert half["loaded"] == found["sft-2"]["facts"]["saved"] and half["saved"] == double["loaded"]
    for name in ("weights", "optimizer"):
        assert half["saved"][name] != half["loaded"][name]
    assert "saved by 2, loaded by 1 processes" in told and "saved by 1, loaded by 2 processes" in told
    assert told.count("every bit of weights and optimizer the same") == 2 and "OTHER" not in told


@pytest.mark.slow
def test_the_noise_of_all_stages_is_the_same_with_one_and_two_processes(whole):
    told, found, _ = whole
    assert found["noise-1"]["same"] == found["noise-2"]["same"] and len(found["noise-1"]["same"]) == 3
    assert told.count("with 1, 2 processes: the same") == 3 and "DIFFERENT" not in told


REPEATED = """
from deepgen.train.report import BatchPlan
BatchPlan.micro_batch = lambda self, step, turn, rank: step * self.micro_batches + turn * self.world_size
"""
MINE = """
from deepgen.train.rl import rollout
from deepgen.flow.noise import keyed_noise
import os
rollout.keyed_noise = lambda shape, seed, key, step: keyed_noise(shape, seed + int(os.environ["RANK"]), key, step)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breakage", "wrong"),
    [
        (REPEATED, {"noise of fine-tuning", "noise of their supervised loss"}),
        (MINE, {"noise of rollouts"}),
    ],
)
def test_noise_that_depends_on_the_process_is_found(tmp_path, breakage, wrong):
    told, found = measured(tmp_path, "noise", breakage=breakage)
    one, two = found["noise-1"]["same"], found["noise-2"]["same"]
    assert {name for name in one if one[name] != two[name]} == wrong
    assert told.count("DIFFERENT") == len(wrong)


HALF_LOADED = """
from deepgen.speed import parts
from deepgen.train.checkpointing import Checkpointer
load = Checkpointer.load
Checkpointer.load = lambda self, state: load(self, state | {"optimizer": parts.TensorState(
    {name: t.clone() for name, t in state["optimizer"].tensors.items()})})
"""


@pytest.mark.slow
def test_an_optimizer_that_is_not_loaded_is_found(tmp_path):
    told, _ = measured(tmp_path, "sft", "resume", breakage=HALF_LOADED)
    assert "saved by 2, loaded by 1 processes" in told and "OTHER OPTIMIZER" in told
    assert "OTHER WEIGHTS" not in told


@pytest.mark.slow
def test_two_replicas_of_two_shards_are_measured(tmp_path):
    told, found = measured(tmp_path, "hsdp", processes=(4,))
    assert found["hsdp-4"]["ended"] == "done", told
    assert found["hsdp-4"]["rates"]["hsdp t2i"]["collective_seconds"] > 0
    assert "* hsdp t2i: efficiency relative to 4 processes" in told


@pytest.mark.slow
def test_nano_is_drawn_judged_reinforced_and_tuned(tmp_path):
    told, found = measured(tmp_path, "nano", part_seconds=300)
    names = ["nano draw", "nano judge", "nano rl rollout", "nano rl all", "nano sft t2i"]
    assert [list(found[f"nano-{n}"]["rates"]) for n in (1, 2)] == [names, names], told
    assert "nano's pictures with 1, 2 processes: the same" in told


def test_a_part_that_fails_or_takes_too_long_stops_nothing_else(tmp_path):
    work = "task['part'] == 'sft' and sys.exit('lost'); task['part'] == 'rl' and time.sleep(60)"
    jobs = plan_jobs(("noise", "sft", "resume", "rl", "draw"), (1, 2))
    host = host_of(tmp_path, work, jobs, 2, part_seconds=3)
    host.run()
    ended = {task.name: task.ended for task in host.tasks}
    assert "lost" in ended["sft-2"] and "sft-2 did not end well" in ended["resume-1"]
    assert ended["rl-2"].startswith("stopped after") and "resume-1 did not end well" in ended["resume-2"]
    assert {ended[f"{part}-{n}"] for part in ("noise", "draw") for n in (1, 2)} == {"done"}
    assert host.free == [0, 1] and "sft-2: failed in process" in table(host.report())


def test_what_fails_behind_another_part_is_tried_once_more_in_fresh_processes(tmp_path):
    work = "task['part'] == 'rl' and os.environ.get('later') and sys.exit(1); os.environ['later'] = '1'"
    jobs = [Job([Task("sft", 1), Task("rl", 1), Task("draw", 1)])]
    host = host_of(tmp_path, work, jobs, 1)
    host.run()
    assert [task.ended for task in host.tasks] == ["done"] * 3 and len(host.jobs) == 2


def test_the_fewest_processes_run_alone_and_others_say_what_ran_beside_them(tmp_path):
    jobs = [*plan_jobs(("sft",), (1, 2, 4)), Job([Task("draw", 4)])]
    host = host_of(tmp_path, "time.sleep(1)", jobs, 8)
    host.run()
    beside = {task.name: task.beside for task in host.tasks}
    assert beside["sft-1"] == set() and "sft-1" not in set().union(*beside.values())
    assert beside["sft-2"] == {"draw-4"} and beside["draw-4"] == {"sft-2"}


def test_without_time_nothing_starts_and_impossible_wishes_are_refused(tmp_path):
    host = Host(plan(tmp_path, seconds=1), tmp_path, plan_jobs(("sft",), (1,)), [0], lambda _: None)
    host.run()
    assert [task.ended for task in host.tasks] == ["not started: no time left"]
    with pytest.raises(InputError, match="unknown part 'sfx'"):
        run_scaling(plan(tmp_path, parts=("sfx",)), tmp_path, print)


def test_groups_come_in_the_order_of_their_worth():
    parts = ("noise", "sft", "resume", "hsdp", "rl", "draw")
    jobs = plan_jobs(parts, (1, 2, 4))
    assert [[task.name for task in job.tasks] for job in jobs] == [
        ["noise-4", "sft-4", "rl-4"],
        ["noise-1", "sft-1", "rl-1"],
        ["noise-2", "sft-2", "rl-2", "resume-2"],
        ["resume-4", "hsdp-4", "draw-4"],
        ["draw-1"],
        ["draw-2"],
    ]
    assert [job.alone for job in jobs] == [False, True, False] * 2
    first = [task.name for job in plan_jobs(parts, (1, 2))[:2] for task in job.tasks]
    assert first == ["noise-2", "sft-2", "rl-2", "noise-1", "sft-1", "rl-1", "resume-1"]


def test_efficiency_without_a_measurement_with_one_process_says_what_it_is_relative_to():
    def parts(*counts):
        rates = {n: {"sft t2i": {"images_per_second": 10.0 * n - (n > 2)}} for n in counts}
        return [DONE | {"part": "sft", "processes": n, "rates": rates[n]} for n in counts]

    with_one = table({"device": "cpu", "sizes": "tiny", "parts": parts(1, 2, 4)})
    assert "97.5% " in with_one and "*" not in with_one
    without = table({"device": "cpu", "sizes": "tiny", "parts": parts(2, 4)})
    assert "97.5%*" in without and "* sft t2i: efficiency relative to 2 processes" in without


def test_other_weights_after_loading_are_told():
    digests = {"weights": "a", "optimizer": "b"}
    saved = DONE | {"part": "sft", "processes": 2, "facts": {"saved": digests}}
    facts = {"loaded": digests | {"weights": "c"}, "loaded_from": 2, "load_seconds": 1.0}
    loaded = DONE | {"part": "resume", "processes": 1, "facts": facts}
    told = table({"device": "cpu", "sizes": "tiny", "parts": [saved, loaded]})
    assert "saved by 2, loaded by 1 processes in 1.0 s: OTHER WEIGHTS" in told
