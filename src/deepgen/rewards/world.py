"""How much of what was asked the detector of the picture world finds, as a share rather than a verdict."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deepgen.errors import CheckpointError, DataError, RewardError
from deepgen.pipeline.shipped import weights_root
from deepgen.rewards.protocol import Kind, Picture, RewardInput, Score
from deepgen.rewards.world_request import read_request
from deepgen.world.detector import Detector
from deepgen.world.edits import EditSample
from deepgen.world.judging import LEAST, Seen, judge_edit, judge_sample, see
from deepgen.world.sampling import Sample
from deepgen.world.scenes import Scene

OF_THINGS = frozenset({"colour", "relation", "position", "size"})
"""Mentions that cannot be right where the things themselves are wrong."""
NOT_SEEN = frozenset({"word", "word_colour"})


class WorldReward:
    """Detector reward in [0, 1]; see `sample_value` and `edit_value`.

    What was asked is `metadata["world"]`, a row of the world's test format, or else is read from the prompt. No value
    where nothing can be read, and for prompts that ask for words alone, which a detector of things cannot see.
    detector: a folder, the shipped one if None. Raises CheckpointError where there is none.
    """

    kind: Kind = "pointwise"

    def __init__(self, name: str, detector: Path | None = None, device: str = "cpu") -> None:
        self.name = name
        self._detector = load_detector(detector).to(torch.device(device))

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        asked = [asked_of(one) for one in batch]
        scores = [Score(None, "the prompt asks for no thing that the detector knows")] * len(batch)
        places = [place for place, sample in enumerate(asked) if sample is not None]
        for place, seen in zip(places, self.see([batch[place].picture for place in places]), strict=True):
            sample = asked[place]
            if isinstance(sample, EditSample):
                scores[place] = Score.of(edit_value(sample, seen))
            elif sample is not None:
                scores[place] = Score.of(sample_value(sample, seen))
        return scores

    @torch.inference_mode()
    def see(self, pictures: Sequence[Picture]) -> list[Seen]:
        """Raises InputError for sides that are no multiples of 32."""
        return see(self._detector, pictures)


def load_detector(folder: Path | None) -> Detector:
    """In evaluation mode. Raises CheckpointError."""
    folder = folder or weights_root() / "detector"
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"no detector in {folder}: train one with `deepgen train train/nano_detector`")
    return Detector.from_pretrained(folder, torch_dtype=torch.float32).eval()


def asked_of(one: RewardInput) -> Sample | EditSample | None:
    """What the input asks for. Raises RewardError for metadata that are no row of the world."""
    row = one.metadata.get("world")
    height, width = one.picture.shape[:2]
    try:
        sample = read_request(one.prompt, width, height) if row is None else _from_row(row)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise RewardError(
            f"prompt {one.prompt[:60]!r}: metadata 'world' is no row of the world: {error}"
        ) from error
    if isinstance(sample, Sample) and not sample.scene.objects:
        return None
    return sample


def _from_row(row: Mapping[str, Any]) -> Sample | EditSample:
    key = str(row.get("key", ""))
    category = str(row.get("category", ""))
    if "source" not in row:
        scene = Scene.from_json(row["scene"])
        return Sample(category, str(row["prompt"]), scene, frozenset(row["mentions"]), "train", key)
    source, target = Scene.from_json(row["source"]), Scene.from_json(row["target"])
    region = tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in row.get("region", ()))
    kind = category.removeprefix("edit_")
    return EditSample(kind, str(row["prompt"]), source, target, region, "train", key)


def sample_value(sample: Sample, seen: Seen) -> float:
    """Mean of how sure the asked things are and of what else the prompt mentions, 1 each where it is right.

    Things: for each concept the sum of its detections' scores times certainties, as many as asked, over the larger of
    the numbers asked and found; a thing that was not asked for counts among those found.
    """
    asked = Counter(item.concept for item in sample.scene.objects)
    sure: dict[str, list[float]] = {name: [] for name in asked}
    extra = 0
    for detection in seen.detections:
        if detection.concept in sure and detection.certainty >= LEAST:
            sure[detection.concept].append(detection.score * detection.certainty)
        else:
            extra += 1
    total = sum(max(count, len(sure[name])) for name, count in asked.items()) + extra
    parts = [sum(sum(sorted(sure[name])[::-1][:count]) for name, count in asked.items()) / total]
    contents = judge_sample(replace(sample, mentions=frozenset()), seen)
    for mention in sorted(sample.mentions - {"objects", "count"} - NOT_SEEN):
        faults = judge_sample(replace(sample, mentions=frozenset({mention})), seen)
        parts.append(float(len(faults) == len(contents) and not (contents and mention in OF_THINGS)))
    return sum(parts) / len(parts)


def edit_value(sample: EditSample, seen: Seen) -> float:
    """1/(1 + faults): what is missing, moved, left over or not changed as asked."""
    return 1 / (1 + len(judge_edit(sample, seen)))
