"""Edits with exact truth: a scene, an instruction, and the scene that results."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepgen.errors import InputError
from deepgen.world.concepts import CONCEPTS, PREDICATES
from deepgen.world.instructions import (
    ANYWHERE,
    TEMPLATES,
    at_position,
    at_relation,
    ground_names,
    instruction,
    newcomer,
    picture_names,
    reference,
)
from deepgen.world.layout import COUNTED, MARGIN, NINE, pair, place, spread
from deepgen.world.plans import (
    COLOURABLE,
    KNOWN,
    PREDICATE_IDS,
    Item,
    background_for,
    drowns,
    other_name,
    recolourable,
    sample_background,
    sample_canvas,
    sample_style,
)
from deepgen.world.scenes import POSITIONS, RELATIONS, SIZES, STYLES, Box, Object, Scene, overlap

EDIT_WEIGHTS = {
    "add": 14,
    "remove": 14,
    "replace": 14,
    "recolour": 11,
    "move": 11,
    "resize": 8,
    "background": 12,
    "style": 8,
    "reasoning_seen": 8,
    "reasoning_unseen": 0,
    "insert": 0,
}
"""The kinds of edits and how often each is drawn. Two come by name only: `reasoning_unseen`, which is only in the
test split, and `insert`, whose samples show more than one picture."""
EDIT_KINDS = tuple(EDIT_WEIGHTS)


@dataclass(frozen=True, slots=True)
class EditSample:
    """Source and target have one size. `region`: the boxes outside which not a pixel differs; `key` is what
    `split_of` hashed; `references`: pictures that the instruction speaks of, of the same size, before the source."""

    category: str
    instruction: str
    source: Scene
    target: Scene
    region: tuple[Box, ...]
    split: str
    key: str
    references: tuple[Scene, ...] = ()

    @property
    def pictures(self) -> tuple[Scene, ...]:
        """What an editor is shown, in the order in which instructions count; the last one is to be edited."""
        return (*self.references, self.source)


@dataclass(frozen=True, slots=True)
class _Draft:
    """An edit before its words: `wording` names the templates, `names` fills them, `goal` is what the key
    says."""

    wording: str
    source: Scene
    target: Scene
    names: dict[str, str]
    goal: str
    references: tuple[Scene, ...] = ()


def region_mask(sample: EditSample) -> NDArray[np.bool_]:
    """True where the edit may change the picture: bool [height, width]."""
    mask = np.zeros((sample.source.height, sample.source.width), dtype=bool)
    for left, top, right, bottom in sample.region:
        mask[top:bottom, left:right] = True
    return mask


def make_edit(rng: random.Random, kind: str, split: str) -> EditSample:
    """An edit of one of EDIT_KINDS, not yet held against the split's hash; raises InputError for an
    unknown kind, or an unseen fact asked for training."""
    if kind not in _MAKERS:
        raise InputError(f"unknown kind of edit {kind!r}; choose from {', '.join(EDIT_KINDS)}")
    if kind == "reasoning_unseen" and split != "test":
        raise InputError(
            "reasoning_unseen exists only in the test split: its facts are never trained on pictures"
        )
    draft = _MAKERS[kind](rng)
    number = rng.randrange(len(TEMPLATES[draft.wording]))
    words = instruction(rng, TEMPLATES[draft.wording][number], draft.names)
    things = sorted(f"{thing.concept}/{thing.colour}" for thing in draft.source.objects)
    key = "|".join((kind, ",".join(things), draft.goal, f"{draft.wording} {number}"))
    region = _region(kind, draft)
    return EditSample(kind, words, draft.source, draft.target, region, split, key, draft.references)


def _region(kind: str, draft: _Draft) -> tuple[Box, ...]:
    if kind in ("background", "style"):
        return ((0, 0, draft.source.width, draft.source.height),)
    if draft.wording == ANYWHERE:
        return (_free_side(draft),)
    changed = set(draft.source.objects) ^ set(draft.target.objects)
    return tuple(sorted(thing.box for thing in changed))


def _empty(rng: random.Random, items: tuple[Item, ...] = ()) -> Scene:
    """A scene without objects on which the items would be seen."""
    width, height = sample_canvas(rng)
    background = background_for(rng, items, rng.random() < 0.25)
    return Scene(width, height, sample_style(rng, rng.random() < 0.3), background)


def _items(rng: random.Random, count: int, first: Item | None = None) -> tuple[Item, ...]:
    """Different things; some in a colour, now and then two of one concept in two colours."""
    items = [first] if first else []
    while len(items) < count:
        if items and items[-1].colour and rng.random() < 0.3:
            colours = [c for c in CONCEPTS[items[-1].concept].colours if c != items[-1].colour]
            twin = Item(items[-1].concept, rng.choice(colours)) if colours else None
            if twin and twin not in items:
                items.append(twin)
            continue
        item = recolourable(rng) if rng.random() < 0.3 else Item(other_name(rng))
        if all(item.concept != other.concept for other in items):
            items.append(item)
    rng.shuffle(items)
    return tuple(items)


def _source(rng: random.Random, items: tuple[Item, ...]) -> Scene:
    """One to three things, tidily."""
    scene = _empty(rng, items)
    short = min(scene.width, scene.height)
    if len(items) == 1:
        size = rng.choice((96, 112, 132, 156) if short >= 224 else (80, 96, 112))
        return replace(scene, objects=(place(rng, items[0], (0.5, 0.5), size, scene, jitter=20),))
    if len(items) == 2:
        return replace(scene, objects=pair(rng, scene, items, None))
    fitting = [pattern for pattern in COUNTED[3] if pattern.largest(scene.width, scene.height) >= 68]
    pattern = rng.choice(fitting)
    size = min(pattern.largest(scene.width, scene.height), 96)
    return replace(scene, objects=spread(rng, scene, items, pattern, size))


def _some_source(rng: random.Random, first: Item | None = None) -> Scene:
    return _source(rng, _items(rng, rng.choices((1, 2, 3), (25, 50, 25))[0], first))


def _swap(scene: Scene, old: Object, *new: Object) -> Scene:
    """The scene with one object exchanged for another, or for none."""
    at = scene.objects.index(old)
    return replace(scene, objects=scene.objects[:at] + new + scene.objects[at + 1 :])


def _item(thing: Object) -> str:
    return f"{thing.concept}/{thing.colour}"


def _add(rng: random.Random) -> _Draft:
    if rng.random() < 0.5:
        items = _items(rng, 2)
        relation = rng.choice(RELATIONS)
        scene = _empty(rng, items)
        objects = pair(rng, scene, items, relation)
        source = replace(scene, objects=objects[1:])
        names = at_relation(rng, relation, reference(rng, objects[1], source))
        goal = f"{_item(objects[0])} {relation} {_item(objects[1])}"
    else:
        items = _items(rng, rng.choice((2, 2, 3)))
        scene = _empty(rng, items)
        cells = rng.sample(range(9), len(items))
        objects = _on_nine(rng, scene, items, cells)
        names = at_position(rng, POSITIONS[cells[0]])
        source = replace(scene, objects=objects[1:])
        goal = f"{_item(objects[0])} {POSITIONS[cells[0]]}"
    names["new"] = newcomer(rng, items[0])
    return _Draft("add", source, replace(scene, objects=objects), names, goal)


def _insert(rng: random.Random) -> _Draft:
    """The object of one picture into another one: mostly to a place as `add` names them, else where there is room."""
    if rng.random() < 0.75:
        draft = replace(_add(rng), wording="insert")
    else:
        items = _items(rng, 2)
        scene = _empty(rng, items)
        objects = pair(rng, scene, items, None)
        source, goal = replace(scene, objects=objects[1:]), f"{_item(objects[0])} anywhere"
        draft = _Draft(ANYWHERE, source, replace(scene, objects=objects), {}, goal)
    shown = _portrait(rng, draft.target.objects[0], draft.source)
    return replace(draft, names=draft.names | picture_names(rng), references=(shown,))


def _portrait(rng: random.Random, thing: Object, like: Scene) -> Scene:
    """The thing alone, in the size and style of another picture, on a background of its own."""
    item = Item(thing.concept, thing.colour)
    empty = replace(like, background=background_for(rng, (item,), rng.random() < 0.25), objects=())
    size = rng.choice((80, 96, 112, 132, 156) if min(like.width, like.height) >= 224 else (80, 96, 112))
    return replace(empty, objects=(place(rng, item, (0.5, 0.5), size, empty, jitter=20),))


def _free_side(draft: _Draft) -> Box:
    """The part of the picture beside its one object in which the newcomer stands."""
    new, old = draft.target.objects
    (left, top, right, bottom), (width, height) = old.box, (draft.source.width, draft.source.height)
    if new.box[2] <= left or new.box[0] >= right:
        return (0, 0, left, height) if new.box[2] <= left else (right, 0, width, height)
    return (0, 0, width, top) if new.box[3] <= top else (0, bottom, width, height)


def _on_nine(
    rng: random.Random, scene: Scene, items: tuple[Item, ...], cells: Sequence[int]
) -> tuple[Object, ...]:
    """Objects on cells of the 3 by 3 grid."""
    size = NINE.largest(scene.width, scene.height)
    slack = NINE.cell[0] * min(scene.width, scene.height) - size
    jitter = min(3, int(slack / 2))
    return tuple(
        place(rng, item, NINE.centres[cell], size, scene, jitter)
        for item, cell in zip(items, cells, strict=True)
    )


def _remove(rng: random.Random) -> _Draft:
    source = _some_source(rng)
    gone = rng.choice(source.objects)
    names = {"x": reference(rng, gone, source)}
    return _Draft("remove", source, _swap(source, gone), names, _item(gone))


def _replace(rng: random.Random) -> _Draft:
    source = _some_source(rng)
    old = rng.choice(source.objects)
    new = Item(other_name(rng, *(thing.concept for thing in source.objects)))
    target = _swap(source, old, replace(old, concept=new.concept, colour=None))
    names = {"x": reference(rng, old, source), "new": newcomer(rng, new)}
    return _Draft("replace", source, target, names, f"{_item(old)} {new.concept}")


def _recolour(rng: random.Random) -> _Draft:
    while True:
        first = Item(rng.choice(COLOURABLE)) if rng.random() < 0.5 else recolourable(rng)
        source = _some_source(rng, first)
        old = next(
            thing
            for thing in source.objects
            if (thing.concept, thing.colour) == (first.concept, first.colour)
        )
        taken = {
            thing.colour or CONCEPTS[thing.concept].natural
            for thing in source.objects
            if thing.concept == old.concept
        }
        colours = [
            colour
            for colour in CONCEPTS[old.concept].colours
            if colour not in taken and not any(drowns(colour, shade) for shade in source.background.colours)
        ]
        if colours:
            break
    colour = rng.choice(colours)
    names = {"x": reference(rng, old, source), "colour": colour}
    return _Draft(
        "recolour", source, _swap(source, old, replace(old, colour=colour)), names, f"{_item(old)} {colour}"
    )


def _move(rng: random.Random) -> _Draft:
    items = _items(rng, rng.choice((1, 1, 2, 2, 3)))
    scene = _empty(rng, items)
    size = NINE.largest(scene.width, scene.height)
    beside = len(items) == 2 and rng.random() < 0.5
    if beside:  # the other one stands in the middle, so that all four sides of it are free
        cells = [rng.choice((1, 3, 5, 7)), 4]
        free: Sequence[int] = (1, 3, 5, 7)
    else:
        cells, free = rng.sample(range(9), len(items)), range(9)
    objects = _on_nine(rng, scene, items, cells)
    goal_cell = rng.choice([cell for cell in free if cell not in cells])
    source = replace(scene, objects=objects)
    old = objects[0]
    moved = place(rng, items[0], NINE.centres[goal_cell], size, scene, 0)
    if beside:
        relation = {1: "above", 3: "left of", 5: "right of", 7: "below"}[goal_cell]
        names = at_relation(rng, relation, reference(rng, objects[1], source))
        goal = f"{_item(old)} {relation} {_item(objects[1])}"
    else:
        names = at_position(rng, POSITIONS[goal_cell])
        goal = f"{_item(old)} {POSITIONS[goal_cell]}"
    names["x"] = reference(rng, old, source)
    return _Draft("move", source, _swap(source, old, moved), names, goal)


def resized(thing: Object, scene: Scene, steps: int) -> Object | None:
    """The object that many of SIZES larger about its centre, pushed inside; None where no such size fits."""
    at = SIZES.index(thing.size) + steps
    if not 0 <= at < len(SIZES) or SIZES[at] > min(scene.width, scene.height) - 2 * MARGIN:
        return None
    size, (x, y) = SIZES[at], thing.centre
    left = min(max(int(x - size / 2), MARGIN), scene.width - size - MARGIN)
    top = min(max(int(y - size / 2), MARGIN), scene.height - size - MARGIN)
    new = replace(thing, x=left, y=top, size=size)
    clear = all(other == thing or not overlap(new.box, other.box) for other in scene.objects)
    return new if clear else None


def _resize(rng: random.Random) -> _Draft:
    bigger = rng.random() < 0.5
    while True:
        source = _source(rng, _items(rng, rng.choice((1, 1, 2))))
        old = rng.choice(source.objects)
        new = resized(old, source, 2 if bigger else -2)
        if new:
            break
    wording = "bigger" if bigger else "smaller"
    names = {"x": reference(rng, old, source)}
    return _Draft(wording, source, _swap(source, old, new), names, f"{_item(old)} {wording}")


def _background(rng: random.Random) -> _Draft:
    source = _some_source(rng)
    avoid = tuple(thing.colour for thing in source.objects if thing.colour)
    while (background := sample_background(rng, True, avoid)) == source.background:
        pass
    wording = "plain background" if background.kind == "plain" else "background"
    return _Draft(
        wording,
        source,
        replace(source, background=background),
        ground_names(rng, background),
        repr(background),
    )


def _style(rng: random.Random) -> _Draft:
    source = _some_source(rng)
    style = rng.choice([style for style in STYLES if style != source.style])
    return _Draft("style", source, replace(source, style=style), {"style": style}, style)


def _reasoning(unseen: bool) -> Callable[[random.Random], _Draft]:
    def make(rng: random.Random) -> _Draft:
        predicate = rng.choice(PREDICATE_IDS)
        no = KNOWN[predicate, False, unseen]
        right = rng.choice(KNOWN[predicate, True, unseen])
        count = min(rng.choice((1, 1, 2)), len(no) - 1)
        *others, newcomer_name = rng.sample(no, count + 1)
        items = [Item(right), *(Item(name) for name in others)]
        rng.shuffle(items)
        source = _source(rng, tuple(items))
        old = next(thing for thing in source.objects if thing.concept == right)
        names = {"x": f"the one that {PREDICATES[predicate].text}"}
        if rng.random() < 0.6:
            return _Draft("remove", source, _swap(source, old), names, predicate)
        names["new"] = newcomer(rng, Item(newcomer_name))
        target = _swap(source, old, replace(old, concept=newcomer_name))
        return _Draft("replace", source, target, names, f"{predicate} {newcomer_name}")

    return make


_MAKERS: dict[str, Callable[[random.Random], _Draft]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "recolour": _recolour,
    "move": _move,
    "resize": _resize,
    "background": _background,
    "style": _style,
    "reasoning_seen": _reasoning(False),
    "reasoning_unseen": _reasoning(True),
    "insert": _insert,
}
