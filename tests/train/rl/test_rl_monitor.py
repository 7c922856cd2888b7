"""Warnings of a run that collapses, from series of records."""

import itertools

import pytest

from deepgen.train.rl.monitor import CollapseConfig, CollapseMonitor


def watch(records, sign=1, monitor=None, clip=1e-4):
    monitor = monitor or CollapseMonitor(CollapseConfig(window=5), sign)
    return [monitor.look(i, record, clip) for i, record in enumerate(records)], monitor


def series(count=20, reward=0.0, held_out=0.0, diversity=0.0, **more):
    """Records whose values change by so much a rollout, with a little noise."""
    return [
        {
            "reward/mean": 0.5 + reward * i + 0.001 * (i % 2),
            "held_out/judge": 0.5 + held_out * i + 0.001 * (i % 3),
            "diversity": 0.1 + diversity * i,
        }
        | more
        for i in range(count)
    ]


def said(found):
    return [text for row in found for text in row]


def test_nothing_is_said_of_a_run_that_goes_well():
    assert said(watch(series(reward=0.01, held_out=0.005))[0]) == []


@pytest.mark.parametrize("sign", [1, -1])
def test_a_reward_that_rises_while_the_held_out_one_falls_is_said(sign):
    found = said(watch(series(reward=0.01 * sign, held_out=-0.01 * sign), sign)[0])
    assert found and all("cheated" in text and "held_out/judge" in text for text in found)


def test_groups_that_become_alike_are_said():
    assert "differ" in said(watch(series(diversity=-0.0045))[0])[0]


@pytest.mark.parametrize(("name", "most"), [("log_ratio/absolute", 1e-4), ("log_ratio/after", 5e-4)])
def test_ratios_beyond_their_range_are_said_at_once(name, most):
    found, _ = watch(series(count=3, **{name: 1.1 * most}))
    assert len(found[0]) == 1 and "learning_rate" in found[0][0] and found[1] == []
    assert said(watch(series(count=3, **{name: 0.9 * most}))[0]) == []


def test_a_warning_comes_once_in_a_window_and_memory_survives_a_restart():
    records = series(30, reward=0.01, held_out=-0.01)
    whole, _ = watch(records)
    first, monitor = watch(records[:13])
    again = CollapseMonitor(CollapseConfig(window=5))
    again.load_state_dict(monitor.state_dict())
    rest = [again.look(13 + i, record, 1e-4) for i, record in enumerate(records[13:])]
    assert first + rest == whole
    places = [i for i, row in enumerate(whole) if row]
    assert len(places) > 1 and all(b - a >= 5 for a, b in itertools.pairwise(places))
