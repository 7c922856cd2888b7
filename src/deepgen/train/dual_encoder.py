"""Trains the small CLIP of the world: how well a picture agrees with its whole prompt, as a reward."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from deepgen.checkpoints.towers import load_tokenizer
from deepgen.train.feeds import Batch, draw_stacked
from deepgen.train.seeing import SeeingConfig, by_size, held_out_pictures, train_seeing, write_measures
from deepgen.train.tokenizer import save_tokenizer
from deepgen.world.contradictions import agreements, contradiction
from deepgen.world.dual_encoder import DualEncoder, caption_ids
from deepgen.world.sampling import Sample, draw_plan, sample_of
from deepgen.world.sprites import Sprites

Pair = tuple[Sample, str | None]
"""A sample, and a caption that is false of its scene in one respect, if there is one."""

CHOICES = 64
"""Captions among which a picture has to find its own, in the measures."""


class DualEncoderConfig(SeeingConfig):
    """`deepgen train nano_clip`."""

    stage: str = "clip"
    tokenizer: Path = Field(description="folder of nano's VLM, whose tokens are read")
    most_tokens: int = Field(96, gt=0, description="longest caption; a longer one is drawn again")
    held_out_pairs: int = Field(512, gt=1, description="test pairs that the result is measured on")


def draw_pair(rng: random.Random, split: str = "train") -> Pair:
    plan, template = draw_plan(rng, split)
    sample = sample_of(rng, plan, template, split)
    return sample, contradiction(rng, plan, sample.scene)


class PairMaker:
    """Batches of one picture size: "pixels" uint8 [n, 3, H, W]; "ids" [n + m, L] and "lengths" of the n captions and
    then of m false ones; "agrees" bool [n, n + m]."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, batch_size: int, most_tokens: int) -> None:
        self.tokenizer, self.batch_size, self.most_tokens = tokenizer, batch_size, most_tokens

    def __call__(self, rng: random.Random, sprites: Sprites) -> Iterator[Batch]:
        pairs = (pair for pair in iter(lambda: draw_pair(rng), None) if self._fits(pair))
        for some in by_size(pairs, lambda pair: pair[0].scene, self.batch_size):
            samples = [sample for sample, _ in some]
            false = [text for _, text in some if text is not None]
            ids, lengths = caption_ids(self.tokenizer, [*(s.prompt for s in samples), *false])
            agrees = torch.eye(len(samples), len(ids), dtype=torch.bool)
            for picture, caption in agreements(samples):
                agrees[picture, caption] = True
            pixels = draw_stacked([sample.scene for sample in samples], sprites)
            yield {"pixels": pixels, "ids": ids, "lengths": lengths, "agrees": agrees}

    def _fits(self, pair: Pair) -> bool:
        texts = [text for text in (pair[0].prompt, pair[1]) if text is not None]
        return caption_ids(self.tokenizer, texts)[0].shape[1] <= self.most_tokens


def train_dual_encoder(config: DualEncoderConfig) -> dict[str, dict[str, float]]:
    """Runs the stage; writes `output_dir/clip` with tokenizer and measures, and returns those.

    Raises CheckpointError where there is no tokenizer.
    """
    torch.manual_seed(config.loop.seed)
    tokenizer = load_tokenizer([config.tokenizer])
    encoder = DualEncoder(vocab_size=len(tokenizer), most_tokens=config.most_tokens)

    def loss_of(pixels: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        pictures, texts = encoder.pictures(pixels), encoder.texts(batch["ids"], batch["lengths"])
        return encoder.loss(pictures, texts, batch["agrees"]), {"scale": encoder.log_scale.detach().exp()}

    maker = PairMaker(tokenizer, config.batch_size, config.most_tokens)
    metrics = train_seeing(config, encoder, maker, loss_of)
    folder = config.output_dir / "clip"
    encoder.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    pairs = held_out_pairs(config.held_out_pairs)
    pictures = held_out_pictures(config, [sample.scene for sample, _ in pairs])
    found = {kind: measure(encoder, tokenizer, some, pairs) for kind, some in pictures.items()}
    write_measures(config, folder, metrics, found)
    return found


def held_out_pairs(count: int, seed: int = 0) -> list[Pair]:
    """Pairs of held-out prompts, each with a false caption."""
    rng = random.Random(f"clip/{seed}")
    pairs = (pair for pair in iter(lambda: draw_pair(rng, "test"), None) if pair[1] is not None)
    return [next(pairs) for _ in range(count)]


@torch.no_grad()
def measure(
    encoder: DualEncoder,
    tokenizer: PreTrainedTokenizerBase,
    pictures: Sequence[Tensor],
    pairs: Sequence[Pair],
) -> dict[str, float]:
    """Shares in [0, 1] of the pictures, each uint8 [1, 3, H, W]: `retrieval`, whose own caption is the nearest of 64
    (what is true of it besides left out); `told_apart`, whose own caption is nearer than the false one."""
    shown = torch.cat([encoder.pictures(one.to(encoder.device)) for one in pictures])

    def vectors(texts: Sequence[str]) -> Tensor:
        ids, lengths = caption_ids(tokenizer, texts)
        return encoder.texts(ids.to(encoder.device), lengths.to(encoder.device))

    samples = [sample for sample, _ in pairs]
    true = vectors([sample.prompt for sample in samples])
    false = vectors([text or "" for _, text in pairs])
    scores = shown @ true.T
    own = scores.diagonal()
    number = torch.arange(len(pairs), device=scores.device)
    others = number[:, None] // CHOICES == number // CHOICES
    others &= number[:, None] != number
    for picture, caption in agreements(samples):
        others[picture, caption] = False
    best_other = scores.masked_fill(~others, -torch.inf).amax(dim=1)
    return {
        "retrieval": (own > best_other).double().mean().item(),
        "told_apart": (own > (shown * false).sum(dim=1)).double().mean().item(),
        "pictures": len(pairs),
    }
