"""Reading the words in a picture, by RapidOCR's packaged models; an optional part."""

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepgen.errors import InputError
from deepgen.world.judging import Reading

MISSING = "reading words in pictures needs rapidocr: pip install 'deepgen[eval]'"


def is_available() -> bool:
    """Whether the packages are installed."""
    return find_spec("rapidocr") is not None and find_spec("onnxruntime") is not None


class Ocr:
    """Finds and reads lines of text. Raises InputError, naming the extra to install, where it cannot."""

    def __init__(self, least_score: float = 0.5) -> None:
        if not is_available():
            raise InputError(MISSING)
        from rapidocr import RapidOCR

        self._engine: Any = RapidOCR(params={"Global.log_level": "critical"})
        self.least_score = least_score

    def read(self, picture: NDArray[np.uint8]) -> tuple[Reading, ...]:
        """The lines in `picture`, uint8 [H, W, 3] sRGB, from left to right, stripped of spaces."""
        bgr = np.ascontiguousarray(picture[..., ::-1])
        found = self._engine(bgr)
        if found.txts is None:
            return ()
        readings = []
        for text, corners, score in zip(found.txts, found.boxes, found.scores, strict=True):
            if score >= self.least_score and text.strip():
                left, top = corners.min(axis=0).tolist()
                right, bottom = corners.max(axis=0).tolist()
                readings.append(Reading(text.strip(), (left, top, right, bottom)))
        return tuple(sorted(readings, key=lambda reading: reading.box[0]))
