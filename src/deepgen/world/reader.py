"""The reader of the picture world: which word is written in a picture, or that there is none.

A small network reads columns of four pixels from left to right and says a letter or a blank at each (connectionist
temporal classification, Graves et al. 2006; with convolutions alone, as in Shi et al. 2015 before its recurrent
layers). A column takes each feature where it is strongest from top to bottom. A mean over the height, also one with
learnt weights that start alike, hides a word that is one row of sixteen: such a reader said only blanks for hundreds of
updates. It rewards nano's words; the evaluation reads with RapidOCR, which this network has never seen.
"""

import random
import string
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from deepgen.errors import InputError
from deepgen.world.blocks import Bottleneck, conv_unit, network_input
from deepgen.world.scenes import Scene, Word

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits
BLANK_FIRST = 5.0
"""Logit of the blank before training, which has to begin somewhere: most columns show no letter."""


class Reader(ModelMixin, ConfigMixin):
    """Letters of a picture, from left to right; at most 0.5 M parameters.

    The order of `alphabet` is the order of the logits, after the blank, and is saved with the weights.
    """

    @register_to_config
    def __init__(
        self,
        alphabet: str = ALPHABET,
        widths: tuple[int, int, int, int] = (16, 32, 64, 96),
        line_width: int = 128,
    ) -> None:
        super().__init__()
        w2, w4, w8, w16 = widths
        self.columns = nn.Sequential(conv_unit(3, w2, 5, 2), conv_unit(w2, w4, 3, 2))
        # From here on only the height is halved: columns stay as narrow as letters are.
        self.look = nn.Sequential(
            conv_unit(w4, w8, 3, (2, 1)),
            Bottleneck(w8, w8 // 2),
            conv_unit(w8, w16, 3, (2, 1)),
            Bottleneck(w16, w16 // 2),
            Bottleneck(w16, w16 // 2),
        )
        letters = nn.Conv1d(line_width, 1 + len(alphabet), 1)
        assert letters.bias is not None
        nn.init.constant_(letters.bias[:1], BLANK_FIRST)
        self.line = nn.Sequential(
            *self._along(w16, line_width),
            *self._along(line_width, line_width),
            letters,
        )

    @staticmethod
    def _along(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
        return nn.Conv1d(inputs, outputs, 5, padding=2, bias=False), nn.BatchNorm1d(outputs), nn.SiLU()

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits [B, W/4, 1 + letters] of `pictures`, uint8 [B, 3, H, W] or floats in [0, 1]; the blank comes first.

        Raises InputError for other shapes, or sides that are no multiples of 32.
        """
        features = self.look(self.columns(network_input(pictures, self.dtype)))
        return self.line(features.amax(dim=2)).movedim(1, 2)

    def targets(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The numbers of all letters one after another [sum of lengths] and the lengths [B], both int64.

        Raises InputError for a letter that the reader does not know.
        """
        numbers = {letter: 1 + place for place, letter in enumerate(self.config["alphabet"])}
        unknown = sorted({letter for text in texts for letter in text} - numbers.keys())
        if unknown:
            raise InputError(f"the reader knows no {unknown[0]!r}; it reads {self.config['alphabet']}")
        letters = [numbers[letter] for text in texts for letter in text]
        return torch.tensor(letters, dtype=torch.long), torch.tensor([len(text) for text in texts])

    @staticmethod
    def loss(logits: Tensor, letters: Tensor, lengths: Tensor) -> Tensor:
        """Mean negative log-likelihood of the texts, a scalar in nats a picture (Graves et al. 2006, equation 8).

        logits: of `forward`; letters, lengths: of `targets`; an empty text is all blanks.
        """
        chances = logits.float().log_softmax(dim=-1).movedim(0, 1)
        columns = torch.full_like(lengths, len(chances))
        return F.ctc_loss(chances, letters, columns, lengths, reduction="sum") / len(lengths)

    @torch.no_grad()
    def read(self, pictures: Tensor) -> list[str]:
        """The text in each picture (as `forward` takes them), in evaluation mode's arithmetic; "" for none.

        The likeliest letter of each column, repetitions once, without blanks (Graves et al. 2006, section 3.2).
        """
        best = self(pictures.to(self.device)).argmax(dim=-1).cpu()
        return [self._text(row) for row in best]

    def _text(self, row: Tensor) -> str:
        kept = [number for number in torch.unique_consecutive(row).tolist() if number]
        return "".join(self.config["alphabet"][number - 1] for number in kept)


def word_of(scene: Scene) -> str:
    """The scene's words, joined; "" where there are none."""
    return "".join(word.text for word in scene.words)


def misspelt(rng: random.Random, scene: Scene) -> Scene:
    """The scene with one to three letters of its word exchanged, doubled or left out, in their kind of letter.

    A generator spells wrongly; a reader that has seen only words would read what should be there. The scene comes back
    as it is where it has no word, or the new one has no room.
    """
    if not scene.words:
        return scene
    word = scene.words[0]
    letters = list(word.text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(letters))
        kind = string.ascii_lowercase if letters[at].islower() else string.ascii_uppercase
        change = rng.choice(("exchange", "exchange", "double", "drop"))
        if change == "exchange":
            letters[at] = rng.choice(kind)
        elif change == "double":
            letters.insert(at, letters[at])
        elif len(letters) > 1:
            del letters[at]
    new = replace(word, text="".join(letters))
    return replace(scene, words=(new, *scene.words[1:])) if _fits(new, scene) else scene


def _fits(word: Word, scene: Scene) -> bool:
    _, _, right, bottom = word.box
    return right <= scene.width and bottom <= scene.height
