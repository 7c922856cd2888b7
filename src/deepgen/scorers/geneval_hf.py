"""The scorer `geneval-hf`: objects by Mask2Former of transformers, their colours by CLIP.

It follows the rules of GenEval's own scorer, with another build of the detector; how far the two agree is not
known, so it has a name of its own.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepgen.errors import JudgeError
from deepgen.scorers.calls import JudgeCall, JudgeProfile
from deepgen.scorers.clip import Clip
from deepgen.scorers.encode import open_image
from deepgen.scorers.judge import Keep
from deepgen.scorers.mask2former import Instance, InstanceDetector
from deepgen.scorers.replies import Reply

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
WORDINGS = (
    "a photo of a {colour} {name}",
    "a photo of a {colour}-colored {name}",
    "a photo of a {colour} object",
)
BACKGROUND = (0x99, 0x99, 0x99)
"""What surrounds an object while its colour is named."""


class GenEvalScorer:
    """Answers {"threshold", "max_boxes", "classes", "colors_of"} with {"detections", "colors"}; see Scorer."""

    def __init__(self, detector: Path, clip: Path, device: str = "cpu") -> None:
        self._detector = InstanceDetector(detector, device)
        self._clip = Clip(clip, device)
        self._profile = JudgeProfile(
            "geneval-hf", f"{self._detector.identity}+{self._clip.identity}", kind="geneval-hf"
        )

    @property
    def profile(self) -> JudgeProfile:
        return self._profile

    def answer(self, calls: Sequence[JudgeCall], attempt: int, keep: Keep) -> None:
        """See Scorer. Raises JudgeError where the detector knows another number of classes."""
        for place, call in enumerate(calls):
            picture = open_image(call.images[0])
            keep(place, Reply("ok", json.dumps(self._look_at(picture, call.data)), self._profile.model))

    def _look_at(self, picture: Image.Image, asked: Mapping[str, Any]) -> dict[str, Any]:
        classes = asked["classes"]
        if len(classes) != self._detector.classes:
            raise JudgeError(
                f"the detector knows {self._detector.classes} classes, GenEval has {len(classes)}:"
                " it needs Mask2Former trained on COCO instances"
            )
        found = self._detector.detect(picture)
        detections: dict[str, list[list[float]]] = {}
        colours: dict[str, list[str]] = {}
        for label, name in enumerate(classes):
            of_class = [one for one in found if one.label == label and one.score > asked["threshold"]]
            kept = of_class[: asked["max_boxes"]]
            if kept:
                detections[name] = [[*one.box, one.score] for one in kept]
                if name in asked["colors_of"]:
                    colours[name] = self._colours(picture, kept, name)
        return {"detections": detections, "colors": colours}

    def _colours(self, picture: Image.Image, found: Sequence[Instance], name: str) -> list[str]:
        crops = [cut_out(picture, one.mask, one.box) for one in found]
        wordings = [[w.format(colour=colour, name=name) for w in WORDINGS] for colour in COLOURS]
        return [COLOURS[number] for number in self._clip.classify(crops, wordings)]


def cut_out(
    picture: Image.Image, mask: NDArray[np.bool_], box: tuple[float, float, float, float]
) -> Image.Image:
    """The object alone: all but its mask in grey, cropped to its box."""
    alone = np.where(mask[..., None], np.asarray(picture), np.array(BACKGROUND, np.uint8))
    left, top, right, bottom = box
    return Image.fromarray(alone).crop((round(left), round(top), round(right), round(bottom)))
