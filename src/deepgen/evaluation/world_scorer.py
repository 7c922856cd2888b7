"""The judge of the benchmark `world`: what its detector and reader see in a picture, as JSON. And its ceiling."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepgen.evaluation.detector import load_detector, reconstruct
from deepgen.evaluation.runner import Drawn, Job, read_picture
from deepgen.pipeline.pipeline import DeepGenPipeline
from deepgen.pipeline.shipped import weights_root
from deepgen.scorers.calls import JudgeCall, JudgeProfile
from deepgen.scorers.identity import folder_identity
from deepgen.scorers.judge import Keep
from deepgen.scorers.ocr import Ocr
from deepgen.scorers.replies import Reply
from deepgen.world.detector import Detection
from deepgen.world.draw import draw
from deepgen.world.edits import EditSample
from deepgen.world.judging import Reading, Seen, judge_ink, see, untouched_psnr
from deepgen.world.scenes import Background
from deepgen.world.sprites import Sprites
from deepgen.world.testset import Item

READ_CATEGORIES = ("words",)
AT_ONCE = 64


class WorldScorer:
    """Answers with {"detections", "background", "readings", "ink", "psnr"}; see Scorer.

    tests: the test file's items by id. detector: its folder, the shipped one if None. Raises CheckpointError where
    there is none, InputError where it does not know what the tests show.
    """

    def __init__(self, tests: Mapping[str, Item], detector: Path | None = None, device: str = "cpu") -> None:
        network, metrics = load_detector(detector)
        network.check_knows([item.shown for item in tests.values()])
        self._detector = network.to(device)
        self._tests = tests
        self._ocr: Ocr | None = None
        identity = folder_identity(detector or weights_root() / "detector")
        self._profile = JudgeProfile(
            "world-detector", identity, kind="world", extra={} if metrics is None else {"measured": metrics}
        )

    @property
    def profile(self) -> JudgeProfile:
        return self._profile

    def answer(self, calls: Sequence[JudgeCall], attempt: int, keep: Keep) -> None:
        """See Scorer. Raises InputError where words are to be read and rapidocr is not installed."""
        if any(self._tests[call.data["id"]].category in READ_CATEGORIES for call in calls):
            self._ocr = self._ocr or Ocr()
        for start in range(0, len(calls), AT_ONCE):
            part = calls[start : start + AT_ONCE]
            pictures = [read_picture(call.images[0].path) for call in part]
            for place, seen in enumerate(see(self._detector, pictures)):
                told = self._told(part[place], pictures[place], seen)
                keep(start + place, Reply("ok", json.dumps(told, ensure_ascii=False), self._profile.model))

    def _told(self, call: JudgeCall, picture: NDArray[np.uint8], seen: Seen) -> dict[str, Any]:
        test = self._tests[call.data["id"]]
        psnr, ink = None, list[str]()
        if isinstance(test.sample, EditSample):
            psnr = untouched_psnr(test.sample, read_picture(call.images[-1].path), picture)
        else:
            if self._ocr is not None and test.category in READ_CATEGORIES:
                seen = replace(seen, readings=self._ocr.read(picture))
            ink = judge_ink(test.sample, seen, picture)
        return asdict(seen) | {"ink": ink, "psnr": psnr}


def seen_from_json(told: Mapping[str, Any]) -> Seen:
    """The Seen in a reply of WorldScorer."""
    detections = [Detection(**{**row, "box": tuple(row["box"])}) for row in told["detections"]]
    readings = [Reading(row["text"], tuple(row["box"])) for row in told["readings"]]
    ground = told["background"]
    background = Background(ground["kind"], tuple(ground["colours"]), ground["direction"])
    return Seen(tuple(detections), background, tuple(readings))


@dataclass(frozen=True)
class Known:
    """Draws the asked scenes themselves, or through the pipeline's VAE: the ceiling of what the detector can see."""

    tests: Mapping[str, Item]
    sprites: Sprites
    pipe: DeepGenPipeline | None = None

    def __call__(self, jobs: Sequence[Job]) -> Drawn:
        """See runner.Draw."""
        drawn = [Image.fromarray(draw(self.tests[job.item.id].shown, self.sprites)) for job in jobs]
        if self.pipe is not None:
            drawn = reconstruct(self.pipe, drawn)
        return [(picture, {"scene": job.item.id}) for picture, job in zip(drawn, jobs, strict=True)]
