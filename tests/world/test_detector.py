"""The detector: its truth and its decoding are inverse, its loss trains it, and backgrounds are named."""

import pytest
import torch
from torch import Tensor

from deepgen.errors import InputError
from deepgen.world.concepts import CONCEPTS
from deepgen.world.detector import Detector, background_of, box_iou, degrade
from deepgen.world.draw import draw_batch
from deepgen.world.scenes import PALETTE, STYLES, Background, Object, Scene
from deepgen.world.sprites import COLOURS, Sprites

SPRITES = Sprites.procedural()
NAMES = list(CONCEPTS)


def small_detector(concepts: list[str] | None = None) -> Detector:
    torch.manual_seed(0)
    return Detector(concepts or NAMES, list(COLOURS), list(STYLES))


def scene_of(*objects: Object, background: Background | None = None, style: str = "3d") -> Scene:
    return Scene(256, 256, style, background or Background("plain", ("light blue",)), objects)


def perfect_outputs(detector: Detector, scenes: list[Scene]) -> dict[str, Tensor]:
    """Maps that the loss would call perfect: every cell as its nearest object demands."""
    truth = detector.targets(scenes)
    maps = {
        "objectness": torch.full((len(scenes), 16, 16), -9.0),
        "box": torch.zeros(len(scenes), 4, 16, 16),
        **{
            name: torch.zeros(len(scenes), count, 16, 16)
            for name, count in zip(("concept", "colour", "style"), detector.outputs[2:], strict=True)
        },
    }
    for row, column in (truth["concept"] >= 0).nonzero().tolist():
        x, y, width, height = truth["boxes"][row, column].tolist()
        for i in range(16):
            for j in range(16):
                dx, dy = x - 16 * j - 8, y - 16 * i - 8
                if max(abs(dx), abs(dy)) > min(max(width / 4, 8.01), 24):
                    continue
                maps["objectness"][row, i, j] = 9 - 0.01 * (abs(dx) + abs(dy))
                size = torch.tensor([width / 16, height / 16]).log()
                maps["box"][row, :, i, j] = torch.tensor([dx / 16, dy / 16, *size.tolist()])
                maps["concept"][row, truth["concept"][row, column], i, j] = 20
                maps["colour"][row, truth["colour"][row, column], i, j] = 20
                maps["style"][row, truth["style"][row], i, j] = 20
    return maps


def test_it_has_at_most_one_and_a_half_million_parameters() -> None:
    assert sum(p.numel() for p in small_detector().parameters()) <= 1.5e6


def test_decoding_perfect_maps_gives_the_scenes_back() -> None:
    detector = small_detector()
    scenes = [
        scene_of(Object("dog", 10, 20, 44), Object("car", 120, 30, 96, "blue"), Object("cat", 70, 160, 80)),
        scene_of(Object("fox", 36, 36, 184), style="flat"),
        scene_of(),
    ]
    for scene, found in zip(scenes, detector.decode(perfect_outputs(detector, scenes)), strict=True):
        assert {d.concept for d in found} == {o.concept for o in scene.objects}
        assert len(found) == len(scene.objects)
        for item in scene.objects:
            match = next(d for d in found if d.concept == item.concept)
            assert box_iou(match.box, item.box) > 0.99
            assert match.style == scene.style
    assert (
        next(d for d in detector.decode(perfect_outputs(detector, scenes))[0] if d.concept == "car").colour
        == "blue"
    )


def test_the_loss_of_perfect_maps_is_far_below_that_of_silence() -> None:
    detector = small_detector()
    scenes = [scene_of(Object("dog", 10, 20, 44), Object("car", 120, 30, 96, "blue"))]
    perfect = perfect_outputs(detector, scenes)
    silent = {**perfect, "objectness": torch.full((1, 16, 16), -9.0)}
    wrong_box = {**perfect, "box": torch.zeros_like(perfect["box"])}
    truth = detector.targets(scenes)
    good = detector.loss(perfect, truth)[1]
    assert good["objectness"] < 1e-3 and good["box"] < 1e-3
    assert detector.loss(silent, truth)[1]["objectness"] > 1
    assert detector.loss(wrong_box, truth)[1]["box"] > 0.5


def test_the_natural_colour_and_its_name_are_one_colour() -> None:
    detector = small_detector()
    natural = CONCEPTS["apple"].natural
    assert natural == "red"
    named = detector.targets([scene_of(Object("apple", 0, 0, 96, natural))])["colour"]
    assert torch.equal(named, detector.targets([scene_of(Object("apple", 0, 0, 96))])["colour"])


def test_unknown_names_and_odd_sizes_are_refused() -> None:
    detector = small_detector(["dog"])
    with pytest.raises(InputError, match="no concept named 'cat'"):
        detector.targets([scene_of(Object("cat", 0, 0, 44))])
    with pytest.raises(InputError, match="32"):
        detector(torch.zeros(1, 3, 250, 256))


def test_uint8_and_float_pictures_give_equal_maps() -> None:
    detector = small_detector(["dog"]).eval()
    picture = torch.randint(0, 256, (1, 3, 192, 320), dtype=torch.uint8)
    with torch.no_grad():
        whole, unit = detector(picture), detector(picture.float() / 255)
    assert whole["concept"].shape == (1, 1, 12, 20)
    assert all(torch.allclose(whole[name], unit[name], atol=1e-5) for name in whole)


def test_it_learns_a_few_scenes_and_survives_saving(tmp_path) -> None:
    names = NAMES[:4]
    scenes = [
        Scene(128, 128, "3d", objects=(Object(names[i % 4], 2, 4 * i, 56), Object(names[i // 2], 66, 40, 56)))
        for i in range(8)
    ]
    pictures = draw_batch(scenes, SPRITES)
    torch.manual_seed(0)
    sizes = {"widths": (8, 16, 32, 64, 64), "depths": (0, 0, 1, 1), "head_width": 64}
    detector = Detector(names, list(COLOURS), list(STYLES), **sizes).train()
    truth = detector.targets(scenes)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    for _ in range(80):
        loss, _parts = detector.loss(detector(pictures), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    detector.eval().save_pretrained(tmp_path)
    again = Detector.from_pretrained(tmp_path)
    right = [
        sorted(d.concept for d in found) == sorted(o.concept for o in scene.objects)
        for scene, found in zip(scenes, again.detect(pictures), strict=True)
    ]
    assert sum(right) >= 6


@pytest.mark.parametrize(
    "background",
    [
        *(Background("plain", (name,)) for name in PALETTE),
        Background("gradient", ("red", "light blue")),
        Background("gradient", ("white", "blue"), "horizontal"),
        Background("checker", ("white", "black")),
    ],
    ids=str,
)
def test_a_background_is_named_under_noise_and_behind_an_object(background: Background) -> None:
    thing = Object("dog", 40, 36, 184)
    picture = draw_batch([scene_of(thing, background=background)], SPRITES)[0].float() / 255
    noisy = (picture + 0.04 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))).clamp(
        0, 1
    )
    assert background_of(noisy, [thing.box]) == background
    assert background_of((picture * 255).to(torch.uint8), [thing.box]) == background


def test_what_objects_cover_does_not_name_the_background() -> None:
    picture = torch.full((3, 256, 256), 255, dtype=torch.uint8)
    picture[:, 32:] = torch.tensor(PALETTE["brown"], dtype=torch.uint8)[:, None, None]
    assert background_of(picture, [(0, 32, 256, 256)]) == Background("plain", ("white",))
    assert background_of(picture).colours != ("white",)


def test_degrading_changes_pictures_a_little_and_keeps_their_range() -> None:
    pictures = draw_batch([scene_of(Object("dog", 40, 36, 96))] * 8, SPRITES).float() / 255
    changed = degrade(pictures, torch.Generator().manual_seed(0))
    assert changed.min() >= 0 and changed.max() <= 1
    assert 0.003 < (changed - pictures).abs().mean() < 0.1


def test_a_larger_detector_starts_from_a_smaller_one_and_says_the_same() -> None:
    small = Detector(NAMES[:20], list(COLOURS), ["3d", "flat"]).eval()
    large = Detector(NAMES[5:25][::-1] + NAMES[:5], list(COLOURS), ["cartoon", "3d", "flat"]).eval()
    large.take_weights(small)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        known, told = small(picture), large(picture)
    assert torch.allclose(known["box"], told["box"], atol=1e-6)
    assert torch.allclose(known["style"], told["style"][:, 1:], atol=1e-6)
    rows = [large.config["concepts"].index(name) for name in small.config["concepts"]]
    assert torch.allclose(known["concept"], told["concept"][:, rows], atol=1e-6)
    assert torch.allclose(known["concept"].max(1).values, told["concept"].max(1).values, atol=1e-6)
    with pytest.raises(InputError, match="predicts what this one does not"):
        small.take_weights(large)
    with pytest.raises(InputError, match="the trained detector has"):
        large.take_weights(Detector(NAMES[:20], list(COLOURS), ["3d"], head_width=96))


def test_a_detector_that_was_trained_for_less_than_is_shown_is_refused() -> None:
    detector = Detector(["apple", "fox"], list(COLOURS), ["3d"])
    detector.check_knows([scene_of(Object("fox", 36, 36, 184))])
    for scene, name in ((scene_of(Object("dog", 9, 9, 96)), "dog"), (scene_of(style="noto"), "noto")):
        with pytest.raises(InputError, match=rf"not trained for 1 .* {name}"):
            detector.check_knows([scene])
