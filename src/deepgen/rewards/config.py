"""The rewards of a run as configuration: one entry each, `kind` says which; a new reward is one class here, and one
that it builds. Building imports what that reward needs, and no other's."""

from collections import Counter
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from deepgen.config import Config
from deepgen.rewards.protocol import Reward

Share = Annotated[float, Field(ge=0, le=1)]


class RewardSettings(Config):
    """What every reward is told.

    name: in metrics, of letters, digits, `_`, `-` and `.`; the kind if not given. weight: in the sum of advantages, may
    be negative. families: the weight in each family of prompts instead; a family that is not named does not use this
    reward, and is not asked. waits, ordered: see WeightedReward.
    """

    kind: str
    name: str | None = Field(None, pattern=r"^[\w.-]+$")
    weight: float = 1.0
    families: dict[str, float] | None = None
    waits: ClassVar[bool] = False
    ordered: ClassVar[bool] = True

    @property
    def called(self) -> str:
        """The name, or else the kind."""
        return self.name or self.kind

    def build(self, name: str, device: str) -> Reward:
        """The reward under a name; models are loaded to the device. Raises InputError, RewardError, CheckpointError."""
        raise NotImplementedError


class MeanBrightnessConfig(RewardSettings):
    """Mean of all pixel values, in [0, 1]; for tests."""

    ordered = False
    kind: Literal["mean_brightness"]

    def build(self, name: str, device: str) -> Reward:
        from deepgen.rewards.simple import MeanBrightness

        return MeanBrightness(name)


class JpegSizeConfig(RewardSettings):
    """Thousands of bytes as JPEG; for tests. A negative weight asks for plain pictures."""

    ordered = False
    kind: Literal["jpeg_size"]
    quality: Annotated[int, Field(ge=1, le=100)] = 95

    def build(self, name: str, device: str) -> Reward:
        from deepgen.rewards.simple import JpegSize

        return JpegSize(name, self.quality)


class ClipConfig(RewardSettings):
    """Cosine between prompt and picture by a CLIP in a folder (published: ViT-L/14)."""

    kind: Literal["clip"]
    path: Path
    at_once: PositiveInt = 32

    def build(self, name: str, device: str) -> Reward:
        from deepgen.rewards.clip import ClipReward

        return ClipReward(name, self.path, device, self.at_once)


class OcrConfig(RewardSettings):
    """How well the texts that a prompt quotes can be read in the picture; see `text_match`."""

    kind: Literal["ocr"]
    matching: Literal["unicode", "published"] = "unicode"
    least_score: Share = 0.5

    def build(self, name: str, device: str) -> Reward:
        from deepgen.rewards.ocr import OcrReward

        return OcrReward(name, self.matching, self.least_score)


class WorldTextConfig(RewardSettings):
    """How much of the word that a prompt quotes is written in the picture, by the reader in a folder."""

    kind: Literal["world_text"]
    path: Path

    def build(self, name: str, device: str) -> Reward:
        from deepgen.rewards.world_text import WorldText

        return WorldText(name, self.path, device)


class WorldClipConfig(RewardSettings):
    """Cosine between prompt and picture by the world's small CLIP in a folder."""

    kind: Literal["world_clip"]
    path: Path

    def build(self, name: str, device: str) -> Reward:
        from deepgen.rewards.world_clip import WorldClip

        return WorldClip(name, self.path, device)


class WorldDetectorConfig(RewardSettings):
    """How much of what a prompt of the picture world states a detector finds, and of an edit how much it left alone.

    path: a folder; None: the shipped detector, by which the evaluation judges, so only rewards that are held out may
    use it.
    """

    kind: Literal["world_detector"]
    path: Path | None = None

    def build(self, name: str, device: str) -> Reward:
        from deepgen.rewards.world_detector import WorldDetector

        return WorldDetector(name, self.path, device)


class EditRegionConfig(RewardSettings):
    """Whether an edit left alone what its known target leaves alone."""

    kind: Literal["edit_region"]

    def build(self, name: str, device: str) -> Reward:
        from deepgen.rewards.edit_region import EditRegion

        return EditRegion(name)


class JudgeSettings(RewardSettings):
    """A model that looks at pictures, behind any server that speaks OpenAI's chat protocol.

    url: up to and with /v1. model: what the server calls it. token_env: name of the environment variable that holds
    the server's key. template: a file with `{prompt}` in it, instead of our wording. cache: a file that keeps replies,
    so that a run taken up again asks nothing twice; kept only while the run lasts if None. concurrency: calls on their
    way at once, over all groups. call_seconds: of one call. patience_seconds: after which a call that fails is given
    up; the runner asks again. attempts: for replies that cannot be read. extra: merged into the request's body.
    """

    waits = True
    url: str
    model: str
    token_env: str | None = None
    template: Path | None = None
    cache: Path | None = None
    concurrency: PositiveInt = 32
    call_seconds: PositiveFloat = 160.0
    patience_seconds: PositiveFloat = 30.0
    attempts: PositiveInt = 2
    temperature: float | None = 0.0
    max_tokens: PositiveInt | None = 4096
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 95
    extra: dict[str, str | int | float | bool] = Field(default_factory=dict)


class PreferenceConfig(JudgeSettings):
    """Which of two pictures of a group fits the prompt better, for many pairs; the value is a share of duels won.

    pairing: "all" asks every pair (28 in a group of 8, as published), "swiss" some rounds in which pictures of like
    success meet, "anchor" every picture against the same `rounds` pictures. order: "both" asks each pair in both
    orders and averages, "random" in one of them, "fixed" with the lower place first (published; a judge that prefers
    one side then shifts every group alike). rounds: None: Swiss as many as ⌈log₂ group⌉, anchors 2.
    """

    kind: Literal["preference"]
    pairing: Literal["all", "swiss", "anchor"] = "swiss"
    order: Literal["both", "random", "fixed"] = "random"
    rounds: PositiveInt | None = None

    def build(self, name: str, device: str) -> Reward:
        from deepgen.rewards.preference import Preference

        return Preference(name, self)


class EditInstructionConfig(JudgeSettings):
    """1 where the judge says yes, the edit was carried out; 0 where no."""

    kind: Literal["edit_instruction"]
    max_tokens: PositiveInt | None = 1024

    def build(self, name: str, device: str) -> Reward:
        from deepgen.rewards.edit_instruction import EditInstruction

        return EditInstruction(name, self)


class RemoteConfig(RewardSettings):
    """A reward that `deepgen reward serve` runs elsewhere, under the same name there as here.

    url: of the service. token_env: name of the environment variable that holds its token. groupwise: it compares the
    pictures of a group. call_seconds: of one request, and of others of this run that the service answers before it;
    at_once: pictures in one, groups are kept together.
    """

    waits = True
    ordered = False  # what it prefers is not known here
    kind: Literal["remote"]
    url: str
    token_env: str | None = None
    groupwise: bool = False
    call_seconds: PositiveFloat = 120.0
    at_once: PositiveInt = 64

    def build(self, name: str, device: str) -> Reward:
        from deepgen.rewards.remote import Remote

        return Remote(name, self)


RewardConfig = Annotated[
    MeanBrightnessConfig
    | JpegSizeConfig
    | ClipConfig
    | OcrConfig
    | WorldTextConfig
    | WorldClipConfig
    | WorldDetectorConfig
    | EditRegionConfig
    | PreferenceConfig
    | EditInstructionConfig
    | RemoteConfig,
    Field(discriminator="kind"),
]
"""One entry of a run's `rewards`."""


class OneReward(Config):
    """A reward alone, as a service is told."""

    reward: RewardConfig


class Rewards(Config):
    """The rewards of a run, and those that only watch it: scored on the same pictures and never trained for."""

    rewards: list[RewardConfig] = Field(min_length=1)
    held_out: list[RewardConfig] = Field(default_factory=list)

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> Self:
        """Each from the others by its name, and what is trained for from what judges the result."""
        counts = Counter(one.called for one in (*self.rewards, *self.held_out))
        twice = sorted(name for name, count in counts.items() if count > 1)
        if "mean" in counts:
            raise ValueError("no reward may be called 'mean': metrics have the mean of their sum there")
        if twice:
            raise ValueError(f"two rewards are called {twice[0]!r}; give one of them another name")
        for one in self.rewards:
            if isinstance(one, WorldDetectorConfig) and one.path is None:
                raise ValueError(
                    f"reward {one.called!r} has no path: the shipped detector judges the evaluation, whose scores mean "
                    "nothing for what was trained by it; only held_out may use it. Give the folder of a detector of "
                    "`deepgen train train/nano_reward_detector`"
                )
        return self


class RunnerConfig(Config):
    """How failures of services are borne.

    deadline_seconds: so long a reward that fails is asked again, with pauses that double from first_wait_seconds to
    longest_wait_seconds. After that, values that are still missing are invalid, if their share is at most pause_share;
    otherwise the run waits for the service, up to pause_seconds more, and then ends with an error.
    """

    deadline_seconds: PositiveFloat = 120.0
    first_wait_seconds: PositiveFloat = 1.0
    longest_wait_seconds: PositiveFloat = 30.0
    pause_share: Share = 0.25
    pause_seconds: Annotated[float, Field(ge=0)] = 3600.0
