"""Letters in pictures: which words are written, and the masks of their glyphs.

Every font is made from the one that PIL carries (Aileron), so that nothing has to be installed: as it is,
with a thicker stroke, and slanted.
"""

import random
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

FONTS = ("plain", "bold", "slanted")
WORD_HEIGHTS = (20, 24, 28, 34, 40, 48)
"""Height of a capital letter in pixels."""

_SHORT, _SHORT_SHARE = range(3, 6), 0.75  # letters of most words: what a small model can learn to spell

_CAPITAL_SHARE = 0.7  # of the font size, for Aileron
_SLANT = 0.22

_COMMON = """
art ask bag bar bee best big bike bird blue boat bold book box boy bread bright bus cake calm camp card
city clean clock cloud club coast code coffee cold cook cool corn craft cream cup dance dark data dawn day
deal deep desk dog door down dream dress drink drum dust east easy echo exit fair fall farm fast field
film fire first fish five flag flower fly food forest four free fresh frost fruit fun game garden gate
gift girl glad glass go gold good grand grass green grill happy hat hello help hero high hill holiday home
honey hope hot hotel house ice idea inn island jam jazz jet job joy juice jump jungle key kids kind king
kiss kite lake lamp land late laugh leaf lemon level life light lime line lion list live local long lost
love luck lunch magic mail map market menu metro milk mind mint moon more music museum name new nice night
nine no noon north note now oak ocean office old one open orange order palm paper park party path peace
pen phone piano picnic pink pizza plan plant play plaza pool power press price prize pub push quick quiet
quiz race radio rain red rest rice ride ring river road rock roof room rose run safe sail sale salt sand
school sea seven shop show silver sing six sky sleep slow smile snow soap soft song soup south space spice
sport spring star start stop storm story street sugar summer sun sweet swim table taxi tea team ten thanks
theatre three tiger time toast today tool top tour town toy train travel tree trip true tune turn two up
valley vote wait walk warm water wave way welcome west wet wild win wind wine winter wish wood word work
world yard year yellow yes yoga young zebra zero zone zoo
"""
COMMON_WORDS = tuple(word for word in _COMMON.split() if 2 <= len(word) <= 8)
_ONSETS = (*"bcdfghjklmnprstvwxyz", "br", "dr", "fl", "pl", "qu", "st", "tr")
_VOWELS = (*"aeiou", "ee", "oo")
_CODAS = ("", *"bdklnprstx")


def sample_word(rng: random.Random, extra: tuple[str, ...] = (), longest: int = 8) -> str:
    """A word of 2 to `longest` letters in capitals or capitalised: mostly real (from a list, or from
    `extra`), one in four invented, so that letters have to be read and not recognised as a whole. Three in four have
    3 to 5 letters."""
    lengths = _SHORT if rng.random() < _SHORT_SHARE else range(2, longest + 1)
    while True:
        chance = rng.random()
        if chance < 0.25:
            text = "".join(
                rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
                for _ in range(rng.choice((1, 2)))
            )
        else:
            text = rng.choice(extra if extra and chance < 0.45 else COMMON_WORDS)
        if len(text) in lengths:
            return text.upper() if rng.random() < 0.75 else text.capitalize()


@lru_cache(maxsize=64)
def _font(height: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(height / _CAPITAL_SHARE)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType: install Pillow from a wheel")
    return font


@lru_cache(maxsize=8192)
def glyphs(text: str, height: int, font: str) -> Image.Image:
    """The ink of `text` as a mask of mode L, cropped; `height` is that of a capital letter, `font` one of
    FONTS."""
    face = _font(height)
    stroke = max(1, height // 16) if font == "bold" else 0
    pad = height
    width = int(face.getlength(text)) + 2 * pad
    mask = Image.new("L", (width, 3 * height))
    ImageDraw.Draw(mask).text((pad, height // 2), text, fill=255, font=face, stroke_width=stroke)
    if font == "slanted":
        shear = (1, _SLANT, -_SLANT * 1.5 * height, 0, 1, 0)
        mask = mask.transform(mask.size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR)
    box = mask.getbbox()
    return mask.crop(box) if box else mask


def text_size(text: str, height: int, font: str) -> tuple[int, int]:
    """Width and height in pixels of the ink of `text`."""
    return glyphs(text, height, font).size
