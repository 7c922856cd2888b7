"""`deepgen reward check` and `serve`: what they say of rewards that work, and of those that do not."""

import json
import urllib.request

import pytest
import typer

from deepgen.cli import reward as cli
from deepgen.errors import ConfigError, InputError
from deepgen.pipeline.shipped import weights_root
from deepgen.rewards import RewardUnavailable, Score, world_detector
from deepgen.rewards.edit_region import EditRegion
from deepgen.rewards.golden import check_reward, golden_inputs
from deepgen.rewards.simple import JpegSize, MeanBrightness
from deepgen.rewards.world_detector import WorldDetector


@pytest.fixture
def config(tmp_path):
    """A configuration file with these rewards, beside what else a run has."""

    def write(*entries):
        path = tmp_path / "run.yaml"
        path.write_text(f"stage: rl\nmodel: {{init_from: x}}\nrewards: {list(entries)!r}\n")
        return str(path)

    return write


def test_golden_pictures_are_two_pictures_and_two_edits_of_one_source():
    right, wrong, right_edit, wrong_edit = golden_inputs()
    assert right.prompt == wrong.prompt and not right.references and len(right_edit.references) == 1
    assert (right_edit.picture == right_edit.target).all() and not (wrong_edit.picture == right.picture).all()
    assert len({one.picture.shape for one in golden_inputs()}) == 1


def test_a_reward_that_prefers_the_wrong_picture_or_has_no_value_fails(kit):
    assert check_reward(EditRegion()).passed
    assert "does not prefer" in check_reward(JpegSize()).problem
    assert check_reward(JpegSize(), ordered=False).passed
    nothing = kit.Scripted(lambda batch: [Score(None, "blind")] * len(batch))
    assert "blind" in check_reward(nothing).problem
    half = kit.Scripted(lambda batch: [*[Score.of(0.1)] * 3, Score.failure("out of memory")])
    assert check_reward(half).problem == "out of memory"

    def away(_):
        raise RewardUnavailable("nobody there")

    assert check_reward(kit.Scripted(away)).problem == "nobody there"


def test_golden_edits_show_whether_a_detector_judges_edits(monkeypatch):
    detector = WorldDetector("d")
    found = check_reward(detector)
    assert found.passed and found.scores[2].value > 0.95 > 0.1 > found.scores[3].value
    monkeypatch.setattr(world_detector, "edit_value", lambda *_: 0.5)
    assert "does not prefer" in check_reward(detector).problem


def test_a_service_says_when_it_is_the_evaluations_own_judge(capsys, tmp_path):
    for name in ("world-preference", "world_detector"):
        cli._routes(name, [], "cpu")
        assert "by which the evaluation judges" in capsys.readouterr().err
    folder = weights_root() / "detector"
    cli._routes("world-preference", [f"path={folder}"], "cpu")
    assert capsys.readouterr().err == ""


def test_check_prints_a_line_each_and_fails_where_one_does(config, capsys, tmp_path):
    path = config({"kind": "mean_brightness"}, {"kind": "edit_region", "weight": 0.5})
    with open(path, "a") as file:
        file.write("held_out: [{kind: jpeg_size, name: watcher}]\n")
    cli.check(path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["mean_brightness", "edit_region", "watcher"]
    assert "ok" in lines[0] and "right none" in lines[1]
    broken = {"kind": "world_text", "path": str(tmp_path)}
    with pytest.raises(typer.Exit) as caught:
        cli.check(config(broken, {"kind": "mean_brightness"}))
    assert caught.value.exit_code == 1
    assert "world_text: FAILED: no Reader in" in capsys.readouterr().out


def test_check_takes_overrides_and_names_what_is_wrong_in_a_file(config, tmp_path, capsys):
    cli.check(config({"kind": "jpeg_size"}), ["rewards.0.name=size"])
    assert capsys.readouterr().out.startswith("size: ok")
    (tmp_path / "none.yaml").write_text("stage: rl\n")
    with pytest.raises(ConfigError, match="names no `rewards`"):
        cli.check(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="qualit"):
        cli.check(config({"kind": "jpeg_size", "qualit": 3}))


def test_serve_knows_every_kind_and_refuses_what_it_does_not(kit):
    routes = cli._routes("mean_brightness", ["name=bright"], "cpu")
    with kit.serving(routes) as url, urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
        assert json.loads(reply.read()) == {"name": "bright", "kind": MeanBrightness.kind}
    with pytest.raises(ConfigError, match="nothing"):
        cli._routes("nothing", [], "cpu")
    with pytest.raises(ConfigError, match="tie_shar"):
        cli._routes("world-preference", ["tie_shar=1"], "cpu")
    with pytest.raises(InputError, match="token"):
        cli.serve("mean_brightness", host="0.0.0.0", settings=None, port=0, token_env=None, device="cpu")
