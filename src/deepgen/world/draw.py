"""Drawing scenes: one at a time on a CPU core with PIL, or a batch at once on any device with torch.

Both blend with the same whole-number rule, PIL's `(v + 128 + ((v + 128) >> 8)) >> 8` for v / 255, so that
they give the same bytes.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deepgen.errors import InputError
from deepgen.world.scenes import CHECKER_CELL, PALETTE, Background, Scene
from deepgen.world.sprites import Sprites
from deepgen.world.words import glyphs

Key = tuple[str, str, str, str | None, int]
"""("sprite", concept, style, colour, side) or ("word", text, font, colour, height of a capital letter)."""

_KINDS = {"vertical": 0, "horizontal": 1, "checker": 2}


def draw(scene: Scene, sprites: Sprites) -> NDArray[np.uint8]:
    """The scene as uint8 [height, width, 3] sRGB."""
    background = scene.background
    if background.kind == "plain":
        image = Image.new("RGB", (scene.width, scene.height), PALETTE[background.colours[0]])
    else:
        image = _ground(background, scene.width, scene.height).copy()
    for thing in scene.objects:
        sprite = Image.fromarray(sprites.get(thing.concept, scene.style, thing.colour, thing.size))
        image.paste(sprite, (thing.x, thing.y), sprite)
    for word in scene.words:
        image.paste(PALETTE[word.colour], (word.x, word.y), glyphs(word.text, word.height, word.font))
    return np.array(image)


@lru_cache(maxsize=512)
def _ground(background: Background, width: int, height: int) -> Image.Image:
    return Image.fromarray(_mixtures([background], width, height, torch.device("cpu"))[0].numpy())


def _grounds(backgrounds: Sequence[Background], width: int, height: int, device: torch.device) -> Tensor:
    """The backgrounds as uint8 [B, height, width, 3]."""
    first = _send([PALETTE[b.colours[0]] for b in backgrounds], device).to(torch.uint8)
    canvas = first[:, None, None].repeat(1, height, width, 1)
    mixed = [row for row, background in enumerate(backgrounds) if background.kind != "plain"]
    if mixed:
        colours = _mixtures([backgrounds[row] for row in mixed], width, height, device)
        canvas[_send(mixed, device)] = colours
    return canvas


def _mixtures(backgrounds: Sequence[Background], width: int, height: int, device: torch.device) -> Tensor:
    """Gradients and checkers: at each pixel a whole-number mean of two colours, weighted by share / total."""
    codes = [_KINDS[b.direction if b.kind == "gradient" else b.kind] for b in backgrounds]
    colours = [[PALETTE[colour] for colour in b.colours] for b in backgrounds]
    y = torch.arange(height, device=device, dtype=torch.int32)[:, None]
    x = torch.arange(width, device=device, dtype=torch.int32)[None, :]
    checker = (y // CHECKER_CELL + x // CHECKER_CELL) % 2
    shares = torch.stack([part.expand(height, width) for part in (y, x, checker)])
    code = _send(codes, device)
    share = shares[code][..., None]
    total = _send([height - 1, width - 1, 1], device).int()[code][:, None, None, None]
    pair = _send(colours, device).int()[:, :, None, None]
    means = (pair[:, 0] * (total - share) + pair[:, 1] * share + total // 2) // total
    return means.to(torch.uint8)


class Atlas:
    """Sprites and words of the sizes in use, as RGBA texels one after another in one device tensor.

    Grows as scenes ask for more; `limit` is its greatest size in texels, beyond which it starts again.
    """

    def __init__(self, sprites: Sprites, device: torch.device, limit: int = 1 << 29) -> None:
        self.sprites = sprites
        self.texels = torch.zeros(1, 4, dtype=torch.uint8, device=device)
        self.limit = limit
        self._offsets: dict[Key, tuple[int, int, int]] = {}
        self._used = 0

    def slots(self, scene: Scene) -> list[Key]:
        """The keys of what the scene shows, in drawing order."""
        things: list[Key] = [("sprite", o.concept, scene.style, o.colour, o.size) for o in scene.objects]
        return [*things, *(("word", w.text, w.font, w.colour, w.height) for w in scene.words)]

    def load(self, keys: set[Key]) -> None:
        """Make sure that every key has its texels here."""
        new = sorted((key for key in keys if key not in self._offsets), key=repr)
        if not new:
            return
        pictures = [self._texels(key) for key in new]
        extra = sum(picture.size // 4 for picture in pictures)
        if self._used + extra > self.limit and self._offsets:
            self._offsets, self._used = {}, 0
            self.load(keys)
            return
        if self._used + extra > len(self.texels):
            grown = torch.zeros(
                max(self._used + extra, 2 * len(self.texels)), 4, dtype=torch.uint8, device=self.texels.device
            )
            grown[: self._used] = self.texels[: self._used]
            self.texels = grown
        flat = np.concatenate([picture.reshape(-1, 4) for picture in pictures])
        self.texels[self._used : self._used + extra] = torch.from_numpy(flat).to(self.texels.device)
        for key, picture in zip(new, pictures, strict=True):
            height, width = picture.shape[:2]
            self._offsets[key] = (self._used, width, height)
            self._used += width * height

    def entry(self, key: Key) -> tuple[int, int, int]:
        """First texel, width and height of a loaded key."""
        return self._offsets[key]

    def _texels(self, key: Key) -> NDArray[np.uint8]:
        kind, name, look, colour, size = key
        if kind == "sprite":
            return self.sprites.get(name, look, colour, size)
        mask = np.array(glyphs(name, size, look))
        ink = np.broadcast_to(np.array(PALETTE[str(colour)], dtype=np.uint8), (*mask.shape, 3))
        return np.concatenate([ink, mask[..., None]], axis=-1)


@lru_cache(maxsize=4)
def _atlas(sprites: Sprites, device: torch.device) -> Atlas:
    return Atlas(sprites, device)


def draw_batch(scenes: Sequence[Scene], sprites: Sprites, device: torch.device | str = "cpu") -> Tensor:
    """The scenes as uint8 [B, 3, height, width] on the device, byte for byte as `draw` gives them.

    All must be of one width and height; raises InputError otherwise. The first calls are slow, while the
    sprites in use go to the device.
    """
    sizes = {(scene.width, scene.height) for scene in scenes}
    if len(sizes) != 1:
        raise InputError(
            f"a batch of scenes needs one size, got {sorted(sizes)}; sort the scenes by size first"
        )
    (width, height) = sizes.pop()
    device = torch.device(device)
    atlas = _atlas(sprites, device)
    slots = [atlas.slots(scene) for scene in scenes]
    atlas.load({key for keys in slots for key in keys})
    canvas = _grounds([scene.background for scene in scenes], width, height, device).reshape(-1, 3)
    canvas = torch.cat((canvas, canvas[:1]))
    for depth in range(max(map(len, slots))):
        rows = []
        for index, (scene, keys) in enumerate(zip(scenes, slots, strict=True)):
            if depth < len(keys):
                thing = scene.things[depth]
                offset, wide, tall = atlas.entry(keys[depth])
                rows.append((offset, wide, tall, (index * height + thing.y) * width + thing.x))
        _blend(canvas, atlas.texels, rows, width)
    return canvas[:-1].reshape(len(scenes), height, width, 3).permute(0, 3, 1, 2).contiguous()


def _send(values: Any, device: torch.device) -> Tensor:
    """int64 tensor of the values on the device; a GPU gets them without anyone waiting for it."""
    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _blend(canvas: Tensor, texels: Tensor, rows: list[tuple[int, int, int, int]], width: int) -> None:
    """Lay one sprite over each picture, in place, without waiting for the device.

    canvas: uint8 [B*H*W + 1, 3], whose last pixel takes what falls outside a sprite; texels: uint8 [N, 4]; rows:
    (first texel, width, height, first canvas pixel) of each sprite; width: of a picture. No two rows touch the same
    picture.
    """
    columns = _send(rows, canvas.device).unbind(1)
    offset, wide, tall, start = (column[:, None, None] for column in columns)
    v = torch.arange(max(row[2] for row in rows), device=canvas.device)[None, :, None]
    u = torch.arange(max(row[1] for row in rows), device=canvas.device)[None, None, :]
    inside = (u < wide) & (v < tall)
    texel = texels[torch.where(inside, offset + v * wide + u, 0).flatten()].int()
    target = torch.where(inside, start + v * width + u, len(canvas) - 1).flatten()
    alpha = texel[:, 3:]
    mixed = canvas[target].int() * (255 - alpha) + texel[:, :3] * alpha + 128
    canvas[target] = ((mixed + (mixed >> 8)) >> 8).to(torch.uint8)
