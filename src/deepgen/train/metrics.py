"""What a run measures, one record a step: metrics.jsonl always, TensorBoard and wandb where they are wanted."""

import importlib.util
import json
import os
import uuid
from pathlib import Path
from typing import Any

from deepgen.config import Config
from deepgen.errors import ConfigError

FILE_NAME = "metrics.jsonl"


class MetricsConfig(Config):
    """Where the records go besides metrics.jsonl."""

    tensorboard: bool = False
    wandb_project: str | None = None


class MetricsWriter:
    """Appends records; the first process only writes. Going on at a step forgets the records behind it.

    Args:
        folder: of the run; made where needed.
        config: further places.
        active: False makes every call do nothing, for the other processes.
        resume_step: records of later steps are dropped: the run will make them again.

    Raises:
        ConfigError: TensorBoard or wandb is asked for and not installed.
    """

    def __init__(
        self, folder: Path, config: MetricsConfig | None = None, active: bool = True, resume_step: int = 0
    ) -> None:
        config = config or MetricsConfig()
        self.path, self.active = folder / FILE_NAME, active
        self._board: Any = None
        self._wandb: Any = None
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        _forget_after(self.path, resume_step)
        check_installed(config)
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1)
        if config.wandb_project is not None:
            import wandb

            self._wandb = wandb.init(
                project=config.wandb_project,
                name=folder.name,
                id=_wandb_id(folder),
                dir=folder,
                resume="allow",
            )

    def write(self, step: int, **values: float | int | str) -> None:
        """One record; names may hold slashes (`reward/mean`), given as `**{"reward/mean": 1.0}`."""
        if not self.active:
            return
        record = {"step": step, **{k: _short(v) for k, v in values.items()}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        numbers = {k: v for k, v in values.items() if not isinstance(v, str)}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        """Flush and let go of TensorBoard and wandb."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _short(value: float | int | str) -> float | int | str | None:
    if not isinstance(value, float):
        return value
    # JSON has no NaN or infinity.
    return float(f"{value:.6g}") if abs(value) < float("inf") else None


def _wandb_id(folder: Path) -> str:
    """Of the run in a folder: made once and kept there, for two runs of one name are not one run."""
    path = folder / "wandb_id"
    if not path.exists():
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def missing_packages(config: MetricsConfig) -> list[str]:
    """Packages that are asked for and not installed."""
    wanted = {"tensorboard": config.tensorboard, "wandb": config.wandb_project is not None}
    return [name for name, asked in wanted.items() if asked and importlib.util.find_spec(name) is None]


def check_installed(config: MetricsConfig) -> None:
    """Raises ConfigError where TensorBoard or wandb is asked for and not installed."""
    for name in missing_packages(config):
        raise ConfigError(
            f"metrics asks for {name}, which is not installed; pip install {name}, or turn it off"
        )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line that a killed process left half-written is passed over."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def _forget_after(path: Path, step: int) -> None:
    records = read_metrics(path)
    if not path.exists():
        return
    part = path.with_suffix(".part")
    part.write_text(
        "".join(json.dumps(r) + "\n" for r in records if r.get("step", 0) <= step), encoding="utf-8"
    )
    os.replace(part, path)
