"""The words and templates from which captions are made."""

NUMBERS = ("zero", "one", "two", "three", "four", "five")
SYNONYM_SHARE = 0.25

RELATION_WORDS = {
    "left of": ("to the left of", "left of", "on the left of", "on the left side of"),
    "right of": ("to the right of", "right of", "on the right of", "on the right side of"),
    "above": ("above", "above", "over", "directly above"),
    "below": ("below", "below", "under", "beneath", "underneath"),
}
POSITION_WORDS = {
    "top left corner": ("in the top left corner", "in the upper left corner", "at the top left"),
    "top": ("at the top", "at the top edge", "in the top middle"),
    "top right corner": ("in the top right corner", "in the upper right corner", "at the top right"),
    "left side": ("on the left side", "on the left", "at the left edge"),
    "centre": ("in the centre", "in the middle", "in the center"),
    "right side": ("on the right side", "on the right", "at the right edge"),
    "bottom left corner": ("in the bottom left corner", "in the lower left corner", "at the bottom left"),
    "bottom": ("at the bottom", "at the bottom edge", "in the bottom middle"),
    "bottom right corner": ("in the bottom right corner", "in the lower right corner", "at the bottom right"),
}
SIZE_WORDS = {"big": ("big", "big", "large", "huge"), "small": ("small", "small", "little", "tiny")}

# "A picture of" may stand before a phrase, but not before a sentence. Both take a background after them.
PHRASES: dict[str, tuple[str, ...]] = {
    "one": ("{a}", "just {a}", "a single {noun}", "{a} on its own", "{a} all alone", "only {a}"),
    "colours": (
        "{a}",
        "{plain} in {colour}",
        "{plain} coloured {colour}",
        "{plain} that is {colour}",
        "a single {noun}",
        "just {a}",
        "{plain}, {colour}",
    ),
    "position": (
        "{a} {at}",
        "just {a} {at}",
        "{a} placed {at}",
        "{a} that is {at}",
        "{a}, {at}",
        "a single {noun} {at}",
    ),
    "and": ("{a} and {b}", "{a} with {b}", "{a} together with {b}", "{a} along with {b}", "both {a} and {b}"),
    "two": (
        "{a} {rel} {b}",
        "{a} placed {rel} {b}",
        "{b} with {a} {rel} it",
        "{a} and {b}, {the_a} {rel} {the_b}",
        "{b} and {a} {rel} it",
        "{a} that is {rel} {b}",
    ),
    "counting": (
        "{n} {nouns}",
        "exactly {n} {nouns}",
        "a group of {n} {nouns}",
        "{nouns}, {n} of them",
        "a set of {n} {nouns}",
        "{n} {nouns} together",
    ),
    "counting one": (
        "{n} {noun}",
        "exactly {n} {noun}",
        "only {n} {noun}",
        "just {n} {noun}",
        "{n} {noun} alone",
    ),
    "word": ("the word {w}", "the text {w}", "{w}", "{w} as text", "the letters {w}", "the written word {w}"),
    "word and one": (
        "{a} with the word {w} {place} it",
        "the word {w} {place} {a}",
        "{a} and the word {w} {place} it",
        "{a} {other} the word {w}",
        "{a}, {place} it the text {w}",
    ),
    "reasoning": ("the one that {fact}: {x} or {y}", "the one that {fact}, {x} or {y}"),
}
SENTENCES: dict[str, tuple[str, ...]] = {
    "one": ("{noun}", "there is {a}", "this is {a}", "draw {a}", "show me {a}", "I want to see {a}"),
    "colours": (
        "{noun}",
        "{the_plain} is {colour}",
        "there is {a}",
        "draw {a}",
        "make {plain} and colour it {colour}",
    ),
    "position": ("there is {a} {at}", "put {a} {at}", "{at} there is {a}", "draw {a} {at}", "{a} is {at}"),
    "and": ("there is {a} and {b}", "draw {a} and {b}", "show me {a} and {b}", "I see {a} and {b}"),
    "two": (
        "{a} is {rel} {b}",
        "there is {a} {rel} {b}",
        "put {a} {rel} {b}",
        "{rel} {b} is {a}",
        "draw {b} and put {a} {rel} it",
        "I see {a} {rel} {b}",
    ),
    "counting": ("there are {n} {nouns}", "draw {n} {nouns}", "show me {n} {nouns}", "I see {n} {nouns}"),
    "counting one": ("there is {n} {noun}", "draw {n} {noun}", "I see {n} {noun}", "show me {n} {noun}"),
    "word": ("write {w}", "write the word {w}", "it says {w}", "the text says {w}"),
    "word and one": (
        "write {w} {place} {a}",
        "the word {w} is {place} {a}",
        "draw {a} and write {w} {place} it",
    ),
    "reasoning": (
        "draw the one that {fact}, {x} or {y}",
        "{ask}, {x} or {y}? draw it",
        "{x} or {y}? show the one that {fact}",
        "from {x} and {y}, draw the one that {fact}",
        "{x} or {y}, whichever {fact}",
        "whichever of {x} and {y} {fact}",
        "either {x} or {y}: the one that {fact}",
        "of {x} and {y}, the one that {fact}",
    ),
}
BEFORE = ("a picture of ", "an image of ", "an illustration of ", "a drawing of ")
STYLED_BEFORE = {
    "3d": ("a 3d picture of ", "a 3d render of ", "3d icon of ", "a 3d drawing of "),
    "flat": ("a flat picture of ", "a flat drawing of ", "flat icon of ", "a flat illustration of "),
    "cartoon": ("a cartoon of ", "a cartoon picture of ", "a cartoon drawing of ", "cartoon icon of "),
    "noto": ("a noto picture of ", "a noto drawing of ", "noto icon of ", "a noto illustration of "),
}
STYLED_AFTER = (" in {} style", ", {} style", ", {}", " in the {} style")
