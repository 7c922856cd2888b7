"""The detector of the picture world: what stands where, in which colour and style.

A small residual network with one map of predictions, a cell per 16×16 pixels, in the manner of FCOS
(Tian et al. 2019, section 3): a cell near an object's centre says that something is there, where its box
is, and its concept, colour and style. It is trained only on drawn and VAE-reconstructed scenes and judges
generated pictures, so a thing it cannot name still counts as a thing: `score` is that something is there,
`certainty` how sure its name is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from deepgen.errors import InputError
from deepgen.world.blocks import Bottleneck, conv_unit, network_input
from deepgen.world.concepts import CONCEPTS
from deepgen.world.scenes import (
    CHECKER_CELL,
    DIRECTIONS,
    PALETTE,
    Background,
    Object,
    Scene,
    contrast,
    family,
)

STRIDE = 16
MAX_OBJECTS = 8
NATURAL = "natural"
_HEAD = ("head.1.weight", "head.1.bias")  # one row a class
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""


@dataclass(frozen=True)
class Detection:
    """One thing found: `score` says that something is there, `certainty` that it is a `concept`; in [0, 1].

    `colour` is None for a drawing that shows none of the named colours.
    """

    concept: str
    box: Box
    score: float
    colour: str | None = None
    style: str | None = None
    certainty: float = 1.0


class Detector(ModelMixin, ConfigMixin):
    """Concepts, boxes, colours and styles of a picture; at most 1.5 M parameters.

    The order of `concepts`, `colours` and `styles` is the order of the logits and is saved with the weights.
    """

    @register_to_config
    def __init__(
        self,
        concepts: list[str],
        colours: list[str],
        styles: list[str],
        widths: tuple[int, int, int, int, int] = (24, 48, 96, 160, 192),
        depths: tuple[int, int, int, int] = (2, 3, 4, 3),
        head_width: int = 192,
    ) -> None:
        super().__init__()
        self.colour_names = [NATURAL, *colours]
        self.outputs = (1, 4, len(concepts), len(self.colour_names), len(styles))
        w0, w4, w8, w16, w32 = widths
        self.stem = conv_unit(3, w0, 3, 2)
        self.at4 = self._stage(w0, w4, depths[0])
        self.at8 = self._stage(w4, w8, depths[1])
        self.at16 = self._stage(w8, w16, depths[2])
        self.at32 = nn.Sequential(
            nn.AvgPool2d(2), conv_unit(w16, w32, 1), *(Bottleneck(w32, w32 // 2) for _ in range(depths[3]))
        )
        self.widen = nn.Conv2d(w32, w16, 1)
        self.merge = Bottleneck(w16, w16 // 2)
        self.head = nn.Sequential(conv_unit(w16, head_width, 3), nn.Conv2d(head_width, sum(self.outputs), 1))
        # Most cells hold nothing: starting there spares the first hundred steps (RetinaNet, section 4.1).
        final = self.head[-1]
        assert isinstance(final, nn.Conv2d) and final.bias is not None
        nn.init.normal_(final.weight, std=0.02)
        nn.init.zeros_(final.bias)
        nn.init.constant_(final.bias[:1], -3.0)

    @torch.no_grad()
    def take_weights(self, other: "Detector") -> None:
        """Start from a trained detector that may know fewer concepts and styles: what it knows, this one then knows.

        Raises InputError where it was built otherwise, or knows something that this one does not.
        """
        own, trained = self.classes(), other.classes()
        unknown = sorted(set(trained) - set(own))
        if unknown:
            raise InputError(
                f"the trained detector predicts what this one does not: {', '.join(map(str, unknown[:5]))}"
            )
        rows = [own.index(one) for one in trained]
        values = other.state_dict()
        for key, value in self.state_dict().items():
            kept = value[rows] if key in _HEAD else value
            if kept.shape != values[key].shape:
                raise InputError(
                    f"the trained detector has {key} {list(values[key].shape)}, not {list(kept.shape)}"
                )
            value[rows if key in _HEAD else ...] = values[key]
            if (
                key in _HEAD
            ):  # what is new starts as the mean of its kind: less likely than what is recognised
                for row in set(range(len(own))) - set(rows):
                    alike = [place for place, (kind, _) in enumerate(trained) if kind == own[row][0]]
                    value[row] = values[key][alike].mean(0)

    def check_knows(self, scenes: Sequence[Scene]) -> None:
        """Raises InputError where the scenes show concepts or styles that this detector was not trained for."""
        shown = {("concept", item.concept) for scene in scenes for item in scene.objects}
        shown |= {("style", scene.style) for scene in scenes}
        unknown = sorted(shown - set(self.classes()))
        if unknown:
            names = ", ".join(name for _, name in unknown[:5])
            raise InputError(
                f"the detector was not trained for {len(unknown)} of the names shown, such as {names}"
            )

    def classes(self) -> list[tuple[str, str]]:
        """What each channel of `head` predicts, as (kind, name)."""
        kinds = {
            "concept": self.config["concepts"],
            "colour": self.colour_names,
            "style": self.config["styles"],
        }
        boxes = [("objectness", "")] + [("box", side) for side in ("x", "y", "width", "height")]
        return [*boxes, *((kind, name) for kind, names in kinds.items() for name in names)]

    @staticmethod
    def _stage(inputs: int, width: int, depth: int) -> nn.Sequential:
        return nn.Sequential(
            conv_unit(inputs, width, 3, 2), *(Bottleneck(width, width // 2) for _ in range(depth))
        )

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Raw predictions of `pictures`: uint8 [B, 3, H, W], or floats in [0, 1]; sides multiples of 32.

        Returns float maps over h = H/16, w = W/16: `objectness` [B, h, w] (logits), `box` [B, 4, h, w]
        (centre offset from the cell's centre in cells, natural logarithm of width and height in cells),
        `concept`, `colour`, `style` [B, classes, h, w] (logits).

        Raises InputError for other shapes.
        """
        x = network_input(pictures, self.dtype)
        x = self.at16(self.at8(self.at4(self.stem(x))))
        context = self.widen(self.at32(x))
        x = self.merge(x + F.interpolate(context, scale_factor=2.0, mode="nearest"))
        found, box, concept, colour, style = self.head(x).split(self.outputs, dim=1)
        return {"objectness": found[:, 0], "box": box, "concept": concept, "colour": colour, "style": style}

    def targets(self, scenes: Sequence[Scene], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """The truth of `scenes` in a form that can be cached and indexed along its first axis.

        Returns `boxes` [B, 8, 4] float (centre x, centre y, width, height in pixels), `concept`, `colour`
        [B, 8] and `style` [B] int64; absent objects have concept −1.

        Raises InputError for a concept, colour or style the detector does not know, or over 8 objects.
        """
        concepts = {name: i for i, name in enumerate(self.config["concepts"])}
        colours = {name: i for i, name in enumerate(self.colour_names)}
        styles = {name: i for i, name in enumerate(self.config["styles"])}
        boxes = torch.ones(len(scenes), MAX_OBJECTS, 4)
        concept = torch.full((len(scenes), MAX_OBJECTS), -1)
        colour = torch.zeros(len(scenes), MAX_OBJECTS, dtype=torch.long)
        for row, scene in enumerate(scenes):
            if len(scene.objects) > MAX_OBJECTS:
                raise InputError(
                    f"a scene holds {len(scene.objects)} objects, the detector takes {MAX_OBJECTS}"
                )
            for column, item in enumerate(scene.objects):
                left, top, right, bottom = item.box
                boxes[row, column] = torch.tensor(
                    ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
                )
                concept[row, column] = _index(concepts, item.concept, "concept")
                colour[row, column] = _index(colours, colour_of(item) or NATURAL, "colour")
        style = torch.tensor([_index(styles, scene.style, "style") for scene in scenes])
        truth = {"boxes": boxes, "concept": concept, "colour": colour, "style": style}
        return {name: value.to(device) for name, value in truth.items()}

    @staticmethod
    def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The training loss of `forward(pictures)` against `targets(scenes)`; all parts fp32 scalars.

        Every object weighs the same, whatever its size. Parts: `objectness` (focal, Lin et al. 2017,
        equation 4 with gamma 2), `box` (smooth L1), `concept`, `colour`, `style` (cross-entropy).
        """
        outputs = {name: value.float() for name, value in outputs.items()}
        near, ignored, weight, owner = _assign(targets, outputs["objectness"].shape[-2:])
        total_weight = weight.sum().clamp(min=1)
        logits = outputs["objectness"]
        truth = near.float()
        wrong = (logits.sigmoid() - truth).abs()
        focal = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * wrong**2
        cell_weight = torch.where(near, weight * 2, 1.0) * ~ignored
        parts = {"objectness": (focal * cell_weight).sum() / total_weight}
        box_truth = _encode(_take(targets["boxes"], owner))
        box_error = F.smooth_l1_loss(outputs["box"], box_truth, reduction="none", beta=0.1).sum(1)
        parts["box"] = (box_error * weight).sum() / total_weight
        style = targets["style"][:, None, None].expand_as(owner)
        labels = {
            "concept": _take(targets["concept"], owner),
            "colour": _take(targets["colour"], owner),
            "style": style,
        }
        for name, label in labels.items():
            error = F.cross_entropy(outputs[name], label.clamp(min=0), reduction="none", label_smoothing=0.02)
            parts[name] = (error * weight).sum() / total_weight
        scale = {"objectness": 1.0, "box": 1.0, "concept": 1.0, "colour": 0.5, "style": 1.0}
        total = torch.stack([scale[name] * value for name, value in parts.items()]).sum()
        return total, {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def decode(self, outputs: dict[str, Tensor], threshold: float = 0.5) -> list[list[Detection]]:
        """What the maps of `forward` hold, for every picture, the surest first, `score` above `threshold`.

        Peaks of 3×3 cells; of two boxes that share over 45% of their union only the surer one stays.
        """
        maps = {name: value.float().cpu() for name, value in outputs.items()}
        score = maps["objectness"].sigmoid()
        peak = (score > threshold) & (score == F.max_pool2d(score[:, None], 3, 1, 1)[:, 0])
        boxes = _decode_boxes(maps["box"])
        certainty, concept = maps["concept"].softmax(1).max(1)
        colour, style = maps["colour"].argmax(1), maps["style"].argmax(1)
        found: list[list[Detection]] = []
        for row in range(len(score)):
            candidates = [
                Detection(
                    concept=self.config["concepts"][concept[row, y, x]],
                    box=tuple(boxes[row, :, y, x].tolist()),
                    score=float(score[row, y, x]),
                    colour=self.colour_names[colour[row, y, x]] if colour[row, y, x] else None,
                    style=self.config["styles"][style[row, y, x]],
                    certainty=float(certainty[row, y, x]),
                )
                for y, x in peak[row].nonzero().tolist()
            ]
            found.append(_suppress(candidates))
        return found

    @torch.no_grad()
    def detect(self, pictures: Tensor, threshold: float = 0.5) -> list[list[Detection]]:
        """`decode(forward(pictures))` in evaluation mode's arithmetic; `pictures` as in `forward`."""
        return self.decode(self(pictures.to(self.device)), threshold)


def degrade(pictures: Tensor, generator: torch.Generator | None = None, strength: float = 1.0) -> Tensor:
    """A training-time blur, noise and change of brightness, each of its own strength per picture.

    `pictures` float [B, 3, H, W] in [0, 1], and so is the result. It stands for what a VAE and a generator
    do to a drawing without changing what it shows; hues are kept, because colour is predicted. `strength`
    multiplies all three; 1 is what the evaluation's detector was trained with.
    """

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(len(pictures), 1, 1, 1, device=pictures.device).uniform_(
            low * strength, high * strength, generator=generator
        )

    # A mixture of the picture and its strong blur approximates any blur between them at one pass's price.
    blurred = F.avg_pool2d(F.pad(pictures, (2, 2, 2, 2), mode="replicate"), 5, 1)
    amount = uniform(-0.8, 1.0).clamp(0, 1)
    x = pictures + amount * (blurred - pictures)
    noise = torch.empty_like(x).normal_(generator=generator)
    x = x + noise * uniform(-0.04, 0.06).clamp(min=0)
    contrast, brightness = 1 + uniform(-0.12, 0.1), uniform(-0.05, 0.05)
    return ((x - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


def box_iou(a: Box, b: Box) -> float:
    """Shared area over the union's, of two boxes (left, top, right, bottom)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def colour_of(item: Object) -> str | None:
    """The colour name that the drawing shows: asked for, or the unchanged drawing's; None for neither."""
    concept = CONCEPTS.get(item.concept)
    return item.colour or (concept.natural if concept else None)


def background_of(picture: Tensor, boxes: Sequence[Box] = ()) -> Background:
    """The background of one picture [3, H, W]; see `backgrounds_of`."""
    return backgrounds_of(picture[None], [boxes])[0]


def backgrounds_of(pictures: Tensor, boxes: Sequence[Sequence[Box]]) -> list[Background]:
    """The backgrounds of the world that are most like the pictures outside `boxes` (of each one's objects).

    `pictures` uint8 [B, 3, H, W], or floats in [0, 1], on any device. Nothing is learned: every background that
    exists is laid beside the picture, in blocks of 16 pixels, and the nearest in sRGB wins; a block's distance counts
    up to a limit, so that letters and strays do not decide.
    """
    pixels = pictures.float() / (255 if pictures.dtype == torch.uint8 else 1)
    blocks = F.avg_pool2d(pixels, STRIDE)
    h, w = blocks.shape[2:]
    free = torch.stack([_free_blocks(some, h, w) for some in boxes]).to(blocks.device)
    names, templates = _backgrounds(h, w, blocks.device)
    found = []
    for some, outside in zip(blocks.split(8), free.split(8), strict=True):  # 8: 25 MB of differences
        distance = (templates - some[:, None]).square().sum(2).sqrt().clamp(max=_FAR)
        mean = (distance * outside[:, None]).sum((2, 3)) / outside.sum((1, 2))[:, None]
        found += mean.argmin(1).tolist()
    return [names[number] for number in found]


def _free_blocks(boxes: Sequence[Box], h: int, w: int) -> Tensor:
    """Which blocks no box touches, bool [h, w]; all of them where those are too few to tell."""
    free = torch.ones(h, w, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        rows = slice(max(int(top // STRIDE), 0), max(int(-(-bottom // STRIDE)), 0))
        free[rows, max(int(left // STRIDE), 0) : max(int(-(-right // STRIDE)), 0)] = False
    return free if free.sum() >= 8 else torch.ones_like(free)


_FAR = 0.35  # of 1.73, the distance of black and white


@lru_cache(maxsize=8)
def _backgrounds(h: int, w: int, device: torch.device) -> tuple[list[Background], Tensor]:
    """Every background that scenes have, and the means [K, 3, h, w] of its blocks, on the device."""
    per_cell = CHECKER_CELL // STRIDE
    y, x = torch.arange(h)[:, None], torch.arange(w)[None, :]
    share = {
        "plain": torch.zeros(h, w),
        "vertical": ((y + 0.5) / h).expand(h, w),
        "horizontal": ((x + 0.5) / w).expand(h, w),
        "checker": ((y // per_cell + x // per_cell) % 2).float(),
    }
    names = [Background("plain", (colour,)) for colour in PALETTE]
    for first in PALETTE:
        for second in PALETTE:
            if family(first) != family(second) and contrast(first, second) > 90:
                names += [Background("gradient", (first, second), way) for way in DIRECTIONS]
                names.append(Background("checker", (first, second)))
    ends = (
        torch.tensor([[PALETTE[b.colours[0]], PALETTE[b.colours[-1]]] for b in names])[..., None, None] / 255
    )
    mix = torch.stack([share[b.direction if b.kind == "gradient" else b.kind] for b in names])[:, None]
    return names, (ends[:, 0] * (1 - mix) + ends[:, 1] * mix).to(device)


def _index(names: dict[str, int], name: str, what: str) -> int:
    if name not in names:
        raise InputError(f"the detector knows no {what} named {name!r}: was it trained for other concepts?")
    return names[name]


def _cell_centres(h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The cells' centres in pixels: y [h, 1], x [1, w]."""
    y = (torch.arange(h, device=device) + 0.5) * STRIDE
    x = (torch.arange(w, device=device) + 0.5) * STRIDE
    return y[:, None], x[None, :]


def _assign(targets: dict[str, Tensor], grid: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which cells speak for which object.

    Returns, each [B, h, w]: `near` (bool, the cell speaks for an object), `ignored` (bool, close to one but
    not near: no objectness is asked), `weight` (float, 1 / cells of its object) and `owner` (int64, the
    object). An object owns the cells whose centre lies within a quarter of its size, at least its own cell
    and at most 24 px around its centre: then no object depends on a single cell that it may straddle.
    """
    h, w = grid
    y, x = _cell_centres(h, w, targets["boxes"].device)
    centre_x, centre_y, width, height = (v[..., None, None] for v in targets["boxes"].unbind(-1))
    distance = torch.maximum((x - centre_x).abs(), (y - centre_y).abs())
    present = (targets["concept"] >= 0)[..., None, None]
    distance = distance.masked_fill(~present, torch.inf)
    radius = (torch.maximum(width, height) / 4).clamp(STRIDE / 2 + 0.01, 1.5 * STRIDE)
    closest, owner = distance.min(1)
    own_radius = _take(radius[..., 0, 0], owner)
    near = closest <= own_radius
    ignored = ~near & (distance <= radius + 0.75 * STRIDE).any(1)
    mine = F.one_hot(owner, targets["concept"].shape[1]).movedim(-1, 1) * near[:, None]
    weight = _take(1 / mine.sum((2, 3)).clamp(min=1), owner) * near
    return near, ignored, weight, owner


def _take(values: Tensor, owner: Tensor) -> Tensor:
    """Each cell's owner's value: values [B, M] or [B, M, k], owner [B, h, w] → [B, h, w] or [B, k, h, w]."""
    flat = owner.flatten(1)
    if values.ndim == 2:
        return values.gather(1, flat).view(owner.shape)
    picked = values.gather(1, flat[..., None].expand(-1, -1, values.shape[2]))
    return picked.movedim(2, 1).reshape(len(owner), values.shape[2], *owner.shape[1:])


def _encode(boxes: Tensor) -> Tensor:
    """Centre boxes in pixels, one a cell [B, 4, h, w] → what the network predicts (see `forward`)."""
    y, x = _cell_centres(boxes.shape[2], boxes.shape[3], boxes.device)
    offset = torch.stack(((boxes[:, 0] - x) / STRIDE, (boxes[:, 1] - y) / STRIDE), dim=1)
    return torch.cat((offset, (boxes[:, 2:] / STRIDE).log()), dim=1)


def _decode_boxes(maps: Tensor) -> Tensor:
    """The inverse of `_encode`, as (left, top, right, bottom) in pixels [B, 4, h, w]."""
    y, x = _cell_centres(maps.shape[2], maps.shape[3], maps.device)
    centre_x, centre_y = maps[:, 0] * STRIDE + x, maps[:, 1] * STRIDE + y
    half_w, half_h = (maps[:, 2:].clamp(-4, 4).exp() * (STRIDE / 2)).unbind(1)
    return torch.stack((centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h), dim=1)


def _suppress(candidates: list[Detection], overlap: float = 0.45) -> list[Detection]:
    kept: list[Detection] = []
    for item in sorted(candidates, key=lambda d: -d.score):
        if all(box_iou(item.box, other.box) <= overlap for other in kept):
            kept.append(item)
    return kept
