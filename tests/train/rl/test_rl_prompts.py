"""Where prompts come from, and in which order."""

import json

import pytest
import yaml
from PIL import Image

from deepgen.config import load_config
from deepgen.errors import ConfigError, DataError
from deepgen.rewards import WeightedReward
from deepgen.rewards.simple import JpegSize
from deepgen.train.rl.groups import Group, open_sources, plan_rollout, size_of
from deepgen.train.rl.prompts import Prompts, PromptsConfig, weigh
from deepgen.train.rl.window import WindowConfig, choose_window
from deepgen.world.sampling import split_of


def prompts(**config):
    return Prompts(load_config(PromptsConfig, config))


def published(folder, names=("text", "general"), **more):
    """A mixture as the published training reads it."""
    for number, name in enumerate(names):
        (folder / f"{name}.txt").write_text("".join(f'{name} "{i}"\n' for i in range(4 + 4 * number)))
    sets = [
        {"name": n, "path": f"{n}.txt", "sample_weight": w, "rewards": [{"think": 0.2}, {"ocr": 0.7}]}
        for n, w in zip(names, (3.0, 1.0), strict=False)
    ]
    path = folder / "mixture.yaml"
    path.write_text(yaml.safe_dump({"sampling_mode": "sample_proportional", "datasets": sets} | more))
    return path


def share(found, family, count=1000):
    return sum(found.at(i).family == family for i in range(count)) / count


def test_a_published_mixture_is_read_as_it_is(tmp_path):
    found = prompts(published=published(tmp_path))
    assert found.at(0).text.endswith('"') and found.families == ["text", "general"]
    assert share(found, "text") == pytest.approx(3 * 4 / (3 * 4 + 8), abs=0.01)
    assert found.weights == {name: {"text": w, "general": w} for name, w in (("think", 0.2), ("ocr", 0.7))}
    by_set = prompts(published=published(tmp_path, sampling_mode="weight_only"))
    assert share(by_set, "text") == pytest.approx(0.75, abs=0.01)


def test_a_published_mixture_weighs_the_rewards_of_the_run(tmp_path):
    found = prompts(published=published(tmp_path))
    rewards = [WeightedReward(JpegSize(name)) for name in ("think", "ocr", "other")]
    weighed = weigh(rewards, found)
    assert [one.weight_for("text") for one in weighed] == [0.2, 0.7, 0.0]
    with pytest.raises(ConfigError, match="ocr"):
        weigh(rewards[:1], found)


def test_families_without_a_reward_and_weights_of_unknown_families_are_refused():
    found = prompts(sets=[{"name": name, "format": "world"} for name in ("one", "two")])
    for families, wrong in (({"one": 1.0}, "two"), ({"one": 1.0, "two": 1.0, "three": 1.0}, "three")):
        with pytest.raises(ConfigError, match=wrong):
            weigh([WeightedReward(JpegSize(), families=families)], found)


def test_prompts_of_a_benchmark_are_left_out_unless_allowed(tmp_path, caplog):
    path = published(tmp_path, ("corebench", "general"))
    assert prompts(published=path).families == ["general"]
    assert "corebench" in caplog.text
    assert prompts(published=path, allow_contaminated=True).families == ["corebench", "general"]
    only = [{"name": "mine", "format": "prompts", "path": str(tmp_path / "corebench.txt")}]
    with pytest.raises(ConfigError, match="no set is left"):
        prompts(sets=only)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".json", ".yaml"])
def test_prompt_files_of_every_kind(tmp_path, suffix):
    rows = ["a cat", {"caption": "a dog"}, {"instruction": "make it blue", "references": "a.png", "level": 3}]
    texts = {
        ".txt": "a cat\n\na dog\nmake it blue\n",
        ".jsonl": "\n".join(json.dumps(row) for row in rows),
        ".json": json.dumps(rows),
        ".yaml": yaml.safe_dump(rows),
    }
    path = tmp_path / f"prompts{suffix}"
    path.write_text(texts[suffix])
    found = prompts(sets=[{"name": "mine", "format": "prompts", "path": str(path)}])
    drawn = {found.at(i).text: found.at(i) for i in range(3)}
    assert set(drawn) == {"a cat", "a dog", "make it blue"}
    if suffix != ".txt":
        edit = drawn["make it blue"]
        assert [p.name for p in edit.references] == [str(tmp_path / "a.png")] and edit.metadata == {
            "level": 3
        }


@pytest.mark.parametrize("text", ['{"prompt": 3}', "[1]", '{"text": "a"}', "{", '"a"\n3'])
def test_a_malformed_prompt_names_its_file(tmp_path, text):
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=r"prompts\.jsonl"):
        found = prompts(sets=[{"name": "mine", "format": "prompts", "path": str(path)}])
        for i in range(2):
            found.at(i)


def test_the_world_gives_training_prompts_with_what_they_ask_for():
    sets = [
        {"name": "things", "format": "world", "size": [256, 256], "weight": 1},
        {"name": "edits", "format": "world", "task": "edit", "size": [256, 256], "weight": 1},
    ]
    found = prompts(sets=sets)
    drawn = [found.at(i) for i in range(40)]
    assert {one.family for one in drawn} == {"things", "edits"}
    for one in drawn:
        assert split_of(one.metadata["world"]["key"]) == "train"
        assert size_of(one, 256 * 256, None) == (256, 256)
        assert (one.family == "edits") == bool(one.references) == (one.target is not None)
    assert [one.text for one in drawn] == [prompts(sets=sets).at(i).text for i in range(40)]


def test_data_sets_of_training_give_their_prompts_and_targets(tmp_path):
    for name in ("in", "out"):
        Image.new("RGB", (96, 64), "red").save(tmp_path / f"{name}.png")
    row = {"prompt": "make it red", "target": "out.png", "references": "in.png"}
    (tmp_path / "list.jsonl").write_text(json.dumps(row))
    config = {"name": "own", "format": "list", "task": "edit", "path": str(tmp_path / "list.jsonl")}
    one = prompts(sets=[config]).at(0)
    sources = open_sources(Group(0, one, size_of(one, 64 * 96, None)), 64 * 96)
    assert sources.references[0].shape == (3, 64, 96)
    assert sources.target.shape == sources.shown[0].shape == (64, 96, 3)


def test_blocks_hold_whole_groups_and_every_process_has_as_many():
    for at_once in (2, 4, 8, 16):
        plan = plan_rollout(8, 4, at_once, 2)
        blocks = [plan.own_blocks(rank) for rank in range(2)]
        assert len(blocks[0]) == len(blocks[1])
        assert sorted(i for row in blocks for block in row for i in block) == list(range(8))
    with pytest.raises(ConfigError, match="groups_per_rollout"):
        plan_rollout(6, 4, 8, 2)


def test_windows_stay_in_their_range_and_are_where_their_placement_says():
    fixed = WindowConfig(placement="fixed", size=3, first=1)
    assert choose_window(fixed, 10, 0, 7).noised == range(1, 4)
    random = WindowConfig(placement="random", size=3, stop=5)
    starts = {choose_window(random, 10, 0, i).noised.start for i in range(50)}
    assert starts == {0, 1, 2}
    assert choose_window(random, 10, 0, 3) == choose_window(random, 10, 0, 3)
    sliding = WindowConfig(placement="sliding", size=4, stride=2, every_rollouts=5)
    starts = [choose_window(sliding, 10, 0, i).noised.start for i in range(0, 25, 5)]
    assert starts == [0, 2, 4, 0, 2]


def test_the_published_choice_trains_thirty_of_the_first_forty_nine_steps():
    config = WindowConfig(placement="fixed", size=None, trained=30)
    chosen = [choose_window(config, 50, 0, i) for i in range(20)]
    assert all(w.noised == range(49) and len(set(w.trained)) == 30 for w in chosen)
    assert all(list(w.trained) == sorted(w.trained) for w in chosen)
    assert len({w.trained for w in chosen}) == 20
