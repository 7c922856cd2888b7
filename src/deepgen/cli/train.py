"""`deepgen train CONFIG [key.sub=value …]`: the stages that make a nano, each one configuration."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from deepgen.config import Config, find_config, load_config, parse_yaml
from deepgen.errors import ConfigError


def _stages() -> dict[str, tuple[type[Config], Callable[[Any], Any]]]:
    from deepgen.train.assemble import AssembleConfig, assemble
    from deepgen.train.detector import DetectorConfig, train_detector
    from deepgen.train.diffusion import DiffusionConfig, train_diffusion
    from deepgen.train.vae import VaeConfig, train_vae
    from deepgen.train.vlm import VlmConfig, train_vlm

    return {
        "vae": (VaeConfig, train_vae),
        "vlm": (VlmConfig, train_vlm),
        "detector": (DetectorConfig, train_detector),
        "diffusion": (DiffusionConfig, train_diffusion),
        "assemble": (AssembleConfig, assemble),
    }


def train(config: str, overrides: list[str]) -> None:
    """Trains one stage from a configuration file or the name of a packaged one (nano_vae, nano_vlm, …)."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stages = _stages()
    stage = parse_yaml(find_config(config).read_text(), config).get("stage")
    if stage not in stages:
        raise ConfigError(f"{config}: stage is {stage!r}; it must be one of {', '.join(stages)}")
    model, run = stages[stage]
    settings: Any = load_config(model, config, overrides)
    if getattr(settings, "sprites", "") is None:
        print(
            "no sprites given: drawing procedural shapes (sprites=FILE takes what `deepgen world fetch` made)"
        )
    folder: Path = settings.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
    run(settings)
    print(f"written to {folder}")
