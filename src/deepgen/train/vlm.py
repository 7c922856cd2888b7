"""Trains nano's vision-language model from scratch: a small Qwen2.5-VL, next-token prediction.

It reads dialogues about the picture world: captions of pictures, questions about pictures and about captions,
facts, spelling, prompts in the generation template answered by what they ask for, and edit instructions with
their source picture answered by a caption of the result. So what the diffusion transformer later has to know
(which thing, which colour, where, how many, what changes) is in the hidden states of the prompt.
"""

import itertools
import logging
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from deepgen.errors import DataError
from deepgen.model.prompts import (
    IM_END,
    IM_START,
    Prompt,
    Special,
    edit_prompt,
    text_to_image_prompt,
    tokenize,
)
from deepgen.model.vision import vision_embeds
from deepgen.train.feeds import Batch, draw_stacked, load_sprites, start_feed
from deepgen.train.loop import Ema, Metrics, Progress, StageConfig, apply_update, make_optimizer
from deepgen.train.tokenizer import save_tokenizer, train_tokenizer
from deepgen.train.vae import to_signed
from deepgen.world.captions import canonical_caption, ground_words, named, objects_words
from deepgen.world.questions import sample_dialogue
from deepgen.world.sampling import Sample, draw_edit, draw_sample
from deepgen.world.scenes import Scene, size_word
from deepgen.world.sprites import Sprites

log = logging.getLogger("deepgen.train")
LENGTHS = (48, 80, 112, 160, 208)  # padded lengths, so that compiled layers see few shapes
PROMPT_WEIGHT = 0.15  # of a token of the question in the loss; an answer's token weighs 1


class VlmConfig(StageConfig):
    """`deepgen train nano_vlm`."""

    stage: str = "vlm"
    compile: bool = False
    init_from: Path | None = Field(
        None, description="folder of a trained VLM (with its tokenizer) to go on from"
    )
    tokens_per_batch: int = Field(49152, gt=0)
    picture_batch_size: int = Field(256, gt=0, description="pictures in a batch of exchanges about pictures")
    vocab_size: int = 2048
    tokenizer_texts: int = 40_000
    hidden_size: int = 160
    num_layers: int = 12
    num_heads: int = 5
    intermediate_size: int = 448
    vision_hidden_size: int = 128
    vision_depth: int = 4
    vision_intermediate_size: int = 344
    held_out_batches: int = Field(
        48, gt=0, description="batches of test exchanges that the result is measured on"
    )
    minimum_accuracy: float | None = Field(None, description="fail the run below this share of right answers")


@dataclass
class Exchange:
    """One training sequence: what is shown, asked and answered."""

    scenes: tuple[Scene, ...]
    prompt: Prompt  # up to the opening of the assistant's turn
    answer: str
    kind: str


def chat_prompt(question: str) -> Prompt:
    """A plain question in Qwen's chat format, without a system turn."""
    return Prompt(
        (Special(IM_START), f"user\n{question}", Special(IM_END), "\n", Special(IM_START), "assistant\n")
    )


def picture_tokens(scene: Scene) -> int:
    return (scene.height // 32) * (scene.width // 32)


def asked_caption(sample: Sample) -> str:
    """The canonical caption of what a prompt asks for, without what it leaves open."""
    scene, mentions = sample.scene, sample.mentions
    parts = []
    if {"relation", "position", "count"} & mentions:
        parts.append(objects_words(scene))
    else:
        sized = "size" in mentions
        parts += [named(thing, size_word(thing, scene) if sized else None) for thing in scene.objects]
    parts += [f'the word "{word.text}"' for word in scene.words]
    text = " and ".join(parts)
    if "background" in mentions:
        text += " on " + ground_words(scene.background)
    return f"{text} in {scene.style} style" if "style" in mentions else text


def sample_exchange(rng: random.Random, split: str) -> Exchange:
    """Half questions and captions, the rest prompts in the two generation templates, some with two pictures."""
    draw_kind = rng.random()
    if draw_kind < 0.3:
        sample = draw_sample(rng, split, None)
        return Exchange((), text_to_image_prompt(sample.prompt), asked_caption(sample), "prompt")
    if draw_kind < 0.49:
        kind = "edit" if draw_kind < 0.45 else "insert"
        edit = draw_edit(rng, split, None if kind == "edit" else (kind,))
        prompt = edit_prompt(edit.instruction, [picture_tokens(scene) for scene in edit.pictures])
        return Exchange(edit.pictures, prompt, canonical_caption(edit.target), kind)
    dialogue = sample_dialogue(rng)
    if dialogue.scene is None:
        return Exchange((), chat_prompt(dialogue.question), dialogue.answer, "text")
    prompt = edit_prompt(dialogue.question, [picture_tokens(dialogue.scene)])
    return Exchange((dialogue.scene,), prompt, dialogue.answer, "picture")


class ExchangeMaker:
    """Batches {"ids", "weights" [B, L], "kinds", "pixels" uint8 [B, P, 3, H, W] or none} of one length, number P of
    pictures and size."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, config: VlmConfig, split: str) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.split = split

    def encode(self, exchange: Exchange) -> tuple[list[int], list[float]]:
        prompt = tokenize(self.tokenizer, exchange.prompt)
        answer = self.tokenizer.encode(exchange.answer + IM_END, add_special_tokens=False)
        image_id = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        weights = [0.0 if token == image_id else PROMPT_WEIGHT for token in prompt] + [1.0] * len(answer)
        return prompt + answer, weights

    def __call__(self, rng: random.Random, sprites: Sprites) -> Iterator[Batch]:
        waiting: dict[tuple[int, ...], list[tuple[Exchange, list[int], list[float]]]] = defaultdict(list)
        while True:
            exchange = sample_exchange(rng, self.split)
            ids, weights = self.encode(exchange)
            length = next((n for n in LENGTHS if n >= len(ids)), None)
            if length is None:
                continue
            scenes = exchange.scenes
            key = (length, len(scenes), *((scenes[0].height, scenes[0].width) if scenes else ()))
            waiting[key].append((exchange, ids, weights))
            full = self.config.tokens_per_batch // length
            if scenes:
                full = max(1, self.config.picture_batch_size // len(scenes))
            if len(waiting[key]) == full:
                yield collate(waiting.pop(key), length, sprites)


def collate(items: list[tuple[Exchange, list[int], list[float]]], length: int, sprites: Sprites) -> Batch:
    ids = torch.zeros(len(items), length, dtype=torch.int32)
    weights = torch.zeros(len(items), length)
    for row, (_, tokens, loss_weights) in enumerate(items):
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int32)
        weights[row, : len(tokens)] = torch.tensor(loss_weights)
    batch: Batch = {"ids": ids, "weights": weights, "kinds": [exchange.kind for exchange, _, _ in items]}
    scenes = [scene for exchange, _, _ in items for scene in exchange.scenes]
    if scenes:
        batch["pixels"] = draw_stacked(scenes, sprites).unflatten(0, (len(items), -1))
    return batch


def make_tokenizer(config: VlmConfig) -> PreTrainedTokenizerFast:
    rng = random.Random("tokenizer")

    def texts() -> Iterator[str]:
        for exchange in (sample_exchange(rng, "train") for _ in range(config.tokenizer_texts)):
            yield from (part for part in exchange.prompt.parts if isinstance(part, str))
            yield exchange.answer

    return train_tokenizer(texts(), config.vocab_size)


def build_vlm(config: VlmConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    token = tokenizer.convert_tokens_to_ids
    head_dim = config.hidden_size // config.num_heads
    time_section = head_dim // 8
    side = (head_dim // 2 - time_section) // 2
    sections = [head_dim // 2 - 2 * side, side, side]
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "rope_parameters": rope,
        "tie_word_embeddings": True,
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }
    vision = {
        "depth": config.vision_depth,
        "hidden_size": config.vision_hidden_size,
        "intermediate_size": config.vision_intermediate_size,
        "num_heads": 4,
        "out_hidden_size": config.hidden_size,
        "window_size": 112,
        "fullatt_block_indexes": list(range(1, config.vision_depth, 2)),
    }
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=text,
            vision_config=vision,
            tie_word_embeddings=True,
            image_token_id=token("<|image_pad|>"),
            video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"),
            vision_end_token_id=token("<|vision_end|>"),
        )
    )


def picture_positions(length: int, starts: Sequence[int], rows: int, columns: int) -> Tensor:
    """Rotary positions [3, length] of a sequence with pictures of `rows` × `columns` tokens from these indices on.

    Same as Qwen2.5-VL's get_rope_index: text counts on, a picture's tokens share the time of its first and add
    row and column, the text behind goes on after the largest position.
    """
    count = rows * columns
    grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")).view(2, -1)
    picture = torch.cat((torch.zeros(1, count, dtype=torch.long), grid))
    parts, index, position = [], 0, 0
    for start in starts:
        parts.append(torch.arange(position, position + start - index).expand(3, -1))
        position += start - index
        parts.append(picture + position)
        position += max(rows, columns)
        index = start + count
    parts.append(torch.arange(position, position + length - index).expand(3, -1))
    return torch.cat(parts, dim=1)


def picture_places(ids: Tensor, image_id: int, length: int, tokens: int, rows: int) -> tuple[Tensor, Tensor]:
    """Where pictures stand in prompts of one template, and the rotary positions. Waits for the device.

    Args:
        ids: [B, ≤ length]; the pads stand at the same places in every row, as pictures come before the text.
        image_id: the pad's.
        length: of the whole sequence.
        tokens: of one picture, in `rows` rows.

    Returns:
        Places of the pads [P·tokens] and positions [3, length].
    """
    pads = (ids[0] == image_id).nonzero().squeeze(1)
    positions = picture_positions(length, pads[::tokens].tolist(), rows, tokens // rows)
    return pads, positions.to(ids.device)


def place_pictures(embeds: Tensor, vision: Tensor, pads: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures put over their pads, and the rotary positions of the batch.

    Args:
        embeds: [B, L, D] of the tokens.
        vision: [B, P, n, D], each sample's pictures in order.
        pads, positions: from `picture_places`.

    Returns:
        Embeddings [B, L, D] and positions [3, B, L].
    """
    embeds = embeds.index_copy(1, pads, vision.flatten(1, 2).to(embeds.dtype))
    return embeds, positions[:, None].expand(3, len(embeds), -1)


def embed_batch(
    vlm: Qwen2_5_VLForConditionalGeneration, batch: Batch, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Input embeddings [B, L, D] with the pictures in place, and positions [3, B, L]."""
    ids = batch["ids"].to(device, non_blocking=True).long()
    embeds = vlm.model.language_model.embed_tokens(ids)
    count, length = ids.shape
    if "pixels" not in batch:
        return embeds, torch.arange(length, device=device).expand(3, count, -1)
    pixels = to_signed(batch["pixels"].flatten(0, 1), device)
    vision = vision_embeds(vlm.model.visual, pixels).unflatten(0, (count, -1))
    rows, tokens = pixels.shape[2] // 32, vision.shape[2]
    places = picture_places(ids, vlm.config.image_token_id, length, tokens, rows)
    return place_pictures(embeds, vision, *places)


def next_token_loss(
    vlm: Qwen2_5_VLForConditionalGeneration, batch: Batch, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy, and which answers are right to the last token [B] (teacher-forced)."""
    embeds, positions = embed_batch(vlm, batch, device)
    hidden = vlm.model.language_model(
        inputs_embeds=embeds, position_ids=positions, use_cache=False
    ).last_hidden_state
    targets = batch["ids"].to(device, non_blocking=True).long()[:, 1:]
    weights = batch["weights"].to(device, non_blocking=True)[:, 1:]
    logits = F.linear(hidden[:, :-1], vlm.model.language_model.embed_tokens.weight)
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none").view_as(
        weights
    )
    right = ((logits.argmax(-1) == targets) | (weights < 1.0)).all(dim=1)
    return (losses * weights).sum() / weights.sum(), right


@torch.no_grad()
def answer_accuracy(
    vlm: Qwen2_5_VLForConditionalGeneration, batches: list[Batch], device: torch.device
) -> dict[str, float]:
    """Share of held-out exchanges answered right to the last token, by kind."""
    right: dict[str, list[bool]] = defaultdict(list)
    for batch in batches:
        _, correct = next_token_loss(vlm, batch, device)
        for kind, value in zip(batch["kinds"], correct.tolist(), strict=True):
            right[kind].append(value)
    return {kind: sum(values) / len(values) for kind, values in right.items()}


def measure(
    vlm: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, config: VlmConfig
) -> dict[str, float]:
    """Accuracy by kind on test exchanges that no seed of the training sees."""
    small = {
        "tokens_per_batch": min(8192, config.tokens_per_batch),
        "picture_batch_size": min(64, config.picture_batch_size),
    }
    maker = ExchangeMaker(tokenizer, config.model_copy(update=small), "test")
    stream = maker(random.Random("vlm-test"), load_sprites(config.sprites))
    return answer_accuracy(
        vlm, list(itertools.islice(stream, config.held_out_batches)), torch.device(config.device)
    )


def train_vlm(config: VlmConfig) -> dict[str, Any]:
    """Runs the stage; writes `output_dir/vlm` (fp32 safetensors, tokenizer included), returns the accuracies."""
    torch.manual_seed(config.loop.seed)
    device = torch.device(config.device)
    if config.init_from is None:
        tokenizer = make_tokenizer(config)
        vlm = build_vlm(config, tokenizer)
    else:
        tokenizer = AutoTokenizer.from_pretrained(config.init_from)
        vlm = Qwen2_5_VLForConditionalGeneration.from_pretrained(config.init_from, dtype=torch.float32)
    save_tokenizer(tokenizer, config.output_dir / "vlm")
    vlm = vlm.to(device)
    log.info("VLM: %.2f M parameters", sum(p.numel() for p in vlm.parameters()) / 1e6)
    if config.compile:
        torch._dynamo.config.cache_size_limit = 64
        for layer in vlm.model.language_model.layers:
            layer.compile()
    optimizer = make_optimizer([vlm], config.loop)
    ema = Ema(vlm, config.loop.ema_decay)
    metrics = Metrics(config.output_dir)
    maker = ExchangeMaker(tokenizer, config, "train")
    feed = start_feed(maker, config.sprites, config.loop.seed, config.workers)
    progress = Progress(config.loop)
    for step in progress.updates("VLM"):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss, right = next_token_loss(vlm, next(feed), device)
        loss.backward()
        apply_update(optimizer, progress)
        ema.update()
        if step % config.loop.log_every_steps == 0:
            share = right.float().mean().item()
            metrics.write(stage="vlm", step=step, seconds=progress.elapsed, loss=loss.item(), right=share)
    ema.swap()
    vlm.save_pretrained(config.output_dir / "vlm")
    accuracy = measure(vlm, tokenizer, config)
    metrics.write(stage="vlm", **{f"accuracy_{kind}": value for kind, value in accuracy.items()})
    if config.minimum_accuracy is not None and accuracy.get("text", 0.0) < config.minimum_accuracy:
        raise DataError(
            f"the VLM answers {accuracy['text']:.0%} of text questions, below {config.minimum_accuracy:.0%}"
        )
    return accuracy
