"""The scorer `ocr-clip`: the lines of text in a picture, and how well the picture fits its prompt."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from deepgen.scorers.calls import JudgeCall, JudgeProfile
from deepgen.scorers.clip import Clip
from deepgen.scorers.encode import open_image
from deepgen.scorers.judge import Keep
from deepgen.scorers.ocr import Ocr
from deepgen.scorers.replies import Reply


class OcrClipScorer:
    """Answers {"clip_text"} with {"lines", "clip"}; see Scorer. Without a CLIP folder "clip" is null.

    Raises InputError where rapidocr is not installed.
    """

    def __init__(self, clip: Path | None = None, device: str = "cpu") -> None:
        self._ocr = Ocr()
        self._clip = None if clip is None else Clip(clip, device)
        identity = "no-clip" if self._clip is None else self._clip.identity
        self._profile = JudgeProfile(
            "ocr-clip", f"rapidocr-{version('rapidocr')}+{identity}", kind="ocr-clip"
        )

    @property
    def profile(self) -> JudgeProfile:
        return self._profile

    def answer(self, calls: Sequence[JudgeCall], attempt: int, keep: Keep) -> None:
        """See Scorer."""
        for place, call in enumerate(calls):
            picture = open_image(call.images[0])
            lines = [reading.text for reading in self._ocr.read(np.asarray(picture))]
            fit = None if self._clip is None else self._clip.similarity(picture, call.data["clip_text"])
            reply = json.dumps({"lines": lines, "clip": fit}, ensure_ascii=False)
            keep(place, Reply("ok", reply, self._profile.model))
