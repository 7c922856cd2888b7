"""From pictures to answers: every call of a benchmark put to a judge, and what became of it read from the cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deepgen.errors import DataError
from deepgen.evaluation.benchmark import Answer, Benchmark, Item, ParseError, Status
from deepgen.evaluation.files import file_name, write_json
from deepgen.evaluation.runner import Progress, find_picture
from deepgen.evaluation.sources import read_json
from deepgen.scorers.calls import ImageEncoding, JudgeCall, JudgeProfile, Mode
from deepgen.scorers.judge import Estimate, Question, Scorer, ask_all, estimate, without_thinking
from deepgen.scorers.replies import Reply, ReplyCache, call_key

CACHE_FILE = "replies.sqlite"
NO_FILE = Path("no-picture")


@dataclass(frozen=True)
class Run:
    """The part of a run's folder that is judged and scored. warnings: about its data, for the report."""

    benchmark: Benchmark
    items: Sequence[Item]
    samples: int
    folder: Path
    warnings: Sequence[str] = ()

    def cache(self) -> ReplyCache:
        """The run's raw replies."""
        return ReplyCache(self.folder / CACHE_FILE)


def questions(run: Run, profile: JudgeProfile, mode: Mode) -> list[Question]:
    """Every call about every picture that is there."""
    found = []
    for item in run.items:
        for sample in range(run.samples):
            picture = find_picture(run.folder, item, sample)
            if picture is not None:
                calls = run.benchmark.calls(item, sample, picture, profile)
                found += [Question(call, _usable(run.benchmark, item, call, profile, mode)) for call in calls]
    return found


def _usable(
    benchmark: Benchmark, item: Item, call: JudgeCall, profile: JudgeProfile, mode: Mode
) -> Callable[[Reply], bool]:
    def usable(reply: Reply) -> bool:
        try:
            benchmark.parse(item, call, without_thinking(reply, profile), mode)
        except ParseError:
            return False
        return True

    return usable


def estimate_run(run: Run, profile: JudgeProfile, mode: Mode) -> Estimate:
    """What judging would take; nothing is asked."""
    calls = [question.call for question in questions(run, profile, mode)]
    cache = run.cache()
    try:
        return estimate(calls, profile, cache)
    finally:
        cache.close()


def judge_run(run: Run, scorer: Scorer, mode: Mode, progress: Progress) -> int:
    """Put every open call to the judge; returns how many stay without an answer.

    Raises JudgeError where the judge cannot be used; answers that came are kept, and the next run goes on.
    """
    profile = scorer.profile
    write_json(profile_path(run.folder, profile.name), asdict(profile))
    cache = run.cache()
    try:
        return ask_all(
            questions(run, profile, mode),
            scorer,
            cache,
            run.benchmark.attempts,
            lambda done, total: progress(f"judge {profile.name}", done, total),
        )
    finally:
        cache.close()


def profile_path(folder: Path, judge: str) -> Path:
    """Where a run notes the manner in which a judge was asked."""
    return folder / "judges" / f"{file_name(judge)}.json"


def read_profile(folder: Path, judge: str) -> JudgeProfile:
    """Of a judge that a run was put to. Raises DataError where it was not."""
    path = profile_path(folder, judge)
    if not path.is_file():
        known = ", ".join(judges_of(folder)) or "none"
        raise DataError(f"{folder} was not judged by {judge!r} (judges: {known}); run `deepgen bench judge`")
    data: dict[str, Any] = read_json(path)
    profile = JudgeProfile(**{**data, "image": ImageEncoding(**data["image"])})
    return replace(profile, max_tokens=tuple(profile.max_tokens))


def judges_of(folder: Path) -> list[str]:
    """Names of the judges that a run was put to."""
    return sorted(read_json(path)["name"] for path in (folder / "judges").glob("*.json"))


def answers(
    run: Run, item: Item, sample: int, profile: JudgeProfile, mode: Mode, cache: ReplyCache
) -> dict[str, Answer]:
    """What became of each call about one picture; nothing is asked."""
    picture = find_picture(run.folder, item, sample)
    calls = run.benchmark.calls(item, sample, picture or NO_FILE, profile)
    if picture is None:
        return {call.id: Answer(Status.NO_PICTURE) for call in calls}
    return {call.id: _answer(run.benchmark, item, call, profile, mode, cache) for call in calls}


def _answer(
    benchmark: Benchmark, item: Item, call: JudgeCall, profile: JudgeProfile, mode: Mode, cache: ReplyCache
) -> Answer:
    last = None
    for attempt in range(benchmark.attempts):
        key = call_key(call, profile, attempt)
        reply = cache.get(key)
        if reply is None:
            failure = cache.failure(key)
            if failure is not None:
                return Answer(Status.FAILED, text=failure)
            return Answer(Status.NOT_ASKED, text="" if last is None else last.text)
        if reply.status == "refused":
            return Answer(Status.REFUSED, text=reply.text)
        last = reply
        try:
            value = benchmark.parse(item, call, without_thinking(reply, profile), mode)
        except ParseError:
            continue
        return Answer(Status.OK, value, reply.text)
    return Answer(Status.PARSE_FAILED, text="" if last is None else last.text)


def worst(statuses: Mapping[str, Answer]) -> Status:
    """Of the answers about one picture; OK where there are none."""
    order = list(Status)
    return max((answer.status for answer in statuses.values()), key=order.index, default=Status.OK)
