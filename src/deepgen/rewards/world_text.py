"""Whether the word that a prompt of the picture world asks for is written in the picture, by nano's own reader."""

from collections.abc import Sequence
from pathlib import Path

from deepgen.rewards.protocol import Kind, RewardInput, Score
from deepgen.rewards.text_match import levenshtein, quoted_texts
from deepgen.rewards.trained import in_batches, load_trained
from deepgen.world.reader import Reader

EXACT_BONUS = 0.25
"""What the last wrong letter costs beyond its share: most of the way to a word is not yet the word."""


class WorldText:
    """In [0, 1]; see `text_value`. Letters count with their case.

    No value where the prompt quotes no text, or several: the reader reads one. path: a folder of `deepgen train
    train/nano_reader`. Raises CheckpointError.
    """

    kind: Kind = "pointwise"

    def __init__(self, name: str, path: Path, device: str) -> None:
        self.name = name
        self._reader: Reader = load_trained(Reader, path, "nano_reader", device)

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        """Raises InputError for sides that are no multiples of 32."""
        wanted = [quoted_texts(one.prompt, "unicode") for one in batch]
        scores = [Score(None, f"the prompt quotes {len(texts)} texts, not one") for texts in wanted]
        places = [place for place, texts in enumerate(wanted) if len(texts) == 1]
        texts = in_batches(self._reader.read, [batch[place].picture for place in places])
        for place, text in zip(places, texts, strict=True):
            scores[place] = Score.of(text_value(wanted[place][0], text))
        return scores


def text_value(wanted: str, read: str) -> float:
    """0.75·(1 − d/n) + 0.25 if they are equal, in [0, 1].

    d: Levenshtein's distance; n: the longer one's length, so that letters that were not asked for cost as well.
    """
    share = 1 - levenshtein(wanted, read) / max(len(wanted), len(read))
    return (1 - EXACT_BONUS) * share + EXACT_BONUS * (wanted == read)
