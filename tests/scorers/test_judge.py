"""The judge client against a real server that fails in every way a server fails."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepgen.errors import JudgeError
from deepgen.scorers.calls import JudgeCall, JudgeProfile
from deepgen.scorers.endpoint import Endpoint
from deepgen.scorers.judge import JudgeClient, Patience, Question, ask_all, estimate, without_thinking
from deepgen.scorers.replies import Reply, ReplyCache, call_key

PROFILE = JudgeProfile("j", "model-1", temperature=0.0, max_tokens=(16, 64))
QUICK = Patience(seconds=5.0, first=0.01, longest=0.05)


def client(
    server: Any, patience: Patience = QUICK, timeout: float = 2.0, concurrency: int = 4
) -> JudgeClient:
    return JudgeClient(PROFILE, Endpoint(server.url, "secret", timeout), concurrency, patience)


def questions(count: int, usable: Callable[[Reply], bool] = lambda reply: True) -> list[Question]:
    return [Question(JudgeCall("q", f"question {n}."), usable) for n in range(count)]


def ask(server: Any, cache: ReplyCache, asked: list[Question], attempts: int = 1, **options: Any) -> int:
    return ask_all(asked, client(server, **options), cache, attempts, lambda done, total: None)


@pytest.fixture
def cache(tmp_path: Path) -> ReplyCache:
    return ReplyCache(tmp_path / "replies.sqlite")


def reply_of(cache: ReplyCache, question: Question, attempt: int = 0) -> Reply | None:
    return cache.get(call_key(question.call, PROFILE, attempt))


def test_a_request_says_what_the_profile_says(judge_server: Any, cache: ReplyCache) -> None:
    assert ask(judge_server, cache, questions(1)) == 0
    (request,) = judge_server.requests
    told = {name: request.body[name] for name in ("model", "temperature", "max_tokens")}
    assert told == {"model": "model-1", "temperature": 0.0, "max_tokens": 16}
    assert request.headers["Authorization"] == "Bearer secret"
    kept = reply_of(cache, questions(1)[0])
    assert kept is not None and (kept.status, kept.text, kept.model) == ("ok", "yes", "served-model")
    assert kept.usage == {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


def test_every_passing_failure_is_tried_again(judge_server: Any, replies: Any, cache: ReplyCache) -> None:
    failures = [
        replies.Status(429),
        replies.Status(503),
        replies.Half(),
        replies.Garbage(),
        replies.Dropped(),
    ]
    judge_server.script = [*failures, replies.Garbage('{"choices": []}'), "late"]
    assert ask(judge_server, cache, questions(1)) == 0
    kept = reply_of(cache, questions(1)[0])
    assert kept is not None and kept.text == "late" and len(judge_server.requests) == 7


def test_a_call_that_takes_too_long_is_tried_again(
    judge_server: Any, replies: Any, cache: ReplyCache
) -> None:
    judge_server.script = [replies.Slow(1.5, "too late"), "in time"]
    assert ask(judge_server, cache, questions(1), timeout=0.3) == 0
    kept = reply_of(cache, questions(1)[0])
    assert kept is not None and kept.text == "in time"


def test_retry_after_is_obeyed(judge_server: Any, replies: Any, cache: ReplyCache) -> None:
    judge_server.script = [replies.Status(429, headers={"Retry-After": "0.4"})]
    started = time.monotonic()
    ask(judge_server, cache, questions(1))
    assert 0.4 <= time.monotonic() - started < 2


def test_refusals_and_filters_are_kept_and_are_no_failures(
    judge_server: Any, replies: Any, cache: ReplyCache
) -> None:
    filtered = replies.Status(400, "The response was filtered", kind="content_filter")
    for reply in (replies.Refusal("I can't."), replies.Filtered(), filtered):
        judge_server.script = [reply]
        asked = [Question(JudgeCall("q", repr(reply)), lambda text: False)]
        assert ask(judge_server, cache, asked, attempts=3) == 0
        kept = reply_of(cache, asked[0])
        assert kept is not None and kept.status == "refused"
    assert len(judge_server.requests) == 3, "a refusal is asked once"


def test_a_rejected_call_fails_alone_and_is_asked_anew_next_time(
    judge_server: Any, replies: Any, cache: ReplyCache
) -> None:
    judge_server.reply = lambda r: replies.Status(400, "too big") if "1." in r.text else "yes"
    assert ask(judge_server, cache, questions(3)) == 1
    key = call_key(questions(3)[1].call, PROFILE, 0)
    assert cache.get(key) is None and cache.failure(key) == (
        'HTTP 400: {"error": {"message": "too big", "code": "error", "type": "error"}}'
    )
    judge_server.reply = "now"
    assert ask(judge_server, cache, questions(3)) == 0
    assert len(judge_server.requests) == 4


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_wrong_key_or_model_ends_the_run_at_once(
    judge_server: Any, replies: Any, cache: ReplyCache, code: int
) -> None:
    judge_server.reply = replies.Status(code, "no such model")
    with pytest.raises(JudgeError, match=f"HTTP {code}.*no such model"):
        ask(judge_server, cache, questions(50))
    assert len(judge_server.requests) <= 8


def test_a_judge_that_rejects_everything_is_not_asked_everything(
    judge_server: Any, replies: Any, cache: ReplyCache
) -> None:
    judge_server.reply = replies.Status(400, "unknown parameter")
    with pytest.raises(JudgeError, match=r"20 calls in a row failed.*unknown parameter"):
        ask(judge_server, cache, questions(100))
    assert len(judge_server.requests) < 30


def test_a_judge_that_is_gone_is_said_to_be_gone(judge_server: Any, cache: ReplyCache) -> None:
    judge_server.kill()
    with pytest.raises(JudgeError, match=r"has not answered for 0 s.*refused"):
        ask(judge_server, cache, questions(30), patience=Patience(0.3, 0.02, 0.05))


def test_a_server_killed_mid_run_loses_no_call_and_none_is_paid_twice(
    judge_server: Any, cache: ReplyCache
) -> None:
    def slowly(request: Any) -> str:
        time.sleep(0.01)
        return "yes"

    judge_server.reply = slowly
    asked = questions(60)

    def kill_and_restart() -> None:
        while len(judge_server.answered) < 15:
            time.sleep(0.002)
        judge_server.kill()
        time.sleep(0.2)
        judge_server.restart()

    thread = threading.Thread(target=kill_and_restart)
    thread.start()
    assert ask(judge_server, cache, asked) == 0
    thread.join()
    paid = Counter(request.text for request in judge_server.answered)
    assert paid == Counter(f"question {n}." for n in range(60))
    assert all(reply_of(cache, question) for question in asked)


def test_what_is_on_its_way_when_a_run_is_stopped_is_kept(judge_server: Any, cache: ReplyCache) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    asked = questions(40)
    with pytest.raises(KeyboardInterrupt):
        ask_all(asked, client(judge_server), cache, 1, stop)
    assert 5 <= len(judge_server.answered) == len(cache) < 40
    assert ask(judge_server, cache, asked) == 0
    assert len(judge_server.answered) == 40


def test_nothing_is_asked_twice_and_equal_calls_once(judge_server: Any, cache: ReplyCache) -> None:
    assert ask(judge_server, cache, questions(5) + questions(5)) == 0
    assert len(judge_server.requests) == 5
    assert ask(judge_server, cache, questions(5)) == 0
    assert len(judge_server.requests) == 5


def test_an_unusable_reply_is_asked_again_with_the_next_limit_of_tokens(
    judge_server: Any, cache: ReplyCache
) -> None:
    judge_server.script = ["what?", "what?", "yes"]
    asked = questions(1, usable=lambda reply: reply.text == "yes")
    ask(judge_server, cache, asked, attempts=2)
    assert [request.body["max_tokens"] for request in judge_server.requests] == [16, 64]
    ask(judge_server, cache, asked, attempts=3)
    assert [request.body["max_tokens"] for request in judge_server.requests] == [16, 64, 64]
    kept = reply_of(cache, asked[0], attempt=2)
    assert kept is not None and kept.text == "yes"


def test_the_estimate_counts_only_what_is_not_known(judge_server: Any, cache: ReplyCache) -> None:
    ask(judge_server, cache, questions(3))
    needed = estimate([q.call for q in questions(10)], PROFILE, cache)
    assert (needed.calls, needed.known, needed.new) == (10, 3, 7)
    assert needed.output_tokens == 7 * 16
    assert needed.cost(2.0, 8.0) == pytest.approx((needed.input_tokens * 2 + 7 * 16 * 8) / 1e6)


@pytest.mark.parametrize(
    ("thinking", "text", "truncated", "left"),
    [
        ("keep", "<think>no</think>yes", False, "<think>no</think>yes"),
        ("strip", "a <think>no</think> b <think>x</think>", False, "a  b"),
        ("strip", "</think> a <think> b", False, "</think> a <think> b"),
        ("cut", "hmm</think>\n\nyes", False, "yes"),
        ("cut", "hmm</think>\n\nyes, for", True, "yes, for"),
        ("cut", "still thinking, yes", True, ""),
        ("cut", "<think>yes, but", False, ""),
        ("cut", "yes", False, "yes"),
    ],
)
def test_thinking_is_removed_as_the_profile_says(
    thinking: Any, text: str, truncated: bool, left: str
) -> None:
    reply = Reply("ok", text, truncated=truncated)
    assert without_thinking(reply, JudgeProfile("j", thinking=thinking)) == left


def test_an_answer_that_ends_at_the_limit_of_tokens_says_so(
    judge_server: Any, replies: Any, cache: ReplyCache
) -> None:
    judge_server.script = [replies.Cut("so far"), "whole"]
    asked = questions(2)
    ask(judge_server, cache, asked, concurrency=1)
    kept = [reply_of(cache, question) for question in asked]
    assert [(reply.text, reply.truncated) for reply in kept if reply] == [("so far", True), ("whole", False)]
