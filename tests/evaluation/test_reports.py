"""Reports say whose numbers they are, keep others' numbers apart, and are whole files."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepgen.errors import InputError
from deepgen.evaluation.compare import Side, compare, text_comparison, write_comparison
from deepgen.evaluation.html import fair_share, worst_first, write_page
from deepgen.evaluation.report import (
    NOT_REPRODUCED,
    RANKED,
    UNRANKED,
    markdown_report,
    markdown_table,
    number,
    published_rows,
    shown_pictures,
    text_report,
    write_reports,
)
from deepgen.evaluation.scoring import Scored, goodness, score_run, summarise
from deepgen.evaluation.sheet import Panel, draw_sheet


@pytest.fixture
def ran(judge_server: Any, harness: Any, toy: Any, tmp_path: Path) -> Any:
    """A finished run in which cats are right and dogs are wrong, at a resolution of 64."""
    judge_server.reply = lambda request: "yes" if "cats" in request.text else "no"
    client = harness.client(judge_server.url, toy.Toy.judges[0])
    done = harness.run_benchmark(toy.Toy(), toy.write_data(tmp_path / "data"), tmp_path / "run", client)
    done.results = replace(done.results, run=done.results.run | {"model": "ours", "resolution": 64})
    return done


def side(ran: Any, results: Any = None) -> Side:
    scored = score_run(ran.run, ran.profile, "strict")
    return Side(results or ran.results, scored, shown_pictures(ran.run, scored.records))


def test_published_rows_rank_only_where_judge_and_resolution_are_ours(ran: Any) -> None:
    same, other = published_rows(ran.run.benchmark, ran.results)
    assert [row[0] for row in same] == ["model", "ours", "Alike"]
    assert [row[0] for row in other[1:4]] == ["Other judge", "Other size", "DeepGen RL"]
    assert other[4][:2] == ("DeepGen's weights, by this program", NOT_REPRODUCED)
    assert "not stated" in other[3]


@pytest.mark.parametrize("change", ["judge", "resolution", "coverage"])
def test_a_run_of_another_kind_ranks_with_nobody(ran: Any, change: str) -> None:
    results = {
        "judge": replace(ran.results, judge="judge-2"),
        "resolution": replace(ran.results, run=ran.results.run | {"resolution": 128}),
        "coverage": replace(ran.results, coverage=replace(ran.results.coverage, counted=4)),
    }[change]
    same, other = published_rows(ran.run.benchmark, results)
    assert same == [] and len(other) == 6


def test_our_own_reproduction_takes_the_place_of_the_excuse(ran: Any, toy: Any) -> None:
    benchmark = toy.Toy()
    benchmark.reproduced = {"right": 0.5}
    _, other = published_rows(benchmark, ran.results)
    assert not any(NOT_REPRODUCED in row for row in other)


def test_the_terminal_and_markdown_tell_name_coverage_and_interval(ran: Any) -> None:
    for text in (
        text_report(ran.run.benchmark, ran.results),
        markdown_report(ran.run.benchmark, ran.results),
    ):
        assert "toy/right[judge-1,strict]" in text and "coverage 5/5 pictures" in text
        assert "1.000 [1.000, 1.000]" in text and "0.500" in text
        assert text.lower().index(RANKED) < text.lower().index(UNRANKED)
    withheld = replace(ran.results, overall=None, warnings=["data changed"])
    assert "no overall number without full coverage" in text_report(ran.run.benchmark, withheld)
    assert "warning: data changed" in text_report(ran.run.benchmark, withheld)


def test_a_markdown_table_survives_bars_in_its_cells() -> None:
    text = markdown_table([("a", "b"), ("x|y", "1")])
    assert text.splitlines() == ["| a    | b |", "|------|---|", "| x\\|y | 1 |"]
    assert number(float("nan")) == "?" and (number(74.18), number(0.7318)) == ("74.2", "0.732")


def test_the_page_is_one_file_with_its_pictures_and_the_judges_words(ran: Any, tmp_path: Path) -> None:
    one = side(ran)
    path = write_page(tmp_path / "page", ran.run.benchmark, ran.results, one.shown, one.scored.why)
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.count("data:image/jpeg;base64,") == 2
    assert not re.search(r'(src|href)="https?:', page), "nothing from elsewhere"
    assert "第1只" in page and "right: no" in page and "cats/0" not in page, (
        "only failures, with the judge's words"
    )
    links = re.findall(r'href="([^"]+)"', page)
    assert all((path.parent / link.replace("%25", "%")).resolve().is_file() for link in links) and links


def test_text_of_judges_and_prompts_cannot_become_markup(ran: Any, tmp_path: Path) -> None:
    one = side(ran)
    why = {key: "<script>alert(1)</script>" for key in one.scored.why}
    page = write_page(tmp_path, ran.run.benchmark, ran.results, one.shown, why).read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page


def test_the_gallery_shows_the_worst_of_every_group(ran: Any) -> None:
    shown = side(ran).shown
    values = [0.2, 0.1, None, 0.0, 0.9]
    graded = [replace(one, goodness=value) for one, value in zip(shown, values, strict=True)]
    assert [one.goodness for one in worst_first(graded)] == [0.0, 0.1, 0.2, 0.9, None]
    chosen = fair_share(worst_first(graded), 3)
    assert [one.record.item for one in chosen] == ["dogs/0", "cats/1", "dogs/1"]


def test_a_pictures_own_score_is_on_its_metrics_scale(ran: Any) -> None:
    record = ran.records[0]
    assert goodness(record, {}) == 1.0 and goodness(record, {"right": (1.0, 5.0)}) == 0.0
    assert goodness(replace(record, units=()), {}) is None


def test_tables_and_sheets_are_written_beside_the_scores(ran: Any) -> None:
    one = side(ran)
    write_reports(ran.run, ran.results, one.shown, one.scored.why)
    folder = ran.run.folder / "scores" / "judge-1.strict"
    assert {path.name for path in (folder / "sheets").iterdir()} == {"cats.png", "dogs.png"}
    assert "toy/right" in (folder / "results.md").read_text(encoding="utf-8")
    with Image.open(folder / "overview.png") as overview, Image.open(folder / "sheets" / "cats.png") as cats:
        assert overview.height == cats.height  # two panels: the first of each group


def test_panels_of_a_sheet_flow_like_words_and_none_leaves_its_edge(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200), "blue").save(tmp_path / "p.png")
    for many in ((1, 3, 1, 2, 1), (8,), (1,)):
        panels = [Panel((tmp_path / "p.png",) * n, "p", True, ()) for n in many]
        draw_sheet(panels, tmp_path / "sheet.png", columns=4)
        with Image.open(tmp_path / "sheet.png") as sheet:
            pixels = np.asarray(sheet)
        shown = (pixels == (0, 0, 255)).all(-1).sum()
        assert shown == 152 * 152 * sum(many)


def test_a_sheet_marks_right_green_and_wrong_red(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "p.png")
    for right, colour in ((True, (30, 150, 60)), (False, (210, 40, 40))):
        panel = Panel((tmp_path / "p.png",) * 2, "a very long prompt 狗 " * 9, right, ("no dog",))
        draw_sheet([panel] * 5, tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.getpixel((10, 10)) == colour


@pytest.fixture
def other(ran: Any) -> Side:
    """Another run on the same pictures: one cat is lost, both dogs are won."""
    one = side(ran)
    verdicts = [1.0, 0.0, 1.0, 1.0, 1.0]
    records = [
        replace(r, units=(replace(r.units[0], value=v),))
        for r, v in zip(one.scored.records, verdicts, strict=True)
    ]
    results = summarise(ran.run, records, ran.profile, "strict", False, resamples=20)
    results = replace(results, run=ran.results.run | {"model": "theirs"})
    return Side(results, Scored(records, one.scored.why), shown_pictures(ran.run, records))


def test_two_runs_are_paired_and_tested(ran: Any, other: Side, tmp_path: Path) -> None:
    benchmark, mine = ran.run.benchmark, side(ran)
    found = compare(benchmark, mine, other, 200)
    assert found.shared == 5 and found.binary is not None
    assert (found.binary.only_a, found.binary.only_b, found.binary.p) == (1, 2, 1.0)
    assert found.differences["", "right"].value == pytest.approx(5 / 6 - 0.5)
    text = text_comparison(benchmark, mine, other, found)
    assert "A ours, B theirs" in text and "+0.333" in text and "McNemar's exact p = 1.0000" in text
    page = write_comparison(tmp_path / "cmp", benchmark, mine, other, found).read_text(encoding="utf-8")
    assert page.count('class="card') == 3 and "-1.00 · cats · cats/1 · 0" in page
    assert (tmp_path / "cmp" / "comparison.json").is_file()


def test_runs_whose_numbers_mean_different_things_are_not_compared(ran: Any, other: Side) -> None:
    changes = {
        "judge": {"judge": "judge-2"},
        "scoring": {"mode": "official"},
        "parser": {"parser_version": 2},
        "benchmark": {"benchmark": "toy-2"},
        "data": {"run": {"data_sha256": {"items.jsonl": "0"}}},
    }
    for kind, change in changes.items():
        wrong = replace(other, results=replace(other.results, **change))
        with pytest.raises(InputError, match=f"differ in {kind}"):
            compare(ran.run.benchmark, side(ran), wrong, 20)


def test_several_pictures_an_item_are_no_independent_pairs(ran: Any, other: Side) -> None:
    def twice(one: Side) -> Side:
        records = [replace(r, sample=s) for r in one.scored.records for s in (0, 1)]
        return replace(one, scored=Scored(records, {}))

    assert compare(ran.run.benchmark, twice(side(ran)), twice(other), 20).binary is None
