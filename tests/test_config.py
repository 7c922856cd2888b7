"""Configurations: what is read, what is refused and how the refusal reads."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from deepgen.config import Config, apply_override, dump_config, load_config
from deepgen.errors import ConfigError


class Optimizer(Config):
    lr: float = 1e-4
    betas: tuple[float, ...] = (0.9, 0.95)
    name: str | None = None


class Run(Config):
    steps: int
    optimizer: Optimizer = Optimizer()


def test_a_file_is_read_and_overridden(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("steps: 10\noptimizer:\n  lr: 5e-5\n  betas: [0.9, 0.95]\n")
    run = load_config(Run, path, ["steps=20", "optimizer.betas.1=0.99", "optimizer.name=adam"])
    assert run == Run(steps=20, optimizer=Optimizer(lr=5e-5, betas=(0.9, 0.99), name="adam"))


def test_an_exponent_without_a_dot_is_a_number():
    assert load_config(Run, {"steps": 1}, ["optimizer.lr=5e-5"]).optimizer.lr == 5e-5
    data: dict[str, Any] = {}
    apply_override(data, "a.b=-3E+2")
    assert data == {"a": {"b": -300.0}}


def test_an_unknown_key_is_named_with_its_path_and_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"optimizer\.lrr: unknown key, did you mean 'lr'\?"):
        load_config(Run, {"steps": 1}, ["optimizer.lrr=1"])


def test_a_missing_and_a_wrong_value_are_named_in_one_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("optimizer:\n  lr: fast\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Run, path)
    message = str(caught.value)
    assert "bad.yaml" in message and "steps: must be given" in message
    assert "optimizer.lr" in message and "'fast'" in message and "\n" not in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("steps", "key.sub=value"),
        ("optimizer..lr=1", "key.sub=value"),
        ("steps.x=1", "steps is a single value"),
        ("optimizer.betas.7=1", "has 2 items"),
        ("steps=[1", "not valid YAML"),
    ],
)
def test_a_malformed_override_says_what_is_wrong(override, words):
    with pytest.raises(ConfigError, match=words):
        load_config(Run, {"steps": 1, "optimizer": {"betas": [0.9, 0.95]}}, [override])


def test_broken_yaml_a_repeated_key_and_a_list_are_refused(tmp_path):
    for text, words in [
        ("a: [1", "not valid YAML"),
        ("steps: 1\nsteps: 2", "given twice"),
        ("- 1", "top level"),
    ]:
        path = tmp_path / "x.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_config(Run, path)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ConfigError, match=r"no configuration 'train/nonesuch'.*packaged"):
        load_config(Run, "train/nonesuch")


def test_overriding_does_not_change_the_mapping_it_came_from():
    data = {"steps": 1, "optimizer": {"lr": 1.0}}
    load_config(Run, data, ["optimizer.lr=2"])
    assert data["optimizer"] == {"lr": 1.0}


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(1e-9, 1e3),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
    st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12),
)
def test_a_dump_loads_back_to_an_equal_configuration(steps, lr, betas, name):
    run = Run(steps=steps, optimizer=Optimizer(lr=lr, betas=tuple(betas), name=name))
    overrides = [f"{key}={value}" for key, value in [("steps", steps), ("optimizer.lr", lr)]]
    assert load_config(Run, yaml.safe_load(dump_config(run))) == run
    assert load_config(Run, {"steps": 0}, overrides).optimizer.lr == lr
