"""`deepgen train CONFIG [key.sub=value …]`: every stage, each one configuration; also under torchrun."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from deepgen.config import Config, find_run, load_config, parse_yaml
from deepgen.errors import ConfigError

NANO_STAGES = ("vae", "vlm", "detector", "reader", "clip", "diffusion", "assemble")
ENGINE_STAGES = ("train", "rl")


def _nano_stages() -> dict[str, tuple[type[Config], Callable[[Any], Any]]]:
    from deepgen.train.assemble import AssembleConfig, assemble
    from deepgen.train.detector import DetectorConfig, train_detector
    from deepgen.train.diffusion import DiffusionConfig, train_diffusion
    from deepgen.train.dual_encoder import DualEncoderConfig, train_dual_encoder
    from deepgen.train.reader import ReaderConfig, train_reader
    from deepgen.train.vae import VaeConfig, train_vae
    from deepgen.train.vlm import VlmConfig, train_vlm

    return {
        "vae": (VaeConfig, train_vae),
        "vlm": (VlmConfig, train_vlm),
        "detector": (DetectorConfig, train_detector),
        "reader": (ReaderConfig, train_reader),
        "clip": (DualEncoderConfig, train_dual_encoder),
        "diffusion": (DiffusionConfig, train_diffusion),
        "assemble": (AssembleConfig, assemble),
    }


def train(config: str, overrides: list[str], dry_run: bool = False) -> None:
    """Trains one stage from a configuration file or the name of a packaged one (align, sft, nano_vae, …).

    A packaged name may leave out its folder. With dry_run a run is reported and not started.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    path = find_run(config)
    loaded = parse_yaml(path.read_text(encoding="utf-8"), config)
    stage = loaded.get("stage") if isinstance(loaded, dict) else None
    if stage in ENGINE_STAGES:
        _on_engine(path, stage, overrides, dry_run)
    elif stage in NANO_STAGES:
        _nano(path, stage, overrides, dry_run)
    else:
        known = ", ".join((*ENGINE_STAGES, *NANO_STAGES))
        raise ConfigError(f"{config}: stage is {stage!r}; it must be one of {known}")


def _on_engine(path: Path, stage: str, overrides: list[str], dry_run: bool) -> None:
    from deepgen.train.parallel import stop_ranks

    model, run, report = _engine_stage(stage)
    settings: Any = load_config(model, path, overrides)
    try:
        if dry_run:
            report(settings)
        else:
            run(settings)
    finally:
        stop_ranks()


def _engine_stage(stage: str) -> tuple[type[Config], Callable[[Any], Any], Callable[[Any], Any]]:
    from deepgen.train.engine import dry_run, train_supervised
    from deepgen.train.run_config import SupervisedConfig

    if stage == "train":
        return SupervisedConfig, train_supervised, dry_run
    from deepgen.train.rl.config import RLConfig
    from deepgen.train.rl.stage import dry_run_rl, train_rl

    return RLConfig, train_rl, dry_run_rl


def _nano(path: Path, stage: str, overrides: list[str], dry_run: bool) -> None:
    model, run = _nano_stages()[stage]
    settings: Any = load_config(model, path, overrides)
    if dry_run:
        print("\n".join(_plan(settings)))
        return
    if getattr(settings, "sprites", "") is None:
        print(
            "no sprites given: drawing procedural shapes (sprites=FILE takes what `deepgen world fetch` made)"
        )
    folder: Path = settings.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
    run(settings)
    print(f"written to {folder}")


def _plan(settings: Config) -> list[str]:
    """What a nano stage would do: its length, the sizes of its batches, what it trains, reads and writes."""
    values = dict(settings)
    lines = [f"stage {values['stage']}, writes {values['output_dir']}"]
    if (loop := values.get("loop")) is not None:
        length = f"{loop.steps} updates" if loop.steps else f"{loop.budget_minutes} minutes"
        lines.append(f"{length} on {values['device']}, {values['workers']} workers")
        lines.append(", ".join(f"{name} {value}" for name, value in values.items() if "batch" in name))
    if (trainable := values.get("trainable")) is not None:
        parts = trainable.model_dump(include={"dit", "bridge", "think_tokens", "vlm", "vision"})
        lines.append("trains: " + ", ".join(f"{name} {how}" for name, how in parts.items()))
    for name, value in values.items():
        if isinstance(value, Path) and name != "output_dir":
            lines.append(f"reads {name}: {value}" + ("" if value.exists() else " (not here)"))
    return lines
