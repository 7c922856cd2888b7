"""The reader: its decoding, its loss against a sum over all ways to write a text, and scenes with wrong letters."""

import itertools
import math
import random

import pytest
import torch

from deepgen.errors import InputError
from deepgen.world.draw import draw_batch
from deepgen.world.reader import Reader, misspelt, word_of
from deepgen.world.sampling import draw_sample
from deepgen.world.scenes import Background, Scene, Word
from deepgen.world.sprites import Sprites


@pytest.fixture(scope="module")
def reader() -> Reader:
    torch.manual_seed(0)
    return Reader(alphabet="abAB").eval()


def test_it_has_at_most_half_a_million_parameters() -> None:
    assert sum(p.numel() for p in Reader().parameters()) <= 0.5e6


def test_a_word_of_one_row_is_seen_in_a_high_picture(reader: Reader) -> None:
    low, high = torch.zeros(1, 3, 64, 128), torch.zeros(1, 3, 512, 128)
    bar = torch.zeros(1, 3, 16, 8).fill_(1.0)
    seen = []
    for picture in (low, high):
        with_bar = picture.clone()
        with_bar[:, :, 32:48, 60:68] = bar
        seen.append((reader(with_bar) - reader(picture)).abs().max().item())
    assert seen[1] > 0.5 * seen[0] > 0


def test_one_output_for_four_pixels_and_pictures_of_any_multiple_of_32(reader: Reader) -> None:
    for height, width in ((256, 256), (192, 320)):
        assert reader(torch.zeros(2, 3, height, width)).shape == (2, width // 4, 5)
    with pytest.raises(InputError, match="32s"):
        reader(torch.zeros(1, 3, 250, 256))


def test_repetitions_count_once_and_blanks_part_equal_letters(reader: Reader) -> None:
    rows = torch.tensor([[0, 1, 1, 0, 1, 2, 2], [0, 0, 0, 0, 0, 0, 0], [4, 4, 0, 4, 3, 3, 1]])
    assert [reader._text(row) for row in rows] == ["aab", "", "BBAa"]


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [number for number, _ in itertools.groupby(path) if number]


@pytest.mark.parametrize("text", ["ab", "aa", ""])
def test_the_loss_is_the_chance_of_all_ways_to_write_the_text(reader: Reader, text: str) -> None:
    torch.manual_seed(1)
    logits = torch.randn(1, 4, 5, dtype=torch.float64)
    chances = logits.softmax(-1)[0]
    wanted = [1 + "abAB".index(letter) for letter in text]
    total = sum(
        math.prod(chances[column, number].item() for column, number in enumerate(path))
        for path in itertools.product(range(5), repeat=4)
        if collapsed(path) == wanted
    )
    assert reader.loss(logits, *reader.targets([text])).item() == pytest.approx(-math.log(total), rel=1e-5)


def test_a_letter_that_it_does_not_know_is_named(reader: Reader) -> None:
    with pytest.raises(InputError, match="knows no 'x'"):
        reader.targets(["ax"])


def test_wrong_letters_keep_their_kind_and_stay_inside_the_picture() -> None:
    rng = random.Random(0)
    changed = 0
    for _ in range(60):
        scene = draw_sample(rng, "train", ("words",)).scene
        wrong = misspelt(rng, scene)
        changed += word_of(wrong) != word_of(scene)
        assert word_of(wrong).isupper() == word_of(scene).isupper() or len(word_of(wrong)) <= 2
        assert wrong.words[0].box[2] <= scene.width and set(word_of(wrong)) <= set(
            Reader().config["alphabet"]
        )
    assert changed > 45
    blank = draw_sample(rng, "train", ("single",)).scene
    assert misspelt(rng, blank) == blank and word_of(blank) == ""


def test_it_learns_to_read_what_it_is_shown_and_where_there_is_nothing() -> None:
    torch.manual_seed(0)
    texts = ["AB", "", "BBA", "a"]
    words = [(Word(text, 8, 4 + 8 * row, 24),) if text else () for row, text in enumerate(texts)]
    scenes = [Scene(96, 64, "3d", Background(), (), some) for some in words]
    pictures = draw_batch(scenes, Sprites.procedural())
    reader = Reader(alphabet="abAB", widths=(8, 16, 24, 32), line_width=48)
    optimizer = torch.optim.Adam(reader.parameters(), 5e-3)
    for _ in range(130):
        optimizer.zero_grad()
        reader.loss(reader(pictures), *reader.targets(texts)).backward()
        optimizer.step()
    assert reader.eval().read(pictures) == texts
