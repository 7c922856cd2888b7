import pytest

from deepgen.train.tokenizer import SPECIAL_TOKENS, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(["a red car left of a dog", "Generate an image: a red car"] * 50), 330)


def test_special_tokens_come_first(tokenizer):
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))


def test_quoted_text_is_one_token_a_character(tokenizer):
    inside = tokenizer.tokenize('a red car "redcar" car')[3:-1]
    assert "".join(inside).lstrip("Ġ") == '"redcar"'
    assert [token for token in inside if token not in ("Ġ", '"', 'Ġ"')] == list("redcar")


def test_any_text_survives_the_round_trip(tokenizer):
    for text in ("naïve café", "日本語 🙂", 'he said "CRAB" twice', "a\n\nb  c", 'one " quote'):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_common_words_are_single_tokens(tokenizer):
    assert len(tokenizer.tokenize("a red car")) == 3
