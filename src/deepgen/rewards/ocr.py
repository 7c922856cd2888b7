"""The OCR reward: how well what a prompt quotes can be read in the picture."""

from collections.abc import Sequence

from deepgen.rewards.protocol import Kind, RewardInput, Score
from deepgen.rewards.text_match import Matching, match_score, quoted_texts
from deepgen.scorers.ocr import Ocr


class OcrReward:
    """See `text_match`; in [0, 1]. A prompt that quotes nothing has no value, so that one such prompt costs the others
    of a batch nothing. Raises InputError where rapidocr is not installed."""

    kind: Kind = "pointwise"

    def __init__(self, name: str, matching: Matching, least_score: float) -> None:
        self.name = name
        self._matching = matching
        self._ocr = Ocr(least_score)

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        return [self._score(one) for one in batch]

    def _score(self, one: RewardInput) -> Score:
        targets = quoted_texts(one.prompt, self._matching)
        if not targets:
            return Score(None, "the prompt quotes no text")
        return Score.of(match_score(targets, self._ocr.read(one.picture), self._matching))
