"""`deepgen reward …`: rewards as services, and a look at them before a run."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from deepgen.config import find_config, load_config, parse_yaml
from deepgen.errors import ConfigError, DeepGenError

if TYPE_CHECKING:
    from pathlib import Path

    from deepgen.rewards.config import RewardConfig
    from deepgen.rewards.golden import Check
    from deepgen.rewards.service import Answer

WORLD_JUDGE = "world-preference"

Device = Annotated[str, typer.Option(help="Where models compute: cpu, cuda, cuda:1, …")]


def serve(
    name: Annotated[
        str, typer.Argument(help=f"A reward's kind (clip, ocr, world_detector, …), or {WORLD_JUDGE}.")
    ],
    settings: Annotated[list[str] | None, typer.Argument(help="key=value …, as in a configuration.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8100,
    token_env: Annotated[
        str | None, typer.Option(help="Environment variable with the token that clients must send.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Run a reward as a service of HTTP and JSON, or a judge that speaks OpenAI's protocol."""
    from deepgen.rewards.build import token_from
    from deepgen.rewards.service import Address, JsonService

    address = Address(host, port, token_from(token_env))
    with JsonService(address, _routes(name, settings or [], device)) as service:
        print(f"serving {name} at {service.url}{'/v1' if name == WORLD_JUDGE else ''}", flush=True)
        service.serve_forever()


def check(
    config: Annotated[str, typer.Argument(help="A YAML file with `rewards`, or a packaged one's name.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="rewards.0.key=value …")] = None,
    device: Device = "cpu",
) -> None:
    """Score golden pictures by every reward of a configuration."""
    from deepgen.rewards.build import build_rewards
    from deepgen.rewards.golden import check_reward

    broken = 0
    for entry in _rewards_of(config, overrides or []):
        try:
            for one in build_rewards([entry], device):
                found = check_reward(one.reward, one.ordered)
                broken += not found.passed
                print(_line(found))
        except DeepGenError as error:
            broken += 1
            print(f"{entry.called}: FAILED: {error}")
    if broken:
        raise typer.Exit(1)


def _line(found: "Check") -> str:
    values = ["none" if score.value is None else f"{score.value:.4f}" for score in found.scores]
    verdict = "ok" if found.passed else f"FAILED: {found.problem}"
    pairs = (
        f"{what}: right {values[at]}, wrong {values[at + 1]}" for what, at in (("picture", 0), ("edit", 2))
    )
    return f"{found.name}: {verdict} ({'; '.join(pairs)})"


def _routes(name: str, settings: list[str], device: str) -> "dict[str, Answer]":
    """What the service answers. Raises ConfigError for an unknown name or setting."""
    if name == WORLD_JUDGE:
        from deepgen.rewards.world_judge import WorldJudge, WorldJudgeConfig

        manner = load_config(WorldJudgeConfig, {"device": device}, settings)
        _warn_without(manner.path)
        return WorldJudge(manner).routes()
    from deepgen.rewards.config import OneReward, WorldDetectorConfig
    from deepgen.rewards.service import reward_routes

    overrides = [f"reward.{setting}" for setting in settings]
    entry = load_config(OneReward, {"reward": {"kind": name}}, overrides).reward
    if isinstance(entry, WorldDetectorConfig):
        _warn_without(entry.path)
    return reward_routes(entry.build(entry.called, device))


def _warn_without(path: "Path | None") -> None:
    """Nothing that is told to a service says whether a run trains by it."""
    if path is None:
        print(
            "deepgen: warning: no path: this is the detector by which the evaluation judges, whose scores mean nothing "
            "for what was trained by it; path=FOLDER takes one of `deepgen train train/nano_reward_detector`",
            file=sys.stderr,
        )


def _rewards_of(config: str, overrides: list[str]) -> "list[RewardConfig]":
    """The rewards of a run's configuration, held out ones last; the rest is not looked at. Raises ConfigError."""
    from deepgen.rewards.config import Rewards

    data = parse_yaml(find_config(config).read_text(encoding="utf-8"), config)
    if not isinstance(data, dict) or not data.get("rewards"):
        raise ConfigError(f"{config}: names no `rewards`")
    told = {name: data[name] for name in Rewards.model_fields if name in data}
    found = load_config(Rewards, told, overrides)
    return [*found.rewards, *found.held_out]
