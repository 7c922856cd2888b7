"""How much of what a prompt of the picture world states its detector finds, as a share rather than a verdict."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from deepgen.errors import DataError, RewardError
from deepgen.pipeline.shipped import weights_root
from deepgen.rewards.protocol import Kind, Picture, RewardInput, Score
from deepgen.rewards.trained import load_trained
from deepgen.rewards.world_request import read_request
from deepgen.world.detector import Detector, colour_of
from deepgen.world.edits import EditSample
from deepgen.world.judging import LEAST, PERFECT_PSNR, Seen, judge_edit, judge_sample, see, untouched_psnr
from deepgen.world.sampling import Sample
from deepgen.world.scenes import Scene
from deepgen.world.testset import sample_of

OF_THINGS = frozenset({"relation", "position", "size"})
"""Mentions that cannot be right where the things themselves are wrong."""
NOT_SEEN = frozenset({"word", "word_colour"})
SHARPNESS = 200.0
"""Of the kept region's term, as in the reward edit_region: 0.82 at 30 dB, 0.53 at 25 dB."""


class WorldDetector:
    """In [0, 1]; see `sample_value` and `edit_value`.

    What was asked is `metadata["world"]`, a row of the world's test format, or else is read from the prompt. No value
    where nothing can be read, for prompts that ask for words alone, which a detector of things cannot see, and for an
    edit without its row or its source. path: a folder of `deepgen train train/nano_reward_detector`; None: the shipped
    detector, which the evaluation judges by. Raises CheckpointError where there is none.
    """

    kind: Kind = "pointwise"

    def __init__(self, name: str, path: Path | None = None, device: str = "cpu") -> None:
        self.name = name
        folder = path or weights_root() / "detector"
        self._detector: Detector = load_trained(Detector, folder, "nano_reward_detector", device)

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        asked = [self._known(asked_of(one)) for one in batch]
        scores = [Score(None, found if isinstance(found, str) else "") for found in asked]
        places = [place for place, found in enumerate(asked) if not isinstance(found, str)]
        for place, seen in zip(places, self.see([batch[place].picture for place in places]), strict=True):
            sample = asked[place]
            if isinstance(sample, EditSample):
                scores[place] = Score.of(edit_value(sample, seen, batch[place]))
            elif isinstance(sample, Sample):
                scores[place] = Score.of(sample_value(sample, seen))
        return scores

    def _known(self, sample: Sample | EditSample | str) -> Sample | EditSample | str:
        """The sample, or what of it the detector was never trained to see."""
        if isinstance(sample, str):
            return sample
        scenes: tuple[Scene, ...]
        if isinstance(sample, EditSample):
            scenes, styled = (sample.source, sample.target), sample.category == "style"
        else:
            scenes, styled = (sample.scene,), "style" in sample.mentions
        names = {item.concept for scene in scenes for item in scene.objects}
        styles = {scene.style for scene in scenes if styled}
        config = self._detector.config
        unknown = [*sorted(names - set(config["concepts"])), *sorted(styles - set(config["styles"]))]
        return f"the detector was not trained to see {', '.join(unknown)}" if unknown else sample

    @torch.inference_mode()
    def see(self, pictures: Sequence[Picture]) -> list[Seen]:
        """Raises InputError for sides that are no multiples of 32."""
        return see(self._detector, pictures)


def asked_of(one: RewardInput) -> Sample | EditSample | str:
    """What the input asks for, or why nothing can be judged. Raises RewardError for metadata that are no such row."""
    row = one.metadata.get("world")
    height, width = one.picture.shape[:2]
    try:
        if row is None and one.references:
            return "an edit is judged only by its row of the world"
        sample = read_request(one.prompt, width, height) if row is None else sample_of(row)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise RewardError(
            f"prompt {one.prompt[:60]!r}: metadata 'world' is no row of the world: {error}"
        ) from error
    if isinstance(sample, EditSample):
        size = (sample.source.height, sample.source.width, 3)
        if one.references and one.references[-1].shape == one.picture.shape == size:
            return sample
        return "the edit has no source, or its result another size"
    if sample is None or not sample.scene.objects:
        return "the prompt asks for no thing that the detector knows"
    return sample


def sample_value(sample: Sample, seen: Seen) -> float:
    """Mean of the parts that the prompt states, each in [0, 1]: the things, their colours, and every other mention.

    Things: for each concept the sum of its detections' scores times certainties, as many as asked, over the larger of
    the numbers asked and found; a thing that was not asked for counts among those found. Colours: the share of things
    asked in a colour that are there in it. Relation, position and size are right (1) or not (0), and wrong where the
    things are; background and style are judged whatever the things are, the style of nothing being wrong.
    """
    objects = sample.scene.objects
    asked = Counter(item.concept for item in objects)
    sure: dict[str, list[float]] = {name: [] for name in asked}
    extra = 0
    for detection in seen.detections:
        if detection.concept in sure and detection.certainty >= LEAST:
            sure[detection.concept].append(detection.score * detection.certainty)
        else:
            extra += 1
    total = sum(max(count, len(sure[name])) for name, count in asked.items()) + extra
    parts = [sum(sum(sorted(sure[name])[::-1][:count]) for name, count in asked.items()) / total]
    if "colour" in sample.mentions:
        parts.append(_coloured(sample.scene, seen))
    contents = judge_sample(replace(sample, mentions=frozenset()), seen)
    for mention in sorted(sample.mentions - {"objects", "count", "colour"} - NOT_SEEN):
        faults = judge_sample(replace(sample, mentions=frozenset({mention})), seen)
        blind = (contents and mention in OF_THINGS) or (not seen.detections and mention == "style")
        parts.append(float(len(faults) == len(contents) and not blind))
    return sum(parts) / len(parts)


def _coloured(scene: Scene, seen: Seen) -> float:
    """The share of things asked in a colour for which one of that kind and colour is there."""
    asked = Counter((item.concept, colour_of(item)) for item in scene.objects if item.colour)
    found = Counter((one.concept, one.colour) for one in seen.detections if one.certainty >= LEAST)
    return (asked & found).total() / asked.total()


def edit_value(sample: EditSample, seen: Seen, one: RewardInput) -> float:
    """What was done times what was left alone, each in (0, 1].

    Done: 1/(1 + faults), a fault being what is missing, moved, left over or not changed as asked. Left alone:
    exp(−200·MSE) against the source, values in [0, 1], outside the edit's region; 1 where the region is everything.
    """
    done = 1 / (1 + len(judge_edit(sample, seen)))
    kept = untouched_psnr(sample, one.references[-1], one.picture)
    if kept is None or kept >= PERFECT_PSNR:
        return done
    return done * math.exp(-SHARPNESS * 10 ** (-kept / 10))
