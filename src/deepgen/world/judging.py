"""Whether a picture shows what was asked: exact rules over what the detector and the reader found in it.

A text-to-image picture is right when it holds the asked objects, as many as asked and nothing else, and when
everything that the prompt states of them is so; what the prompt leaves open is free. An edit is right when
the change is there, the other things stand where they stood, and nothing else is in the picture.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deepgen.world.detector import Box, Detection, Detector, backgrounds_of, box_iou, colour_of
from deepgen.world.edits import EditSample, region_mask
from deepgen.world.sampling import Sample
from deepgen.world.scenes import PALETTE, RELATIONS, Background, Object, Scene, position_of, size_word

LEAST = 0.5
"""A thing counts from this detector score on, and its name from this certainty on."""
SAME_PLACE_IOU = 0.5
UNNAMED = "unclear thing"
_SAME_INK = 70.0
"""Distance in sRGB (0 to 442) up to which a pixel has the letter colour; other colours lie farther off."""
_LEAST_INK = 0.04
"""Share of a word's box that its ink covers at least: thin letters leave about a tenth."""
PERFECT_PSNR = 100.0


@dataclass(frozen=True)
class Reading:
    """A line of text in a picture and its box in pixels."""

    text: str
    box: Box


@dataclass(frozen=True)
class Seen:
    """What was found in a picture."""

    detections: tuple[Detection, ...]
    background: Background
    readings: tuple[Reading, ...] = ()


def see(detector: Detector, pictures: Sequence[NDArray[np.uint8]], at_once: int = 32) -> list[Seen]:
    """Detections and background of each of `pictures`, uint8 [H, W, 3], of any sizes the detector takes."""
    places: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, picture in enumerate(pictures):
        places[picture.shape].append(place)
    seen: dict[int, Seen] = {}
    for same in places.values():
        for part in (same[i : i + at_once] for i in range(0, len(same), at_once)):
            batch = torch.from_numpy(np.stack([pictures[place] for place in part])).movedim(-1, 1)
            batch = batch.to(detector.device)
            found = detector.detect(batch, LEAST)
            backgrounds = backgrounds_of(batch, [[d.box for d in some] for some in found])
            for place, some, background in zip(part, found, backgrounds, strict=True):
                seen[place] = Seen(tuple(some), background)
    return [seen[place] for place in range(len(pictures))]


def truth_of(scene: Scene) -> Seen:
    """What a perfect detector and reader find in a drawing of the scene."""
    found = (Detection(item.concept, item.box, 1.0, colour_of(item), scene.style) for item in scene.objects)
    return Seen(tuple(found), scene.background, tuple(Reading(word.text, word.box) for word in scene.words))


def judge_sample(sample: Sample, seen: Seen) -> list[str]:
    """The faults of a picture drawn for `sample`, each in a few words; none means that it is right."""
    scene, mentions = sample.scene, sample.mentions
    faults = _wrong_contents(scene.objects, seen.detections)
    if not faults:
        found = _in_order(scene.objects, seen.detections)
        checks = {"colour": _wrong_colours, "relation": _wrong_relation, "position": _wrong_position}
        checks |= {"size": _wrong_sizes}
        for name, check in checks.items():
            if name in mentions:
                faults += check(scene, found)
    if "background" in mentions:
        faults += _wrong_background(scene.background, seen.background)
    if "style" in mentions:
        faults += _wrong_style(scene.style, seen.detections)
    if "word" in mentions:
        faults += _wrong_word(scene, seen)
    return faults


def judge_ink(sample: Sample, seen: Seen, picture: NDArray[np.uint8]) -> list[str]:
    """The fault of a word that is read rightly in `picture`, uint8 [H, W, 3], but not in the asked colour."""
    if "word_colour" not in sample.mentions:
        return []
    word = sample.scene.words[0]
    for reading in seen.readings:
        if reading.text == word.text:
            left, top, right, bottom = (max(0, round(side)) for side in reading.box)
            distance = picture[top:bottom, left:right] - np.array(PALETTE[word.colour], dtype=np.float64)
            if (np.linalg.norm(distance, axis=-1) < _SAME_INK).mean() < _LEAST_INK:
                return [f"letters not {word.colour}"]
    return []


def judge_edit(sample: EditSample, seen: Seen) -> list[str]:
    """The faults of the result of an edit; none means that it is right."""
    source, target = sample.source, sample.target
    kept = [item for item in target.objects if item in source.objects]
    changed = [item for item in target.objects if item not in source.objects]
    rest = list(seen.detections)
    faults = []
    for item in kept:
        match = _at_place(item.box, item.concept, rest)
        if match is None:
            faults.append(f"{item.concept} gone or moved")
            continue
        rest.remove(match)
        if match.colour != colour_of(item):
            faults.append(f"{item.concept} became {match.colour}")
    old = next((item for item in source.objects if item not in target.objects), None)
    for item in changed:
        match = next((d for d in rest if _named(d) == item.concept), None)
        if match is None:
            faults.append(f"no {item.concept}")
            continue
        rest.remove(match)
        faults += _wrong_change(sample, item, old, match, seen)
    faults += [f"extra {_named(d)}" for d in rest]
    if sample.category in ("style", "insert"):
        faults += _wrong_style(target.style, seen.detections)
    return faults + _wrong_background(target.background, seen.background)


def untouched_psnr(sample: EditSample, source: NDArray[np.uint8], result: NDArray[np.uint8]) -> float | None:
    """PSNR in dB (at most 100) of what the edit should leave alone; None where it may change everything.

    Both pictures are uint8 [H, W, 3] of one size.
    """
    untouched = ~region_mask(sample)
    if not untouched.any():
        return None
    difference = source[untouched].astype(np.float64) - result[untouched]
    error = float((difference**2).mean())
    return PERFECT_PSNR if error == 0 else min(PERFECT_PSNR, 10 * math.log10(255**2 / error))


def _named(detection: Detection) -> str:
    return detection.concept if detection.certainty >= LEAST else UNNAMED


def _wrong_contents(objects: Sequence[Object], detections: Sequence[Detection]) -> list[str]:
    asked = Counter(item.concept for item in objects)
    found = Counter(_named(d) for d in detections)
    faults = [f"no {name}" for name in asked if name not in found]
    faults += [f"extra {name}" for name in found if name not in asked]
    return faults + [
        f"{found[name]} instead of {count} {name}"
        for name, count in asked.items()
        if name in found and found[name] != count
    ]


def _in_order(objects: Sequence[Object], detections: Sequence[Detection]) -> list[Detection]:
    """A detection for each object, in the objects' order; those of one concept are interchangeable."""
    rest = list(detections)
    ordered = []
    for item in objects:
        match = next(d for d in rest if _named(d) == item.concept)
        rest.remove(match)
        ordered.append(match)
    return ordered


def _wrong_colours(scene: Scene, found: Sequence[Detection]) -> list[str]:
    asked = Counter((item.concept, colour_of(item)) for item in scene.objects if item.colour)
    got = Counter((d.concept, d.colour) for d in found)
    return [f"{name} not {colour}" for (name, colour), n in asked.items() if got[name, colour] < n]


def _place(box: Box, scene: Scene) -> tuple[float, float]:
    """The box's centre as shares of the picture's width and height."""
    return (box[0] + box[2]) / 2 / scene.width, (box[1] + box[3]) / 2 / scene.height


def relation_between(first: Box, second: Box, scene: Scene) -> str | None:
    """Where the first box is, seen from the second: along the axis on which the centres differ more;
    None where that is less than a tenth of the picture."""
    (ax, ay), (bx, by) = _place(first, scene), _place(second, scene)
    dx, dy = ax - bx, ay - by
    if max(abs(dx), abs(dy)) < 0.1:
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def _wrong_relation(scene: Scene, found: Sequence[Detection]) -> list[str]:
    first, second = scene.objects[:2]
    asked = relation_between(first.box, second.box, scene)
    got = relation_between(found[0].box, found[1].box, scene)
    return [] if got == asked else [f"{first.concept} {got or 'at'} {second.concept}, not {asked}"]


def _as_object(detection: Detection) -> Object:
    """The detection as the object of a scene, in whole pixels."""
    left, top, right, bottom = detection.box
    size = round(((right - left) + (bottom - top)) / 2)
    return Object(detection.concept, round((left + right - size) / 2), round((top + bottom - size) / 2), size)


def _wrong_position(scene: Scene, found: Sequence[Detection]) -> list[str]:
    asked = position_of(scene.objects[0], scene)
    got = position_of(_as_object(found[0]), scene)
    return [] if got == asked else [f"{found[0].concept} at {got}, not {asked}"]


def _wrong_sizes(scene: Scene, found: Sequence[Detection]) -> list[str]:
    """A single thing is big or small by its share of the picture (10% tolerance), one of two by the other."""
    sizes = [_as_object(d).size for d in found]
    if len(sizes) == 1:
        asked = size_word(scene.objects[0], scene)
        share = sizes[0] / min(scene.width, scene.height)
        fits = share >= 0.58 * 0.9 if asked == "big" else share <= 0.30 * 1.1
    else:
        ratio = sizes[0] / sizes[1]
        fits = ratio >= 1.25 if scene.objects[0].size > scene.objects[1].size else ratio <= 1 / 1.25
    return [] if fits else ["wrong size"]


def _wrong_background(asked: Background, got: Background) -> list[str]:
    """The colours of a checkerboard may start with either."""
    if asked == got:
        return []
    if asked.kind == got.kind == "checker" and set(asked.colours) == set(got.colours):
        return []
    return [f"background {got.kind} {' '.join(got.colours)}"]


def _wrong_style(asked: str, detections: Sequence[Detection]) -> list[str]:
    other = [d.concept for d in detections if d.style != asked]
    return [f"{name} not {asked}" for name in other]


def _wrong_word(scene: Scene, seen: Seen) -> list[str]:
    """The word must be read exactly; alone in the picture it must be all that is read, and beside an object
    it must stand above or below it as asked."""
    word = scene.words[0]
    if not scene.objects:
        text = "".join(reading.text for reading in seen.readings)
        return [] if text == word.text else [f"reads {text!r}"]
    right = [reading for reading in seen.readings if reading.text == word.text]
    if not right:
        return [f"reads {' '.join(reading.text for reading in seen.readings)!r}"]
    asked = word.box[1] < scene.objects[0].box[1]
    things = [d for d in seen.detections if _named(d) == scene.objects[0].concept]
    if things and (_place(right[0].box, scene)[1] < _place(things[0].box, scene)[1]) != asked:
        return [f"word {'below' if asked else 'above'} the {things[0].concept}"]
    return []


def _at_place(box: Box, concept: str, detections: Sequence[Detection]) -> Detection | None:
    near = [d for d in detections if _named(d) == concept and box_iou(box, d.box) >= SAME_PLACE_IOU]
    return max(near, key=lambda d: box_iou(box, d.box), default=None)


def _wrong_change(
    sample: EditSample, item: Object, old: Object | None, match: Detection, seen: Seen
) -> list[str]:
    """What is wrong with the new or changed object `item` (formerly `old`), found as `match`."""
    faults = []
    if (sample.category in ("move", "insert") or item.colour) and match.colour != colour_of(item):
        faults.append(f"{item.concept} not {colour_of(item)}")
    if sample.category in ("add", "move", "insert"):
        faults += _wrong_spot(sample, item, match, seen)
    elif box_iou(item.box, match.box) < SAME_PLACE_IOU:
        faults.append(f"{item.concept} misplaced")
    if sample.category in ("move", "resize") and old is not None:
        size = _as_object(match).size
        if sample.category == "resize" and abs(math.log(size / item.size)) >= abs(math.log(size / old.size)):
            faults.append(f"{item.concept} not resized")
        if sample.category == "move" and not 1 / 1.35 <= size / item.size <= 1.35:
            faults.append(f"{item.concept} resized")
    return faults


def _wrong_spot(sample: EditSample, item: Object, match: Detection, seen: Seen) -> list[str]:
    """Added and moved things stand in the asked relation to the other object, or in the asked ninth, if asked."""
    target = sample.target
    if " anywhere|" in sample.key:
        return []
    if any(f" {relation} " in sample.key for relation in RELATIONS):
        other = next(thing for thing in target.objects if thing != item)
        anchor = _at_place(other.box, other.concept, seen.detections)
        asked = relation_between(item.box, other.box, target)
        if anchor is not None and relation_between(match.box, anchor.box, target) != asked:
            return [f"{item.concept} not {asked} {other.concept}"]
        return []
    asked = position_of(item, target)
    got = position_of(_as_object(match), target)
    return [] if got == asked else [f"{item.concept} at {got}, not {asked}"]


@dataclass(frozen=True)
class DetectorMetrics:
    """How well a detector sees pictures whose content is known; shares in [0, 1], and their number.

    `precision` and `recall`: named rightly and placed with IoU ≥ 0.5; `colour` and `style`: of those;
    `background`: of pictures; `scene`: pictures with nothing missed, misnamed or invented.
    """

    precision: float
    recall: float
    colour: float
    style: float
    background: float
    scene: float
    pictures: int

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def measure_detector(
    detector: Detector, pictures: Sequence[NDArray[np.uint8]], scenes: Sequence[Scene]
) -> DetectorMetrics:
    """Compare what the detector (in evaluation mode) finds in `pictures`, uint8 [H, W, 3], to the scenes."""
    counts: Counter[str] = Counter(pictures=len(scenes))
    for scene, seen in zip(scenes, see(detector, pictures), strict=True):
        rest = list(seen.detections)
        for item in scene.objects:
            match = _at_place(item.box, item.concept, rest)
            if match is not None:
                rest.remove(match)
                counts["hit"] += 1
                counts["colour"] += match.colour == colour_of(item)
                counts["style"] += match.style == scene.style
        counts["objects"] += len(scene.objects)
        counts["found"] += len(seen.detections)
        counts["background"] += not _wrong_background(scene.background, seen.background)
        counts["scene"] += not rest and len(seen.detections) == len(scene.objects)
    return _shares(counts)


def _shares(counts: Counter[str]) -> DetectorMetrics:
    def share(part: str, whole: str) -> float:
        return counts[part] / counts[whole] if counts[whole] else 1.0

    return DetectorMetrics(
        precision=share("hit", "found"),
        recall=share("hit", "objects"),
        colour=share("colour", "hit"),
        style=share("style", "hit"),
        background=share("background", "pictures"),
        scene=share("scene", "pictures"),
        pictures=counts["pictures"],
    )
