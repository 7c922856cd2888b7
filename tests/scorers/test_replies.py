"""Keys of replies follow content, and the cache holds what it was given."""

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deepgen.errors import DataError
from deepgen.scorers.calls import ImageEncoding, JudgeCall, JudgeImage, JudgeProfile
from deepgen.scorers.endpoint import retry_after
from deepgen.scorers.replies import Reply, ReplyCache, call_key

PROFILE = JudgeProfile("judge", "model", max_tokens=(8, 16))


def picture(path: Path, colour: str = "red") -> Path:
    Image.new("RGB", (4, 4), colour).save(path)
    return path


def test_the_key_is_of_content_not_of_names(tmp_path: Path) -> None:
    one, same = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    key = call_key(JudgeCall("q", "text", (JudgeImage(one),)), PROFILE, 0)
    assert key == call_key(JudgeCall("other", "text", (JudgeImage(same),)), PROFILE, 0)
    parsed_otherwise = replace(PROFILE, thinking="cut")
    assert key == call_key(JudgeCall("q", "text", (JudgeImage(one),)), parsed_otherwise, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other"},
        {"name": "other weights that the server calls the same"},
        {"order": "images-first"},
        {"temperature": 0.0},
        {"extra": {"seed": 1}},
        {"image": ImageEncoding("jpeg")},
        {"max_tokens": (9,)},
    ],
)
def test_whatever_can_change_a_reply_changes_the_key(tmp_path: Path, changes: dict[str, Any]) -> None:
    call = JudgeCall("q", "text", (JudgeImage(picture(tmp_path / "a.png")),))
    assert call_key(call, PROFILE, 0) != call_key(call, replace(PROFILE, **changes), 0)


def test_words_pictures_crops_and_attempts_change_the_key(tmp_path: Path) -> None:
    red, blue = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", "blue")
    call = JudgeCall("q", "text", (JudgeImage(red),))
    others = [
        replace(call, text="Text"),
        replace(call, system="s"),
        replace(call, data={"a": 1}),
        replace(call, images=(JudgeImage(blue),)),
        replace(call, images=(JudgeImage(red, crop=(0, 0, 2, 2)),)),
        replace(call, images=(JudgeImage(red, like=blue),)),
    ]
    keys = {call_key(one, PROFILE, 0) for one in [call, *others]} | {call_key(call, PROFILE, 1)}
    assert len(keys) == 8


def test_a_picture_that_changed_on_disk_has_another_key(tmp_path: Path) -> None:
    call = JudgeCall("q", "text", (JudgeImage(picture(tmp_path / "a.png")),))
    before = call_key(call, PROFILE, 0)
    Image.new("RGB", (5, 4), "blue").save(tmp_path / "a.png")
    assert call_key(call, PROFILE, 0) != before
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png"):
        call_key(call, PROFILE, 0)


def test_replies_survive_closing_and_the_first_one_stays(tmp_path: Path) -> None:
    call = JudgeCall("q", "héllo 词")
    first = Reply("ok", "答え", "m", {"prompt_tokens": 3}, 0.5)
    cache = ReplyCache(tmp_path / "c.sqlite")
    cache.put("k", first, PROFILE, call)
    cache.put("k", Reply("ok", "second"), PROFILE, call)
    cache.close()
    again = ReplyCache(tmp_path / "c.sqlite")
    assert again.get("k") == first and again.get("l") is None and len(again) == 1
    assert again.models("judge") == ["m"] and again.models("other") == []


def test_two_processes_may_write_one_cache(tmp_path: Path) -> None:
    one, two = ReplyCache(tmp_path / "c.sqlite"), ReplyCache(tmp_path / "c.sqlite")
    one.put("a", Reply("ok", "1"), PROFILE, JudgeCall("q", ""))
    two.put("b", Reply("refused", "2"), PROFILE, JudgeCall("q", ""))
    assert len(one) == len(two) == 2


def test_a_file_that_is_no_cache_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_text("something else entirely")
    with pytest.raises(DataError, match="not a cache of replies"):
        ReplyCache(tmp_path / "c.sqlite")
    assert (tmp_path / "c.sqlite").read_text() == "something else entirely"
    assert sqlite3.sqlite_version_info >= (3, 9), "json_extract"


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after("7") == 7.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after(None) is None and retry_after("soon") is None
