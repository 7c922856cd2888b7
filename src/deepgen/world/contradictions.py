"""Captions that are false of a picture in one respect: what a dual encoder must learn to tell from the true one."""

import random
from collections.abc import Sequence
from dataclasses import replace

from deepgen.world.captions import caption, choose_template
from deepgen.world.colours import COLOURS
from deepgen.world.judging import judge_sample, truth_of
from deepgen.world.layout import lay_out
from deepgen.world.plans import Item, Plan, other_name, sample_background
from deepgen.world.sampling import Sample
from deepgen.world.scenes import INVERSE, POSITIONS, STYLES, Scene
from deepgen.world.words import sample_word

COUNTS = (1, 2, 3, 4, 5)
ATTEMPTS = 4


def contradiction(rng: random.Random, plan: Plan, scene: Scene) -> str | None:
    """A caption of the plan with one statement changed, false of the scene (which shows the plan).

    None where the plan states nothing that can be changed so: facts stay true whatever else is said.
    """
    if plan.predicate is not None:
        return None
    for _ in range(ATTEMPTS):
        changed = _changed(rng, plan)
        template = choose_template(rng, changed)
        asked = Sample(changed.category, "", lay_out(rng, changed), changed.mentions, "train", "")
        if not is_true(asked, scene):
            return caption(rng, changed, template)
    return None


def is_true(sample: Sample, scene: Scene) -> bool:
    """Whether what the sample's prompt states holds in a drawing of the scene; the colour of letters is left out."""
    return not judge_sample(sample, truth_of(scene))


def agreements(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Pairs (i, j), i ≠ j, for which the prompt of sample j is true of the scene of sample i."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, sample in enumerate(samples):
        names = tuple(sorted(item.concept for item in sample.scene.objects))
        alike.setdefault(names, []).append(
            place
        )  # a true prompt names what there is, so only these can agree
    return [
        (i, j)
        for places in alike.values()
        for i in places
        for j in places
        if i != j and is_true(samples[j], samples[i].scene)
    ]


def _changed(rng: random.Random, plan: Plan) -> Plan:
    """The plan with one of its statements drawn anew."""
    items = plan.items
    stated: tuple[str, ...] = ("relation", "position", "background", "style", "word")
    ways = [name for name in stated if name in plan.mentions]
    ways += ["concept"] * bool(items)
    ways += ["count", "count"] * ("count" in plan.mentions)
    ways += ["colour", "colour"] * any(item.colour for item in items)
    ways += ["size"] * any(item.size for item in items)
    ways += ["exchange", "exchange"] * (len(items) == 2)
    way = rng.choice(ways)
    if way == "relation" and plan.relation:
        return replace(plan, relation=INVERSE[plan.relation])
    if way == "position":
        return replace(plan, position=rng.choice([one for one in POSITIONS if one != plan.position]))
    if way == "background":
        return replace(plan, background=sample_background(rng, True))
    if way == "style":
        return replace(plan, style=rng.choice([one for one in STYLES if one != plan.style]))
    if way == "word" and plan.lettering:
        return replace(plan, lettering=replace(plan.lettering, text=sample_word(rng)))
    return replace(plan, items=_changed_items(rng, items, way))


def _changed_items(rng: random.Random, items: tuple[Item, ...], way: str) -> tuple[Item, ...]:
    """exchange: the two things change places, with their colours or without them."""
    if way == "exchange":
        first, second = items
        if first.colour and second.colour and rng.random() < 0.7:
            return replace(first, colour=second.colour), replace(second, colour=first.colour)
        return replace(first, concept=second.concept), replace(second, concept=first.concept)
    if way == "size":
        other = {"big": "small", "small": "big", None: None}
        return tuple(replace(item, size=other[item.size]) for item in items)
    at = rng.choice([n for n, item in enumerate(items) if way != "colour" or item.colour])
    item = items[at]
    if way == "count":
        item = replace(item, count=rng.choice([n for n in COUNTS if n != item.count]))
    elif way == "colour":
        item = replace(item, colour=rng.choice([name for name in COLOURS if name != item.colour]))
    else:
        item = replace(item, concept=other_name(rng, *(one.concept for one in items)))
    return (*items[:at], item, *items[at + 1 :])
