"""The whole way with a small benchmark: kind and unkind judges, both modes, coverage, and going on after a stop."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deepgen.errors import DataError, InputError
from deepgen.evaluation.benchmark import Status
from deepgen.evaluation.data import Selection
from deepgen.evaluation.judges import ScorerOptions, build_scorer, choose_profile
from deepgen.evaluation.judging import Run, estimate_run, judge_run, judges_of, read_profile
from deepgen.evaluation.scoring import read_scores, score_run, scored, summarise, write_scores
from deepgen.evaluation.stages import Plan, begin, check_sources, reopen, take_pictures


def silent(step: str, done: int, total: int) -> None:
    pass


def cats_are_right(request: Any) -> str:
    return "yes" if "cats" in request.text else "no"


@pytest.fixture
def data(toy: Any, tmp_path: Path) -> Path:
    return Path(toy.write_data(tmp_path / "data"))


def test_from_data_to_numbers(judge_server: Any, harness: Any, toy: Any, data: Path, tmp_path: Path) -> None:
    judge_server.reply = cats_are_right
    client = harness.client(judge_server.url, toy.Toy.judges[0])
    ran = harness.run_benchmark(toy.Toy(), data, tmp_path / "run", client)
    assert ran.failed == 0 and len(judge_server.requests) == 5
    assert "第1只" in judge_server.requests[1].text or any("第1只" in r.text for r in judge_server.requests)
    assert [record.units[0].value for record in ran.records] == [1, 1, 1, 0, 0]
    assert {group: of["right"].value for group, of in ran.results.groups.items()} == {"cats": 1, "dogs": 0}
    assert ran.results.overall is not None and ran.results.overall["right"].value == 0.5
    assert ran.results.metric("right") == "toy/right[judge-1,strict]"
    assert ran.results.coverage.words() == "coverage 5/5 pictures (100.0%)"
    assert ran.results.served == ["served-model"]


def test_scoring_again_never_calls_the_judge(
    judge_server: Any, harness: Any, toy: Any, data: Path, tmp_path: Path
) -> None:
    judge_server.reply = cats_are_right
    client = harness.client(judge_server.url, toy.Toy.judges[0])
    ran = harness.run_benchmark(toy.Toy(), data, tmp_path / "run", client)
    judge_server.kill()

    class Reversed(toy.Toy):
        parser_version = 2

        def parse(self, *arguments: Any) -> bool:
            return not super().parse(*arguments)

    run = replace(ran.run, benchmark=Reversed())
    assert judge_run(run, client, "strict", silent) == 0
    results = summarise(
        run, score_run(run, ran.profile, "strict").records, ran.profile, "strict", False, resamples=20
    )
    assert results.groups["dogs"]["right"].value == 1 and results.parser_version == 2


def test_unkind_replies_get_their_own_status(
    judge_server: Any, replies: Any, harness: Any, toy: Any, data: Path, tmp_path: Path
) -> None:
    told = {"cats number 0": "maybe", "cats number 1": replies.Refusal(), "cats number 2": "yes\n"}
    told |= {"dogs number 0": replies.Status(400, "no")}

    def reply(request: Any) -> Any:
        return next((reply for words, reply in told.items() if words in request.text), "yes")

    judge_server.reply = reply
    client = harness.client(judge_server.url, toy.Toy.judges[0])
    ran = harness.run_benchmark(toy.Toy(), data, tmp_path / "run", client)
    statuses = [record.status for record in ran.records]
    assert statuses == [Status.PARSE_FAILED, Status.REFUSED, Status.OK, Status.FAILED, Status.OK]
    assert ran.failed == 1
    assert [record.units for record in ran.records][1] == () == ran.records[3].units
    assert ran.results.groups["cats"]["right"].value == 0.5, (
        "what does not parse is wrong, a refusal is nothing"
    )
    assert ran.results.coverage.counted == 3 and ran.results.partial
    assert "parse_failed 1, refused 1, failed 1" in ran.results.coverage.words()


def test_official_and_strict_differ_where_the_official_code_has_its_ways(
    judge_server: Any, harness: Any, toy: Any, data: Path, tmp_path: Path
) -> None:
    judge_server.reply = lambda request: "yes\n" if "number 0" in request.text else "yes"
    client = harness.client(judge_server.url, toy.Toy.judges[0])
    ran = harness.run_benchmark(toy.Toy(), data, tmp_path / "run", client, mode="official")
    assert [bool(record.units) for record in ran.records] == [False, True, True, False, True]
    assert len(judge_server.requests) == 7, "the official parser asked twice for what it cannot read"
    strict = score_run(ran.run, ran.profile, "strict")
    assert [record.units[0].value for record in strict.records] == [1.0] * 5


def test_a_missing_picture_is_wrong_in_strict_mode_and_never_hidden(
    judge_server: Any, harness: Any, toy: Any, data: Path, tmp_path: Path
) -> None:
    client = harness.client(judge_server.url, toy.Toy.judges[0])
    ran = harness.run_benchmark(
        toy.Toy(), data, tmp_path / "run", client, skip=lambda job: job.item.id == "dogs/1"
    )
    assert ran.records[4].status == Status.NO_PICTURE and ran.records[4].units[0].value == 0
    assert ran.results.coverage.words() == "coverage 4/5 pictures (80.0%); no_picture 1"
    official = score_run(ran.run, ran.profile, "official")
    assert official.records[4].units == ()


def test_no_overall_without_full_coverage_unless_allowed(
    judge_server: Any, harness: Any, toy: Any, data: Path, tmp_path: Path
) -> None:
    client = harness.client(judge_server.url, toy.Toy.judges[0])
    ran = harness.run_benchmark(
        toy.Toy(), data, tmp_path / "run", client, skip=lambda job: job.item.id == "dogs/1"
    )
    withheld = summarise(ran.run, ran.records, ran.profile, "strict", False, resamples=20)
    assert withheld.overall is None and withheld.groups["cats"]["right"].value == 1
    allowed = summarise(ran.run, ran.records, ran.profile, "strict", True, resamples=20)
    assert allowed.overall is not None and allowed.metric("right").endswith(",strict,partial]")


def test_scores_survive_the_disk(
    judge_server: Any, harness: Any, toy: Any, data: Path, tmp_path: Path
) -> None:
    judge_server.reply = cats_are_right
    client = harness.client(judge_server.url, toy.Toy.judges[0])
    ran = harness.run_benchmark(toy.Toy(), data, tmp_path / "run", client)
    again, results = read_scores(tmp_path / "run", "judge-1", "strict")
    assert again.records == ran.records and results == ran.results
    assert again.why["dogs/0", 0] == "right: no"
    assert scored(tmp_path / "run") == [("judge-1", "strict")]
    with pytest.raises(DataError, match=r"no official scores by 'judge-1' \(there are: judge-1 strict\)"):
        read_scores(tmp_path / "run", "judge-1", "official")
    write_scores(tmp_path / "run", again, results)
    assert read_scores(tmp_path / "run", "judge-1", "strict") == (again, results)


def test_nothing_judged_is_an_error_that_says_so(
    judge_server: Any, replies: Any, harness: Any, toy: Any, data: Path, tmp_path: Path
) -> None:
    judge_server.reply = replies.Refusal()
    client = harness.client(judge_server.url, toy.Toy.judges[0])
    with pytest.raises(DataError, match="no picture has a verdict by judge-1 \\(refused 5\\)"):
        harness.run_benchmark(toy.Toy(), data, tmp_path / "run", client)


def test_two_judges_keep_their_replies_and_manners_apart(
    judge_server: Any, harness: Any, toy: Any, data: Path, tmp_path: Path
) -> None:
    first = harness.client(judge_server.url, toy.Toy.judges[0])
    ran = harness.run_benchmark(toy.Toy(), data, tmp_path / "run", first)
    second = harness.client(judge_server.url, toy.Toy.judges[1])
    assert judge_run(ran.run, second, "strict", silent) == 0
    assert len(judge_server.requests) == 10 and judges_of(tmp_path / "run") == ["judge-1", "judge-2"]
    assert judge_server.requests[-1].parts[0]["type"] == "image_url"
    assert read_profile(tmp_path / "run", "judge-2") == second.profile
    with pytest.raises(DataError, match=r"not judged by 'judge-3' \(judges: judge-1, judge-2\)"):
        read_profile(tmp_path / "run", "judge-3")


def test_the_estimate_comes_before_any_call(
    judge_server: Any, harness: Any, toy: Any, data: Path, tmp_path: Path
) -> None:
    items = toy.Toy().items(data / "toy")
    run = harness.draw_run(toy.Toy(), items, tmp_path / "run", lambda job: False)
    needed = estimate_run(run, toy.Toy.judges[0], "strict")
    assert (needed.calls, needed.known) == (5, 0) and needed.input_tokens > 5 * 700
    assert judge_server.requests == []


def test_a_run_is_extended_and_opened_again_with_what_it_has(toy: Any, data: Path, tmp_path: Path) -> None:
    benchmark, folder = toy.Toy(), tmp_path / "run"
    for limit in (1, 2):
        plan = Plan(benchmark, data, Selection(limit=limit))
        run = begin(plan, plan.prepared(), folder, {"model": "m"})
        assert len(run.items) == 2 * limit
    opened = reopen(folder, benchmark=benchmark)
    assert [item.id for item in opened.items] == ["cats/0", "cats/1", "dogs/0", "dogs/1"]
    assert len(reopen(folder, selection=Selection(groups=("dogs",)), benchmark=benchmark).items) == 2
    (data / "toy" / "items.jsonl").write_text(
        (data / "toy" / "items.jsonl").read_text().replace("dogs", "cats", 1)
    )
    toy.write_data(data, {"cats": 4, "dogs": 2})
    with pytest.raises(DataError, match="not the data that the pictures"):
        reopen(folder, benchmark=benchmark)


def test_groups_that_were_not_trained_are_left_out(toy: Any, data: Path, tmp_path: Path) -> None:
    plan = Plan(toy.Toy(), data)
    run = begin(plan, plan.prepared(), tmp_path / "run", {"model": "m", "untrained": ["dogs"]})
    assert {item.group for item in run.items} == {"cats"}


def test_a_missing_source_is_named_before_anything_is_drawn(toy: Any, data: Path, tmp_path: Path) -> None:
    items = [replace(item, sources=(tmp_path / "gone.png",)) for item in toy.Toy().items(data / "toy")]
    with pytest.raises(InputError, match=r"gone\.png: missing; see `deepgen bench prepare`"):
        check_sources(Run(toy.Toy(), items, 1, tmp_path / "run"))


def test_a_folder_without_a_single_picture_is_refused(toy: Any, data: Path, tmp_path: Path) -> None:
    plan = Plan(toy.Toy(), data)
    run = begin(plan, plan.prepared(), tmp_path / "run", {"model": "m"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"none of the 5 pictures is there, such as cats/cats/0_0\.png"):
        take_pictures(run, tmp_path / "empty")
    with pytest.raises(InputError, match="no such folder"):
        take_pictures(run, tmp_path / "nowhere")


def test_a_judge_is_named_after_what_it_is(toy: Any) -> None:
    benchmark = toy.Toy()
    assert choose_profile(benchmark, None, None) == toy.Toy.judges[0]
    assert choose_profile(benchmark, "judge-2", "model-2") == toy.Toy.judges[1]
    other = choose_profile(benchmark, "judge-2", "local/tiny")
    assert (other.name, other.model, other.order) == ("local/tiny~judge-2", "local/tiny", "images-first")
    new = choose_profile(benchmark, "gpt-9", None)
    assert (new.name, new.model, new.temperature) == ("gpt-9", "gpt-9", 0.0)


def test_a_scorer_says_what_it_lacks(toy: Any) -> None:
    options = {"openai": "--url", "process": "--command", "geneval-hf": "--detector.*--clip"}
    for kind, option in options.items():
        with pytest.raises(InputError, match=option):
            build_scorer(toy.Toy(), replace(toy.Toy.judges[0], kind=kind), ScorerOptions())
    with pytest.raises(InputError, match="no scorer of kind 'oracle'"):
        build_scorer(toy.Toy(), replace(toy.Toy.judges[0], kind="oracle"), ScorerOptions())
