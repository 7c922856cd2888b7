"""How well a picture of the world agrees with its whole prompt, by nano's own small CLIP."""

from collections.abc import Sequence
from pathlib import Path

import torch

from deepgen.checkpoints.towers import load_tokenizer
from deepgen.rewards.protocol import Kind, RewardInput, Score
from deepgen.rewards.trained import in_batches, load_trained
from deepgen.world.dual_encoder import DualEncoder, caption_ids


class WorldClip:
    """The cosine in [−1, 1] between a picture's and its prompt's unit vectors (Radford et al. 2021, section 2.3).

    No value for edits, whose prompts do not say what the picture shows, and for prompts longer than it reads. path: a
    folder of `deepgen train train/nano_clip`. Raises CheckpointError.
    """

    kind: Kind = "pointwise"

    def __init__(self, name: str, path: Path, device: str) -> None:
        self.name = name
        self._encoder: DualEncoder = load_trained(DualEncoder, path, "nano_clip", device)
        self._tokenizer = load_tokenizer([path])

    @torch.inference_mode()
    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        """Raises InputError for sides that are no multiples of 32."""
        scores = [self._inapplicable(one) for one in batch]
        places = [place for place, score in enumerate(scores) if not score.reason]
        if not places:
            return scores
        ids, lengths = caption_ids(self._tokenizer, [batch[place].prompt for place in places])
        device = self._encoder.device
        texts = self._encoder.texts(ids.to(device), lengths.to(device)).cpu()
        pictures = in_batches(
            lambda some: list(self._encoder.pictures(some.to(device)).cpu()),
            [batch[place].picture for place in places],
        )
        for place, text, picture in zip(places, texts, pictures, strict=True):
            scores[place] = Score.of(float(text @ picture))
        return scores

    def _inapplicable(self, one: RewardInput) -> Score:
        """Why there is no value; without a reason where there is one."""
        if one.references:
            return Score(None, "an edit's prompt does not say what the picture shows")
        length = int(caption_ids(self._tokenizer, [one.prompt])[1])
        most = self._encoder.config["most_tokens"]
        if not 0 < length <= most:
            return Score(None, f"the prompt has {length} tokens; 1 to {most} can be read")
        return Score(None)
