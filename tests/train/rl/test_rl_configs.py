import pytest

from deepgen.config import load_config, packaged_configs
from deepgen.errors import ConfigError
from deepgen.train.rl.config import RLConfig
from deepgen.train.rl.cost import forwards_per_picture
from deepgen.train.rl.stage import dry_run_rl

CONFIGS = ["train/rl_smoke", *(name for name in packaged_configs() if name.startswith("rl/"))]


@pytest.mark.parametrize("name", [n for n in CONFIGS if "mr_grpo" not in n])
def test_every_configuration_of_nano_dry_runs(name, capsys, tmp_path):
    dry_run_rl(load_config(RLConfig, name, ["device=cpu", f"output_dir={tmp_path}"]))
    assert "transformer passes a picture" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_sprites_at_the_top_reach_every_world_set():
    config = load_config(RLConfig, "rl/nano_fast", ["sprites=some.zip"])
    sets = [*config.prompts.sets, *config.sft.data.sets]
    assert len(sets) == 5 and {str(one.sprites) for one in sets} == {"some.zip"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("window.size=10", "window"),
        ("rollout_batch_size=24", "rollout_batch_size"),
        ("updates_per_rollout=3", "steps"),
        ("sampler.eta=1.5", "eta"),
        ("rewards=[]", "rewards"),
    ],
)
def test_settings_that_do_not_fit_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(RLConfig, "train/rl_smoke", [override])


def test_the_fast_recipe_costs_a_tenth_of_the_published_one():
    fast, published = (load_config(RLConfig, f"rl/nano_{n}", []) for n in ("fast", "grpo"))
    assert forwards_per_picture(published) > 8 * forwards_per_picture(fast)
