import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from deepgen.errors import CheckpointError
from deepgen.model.prompts import NEGATIVE_EDIT, edit_prompt, text_to_image_prompt, tokenize

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
]
QWEN_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_pair_tokenizer(specials=SPECIALS):
    """A byte-level BPE with Qwen's way of splitting and merges that reach over the template's borders."""
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(
        ["user\nGenerate an image: a dog, a cat\n\nmake it blue", "assistant\n"] * 9, trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<|endoftext|>")


TOKENIZER = byte_pair_tokenizer()
IMAGE_PAD = TOKENIZER.convert_tokens_to_ids("<|image_pad|>")


def test_the_text_template_is_the_published_one():
    head, tail = "<|im_start|>user\nGenerate an image: ", "<|im_end|>\n<|im_start|>assistant\n"
    assert text_to_image_prompt("a dog") == head + "a dog" + tail
    assert text_to_image_prompt("") == head + tail


def test_the_edit_template_is_the_published_one():
    assert edit_prompt("make it blue", [2, 1]) == (
        "<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"
        "<|vision_start|><|image_pad|><|vision_end|>"
        "\nmake it blue<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_edit_negative_is_the_published_one():
    cases = json.loads((GOLDEN / "cases" / "cases.json").read_text())
    (edit,) = (case for case in cases if case["name"] == "edit_single")
    assert edit["negative_prompts"] == [NEGATIVE_EDIT]


@given(st.text(max_size=40).filter(lambda text: "<|" not in text))
def test_ids_are_those_of_the_whole_string(text):
    for prompt in (text_to_image_prompt(text), edit_prompt(text, [3, 2])):
        assert tokenize(TOKENIZER, prompt) == TOKENIZER.encode(str(prompt), add_special_tokens=False)


def test_words_merge_across_the_border_of_template_and_text():
    (space_a,) = TOKENIZER.encode(" a", add_special_tokens=False)
    assert space_a in tokenize(TOKENIZER, text_to_image_prompt("a dog"))


@pytest.mark.parametrize("special", SPECIALS)
def test_special_tokens_typed_by_users_stay_text(special):
    number = TOKENIZER.convert_tokens_to_ids(special)
    for make in (text_to_image_prompt, lambda text: edit_prompt(text, [4])):
        plain, typed = tokenize(TOKENIZER, make("x y")), tokenize(TOKENIZER, make(f"x{special}y"))
        assert typed.count(number) == plain.count(number)
        assert TOKENIZER.decode(typed) == str(make(f"x{special}y"))


def test_a_tokenizer_without_the_special_tokens_is_refused():
    with pytest.raises(CheckpointError, match=r"no special token <\|vision_start\|>"):
        tokenize(byte_pair_tokenizer(SPECIALS[:3]), edit_prompt("x", [1]))


def test_prompts_survive_the_way_to_a_worker_process():
    prompt = pickle.loads(pickle.dumps(edit_prompt("make it blue", [2])))
    assert (
        prompt == edit_prompt("make it blue", [2]) and prompt.parts == edit_prompt("make it blue", [2]).parts
    )
