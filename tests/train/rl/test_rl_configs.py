import pytest

from deepgen.config import load_config, packaged_configs
from deepgen.errors import ConfigError
from deepgen.train.rl.config import RLConfig
from deepgen.train.rl.cost import forwards_per_picture
from deepgen.train.rl.stage import dry_run_rl
from deepgen.train.rl.window import choose_window

CONFIGS = ["train/rl_smoke", *(name for name in packaged_configs() if name.startswith("rl/"))]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_dry_runs_without_a_weight_or_a_prompt(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dry_run_rl(load_config(RLConfig, name, ["device=cpu"]))
    assert "transformer passes a picture" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_published_recipe_holds_the_published_values():
    config = load_config(RLConfig, "rl/mr_grpo")
    pictures = config.group_size * config.groups_per_rollout
    assert (config.group_size, pictures, config.steps, config.updates_per_rollout) == (8, 256, 1500, 1)
    assert (config.sampler.kind, config.sampler.eta, config.sampler.num_inference_steps) == ("cps", 1.0, 50)
    window = choose_window(config.window, 50, config.seed, 0)
    assert window.noised == range(49) and len(window.trained) == round(0.6 * 50)
    assert (config.loss.clip, config.loss.kl_weight, config.sft.weight) == ((1e-4, 1e-4), 5e-7, 1e-4)
    assert config.optimizer.learning_rate == 2e-6 and not config.prompts.allow_contaminated
    assert [one.name for one in config.rewards] == ["unifiedreward_think", "clip_sim", "ocr"]


def test_the_published_recipe_costs_what_was_counted_less_the_doubled_logging():
    """294 forward passes a picture (rl.md, section 18), of which the logging of gradients costs 30 x 3."""
    config = load_config(RLConfig, "rl/mr_grpo")
    assert forwards_per_picture(config) == 294 - 30 * 3


def test_our_recipe_costs_at_most_thirty():
    assert forwards_per_picture(load_config(RLConfig, "rl/mr_grpo_fast")) <= 30


def test_sprites_at_the_top_reach_every_world_set():
    config = load_config(RLConfig, "rl/nano_fast", ["sprites=some.zip"])
    sets = [*config.prompts.sets, *config.sft.data.sets]
    assert len(sets) == 5 and {str(one.sprites) for one in sets} == {"some.zip"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("window.size=10", "window"),
        ("rollout_batch_size=24", "rollout_batch_size"),
        ("updates_per_rollout=3", "group_size"),
        ("updates_per_rollout=2", "steps"),
        ("sampler.eta=1.5", "eta"),
        ("rewards=[]", "rewards"),
    ],
)
def test_settings_that_do_not_fit_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(RLConfig, "train/rl_smoke", [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampler.eta=1.5", "sampler.eta is 1.5; cps takes at most 1"),
        ("height=64", "height is 64 and width None; give both, or none"),
        ("prompts.published=some.yaml", "prompts: give either sets or published"),
    ],
)
def test_what_is_wrong_with_a_whole_section_is_said_without_all_its_keys(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(RLConfig, "train/rl_smoke", [override])
    assert str(caught.value) == f"train/rl_smoke: {message}"


@pytest.mark.parametrize(
    ("task", "kind"), [("t2i", "coutning"), ("t2i", "reasoning_unseen"), ("edit", "counting")]
)
def test_unknown_kinds_of_the_world_are_refused_with_the_name_of_their_set(task, kind):
    sets = f"[{{name: things, format: world, task: {task}, kinds: [{kind}]}}]"
    with pytest.raises(ConfigError, match=f"prompts.sets.0.*'things'.*{kind}.*there are"):
        load_config(RLConfig, "train/rl_smoke", [f"prompts.sets={sets}"])


def test_the_fast_recipe_costs_a_tenth_of_the_published_one():
    fast, published = (load_config(RLConfig, f"rl/nano_{n}", []) for n in ("fast", "grpo"))
    assert forwards_per_picture(published) > 8 * forwards_per_picture(fast)
