"""Reading words: drawn ones are read, and without the packages the message says what to install."""

import numpy as np
import pytest

from deepgen.errors import InputError
from deepgen.scorers import ocr
from deepgen.world.draw import draw
from deepgen.world.scenes import Scene, Word
from deepgen.world.sprites import Sprites


@pytest.mark.skipif(not ocr.is_available(), reason="rapidocr is not installed")
def test_a_drawn_word_is_read_where_it_stands_and_an_empty_picture_reads_as_nothing() -> None:
    reader = ocr.Ocr()
    word = Word("HELLO", 60, 100, 34)
    picture = draw(Scene(256, 256, "3d", words=(word,)), Sprites.procedural())
    (reading,) = reader.read(picture)
    assert reading.text == "HELLO"
    assert abs(reading.box[0] - 60) < 12 and abs(reading.box[1] - 100) < 12
    assert reader.read(np.full((64, 64, 3), 255, np.uint8)) == ()


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'deepgen\[eval\]'"):
        ocr.Ocr()
