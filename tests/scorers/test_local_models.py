"""CLIP, Mask2Former and the scorers made of them, with tiny random weights and without torchvision."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, Mask2FormerConfig, SwinConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

from deepgen.errors import CheckpointError, InputError, JudgeError
from deepgen.scorers.calls import JudgeCall, JudgeImage
from deepgen.scorers.clip import Clip
from deepgen.scorers.geneval_hf import COLOURS, GenEvalScorer, cut_out
from deepgen.scorers.identity import folder_identity
from deepgen.scorers.mask2former import Frame, InstanceDetector, InstanceNetwork, box_of, instances
from deepgen.scorers.ocr import Ocr, Reading
from deepgen.scorers.ocr_clip import OcrClipScorer
from deepgen.scorers.replies import Reply

CLASSES = 5


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {"vocab_size": len(words), "eos_token_id": len(words) - 1, "bos_token_id": len(words) - 2}
    torch.manual_seed(0)
    vision = small | {"image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def detector_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mask2former")
    stages = [f"stage{n}" for n in range(1, 5)]
    backbone = SwinConfig(
        image_size=32, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=2, out_features=stages
    )
    widths = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 32)
    layers = {"encoder_feedforward_dim": 16, "dim_feedforward": 16, "encoder_layers": 1, "decoder_layers": 2}
    config = Mask2FormerConfig(
        backbone_config=backbone, num_attention_heads=2, num_queries=5, num_labels=CLASSES, **widths, **layers
    )
    torch.manual_seed(0)
    InstanceNetwork(config).save_pretrained(folder)
    size = {"shortest_edge": 48, "longest_edge": 80}
    Mask2FormerImageProcessorPil(size=size, size_divisor=32).save_pretrained(folder)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_clip_gives_unit_vectors_and_their_cosine(clip_folder: Path, photo: Path) -> None:
    clip, picture = Clip(clip_folder), Image.open(photo).convert("RGB")
    texts, pictures = clip.texts(["a red cup", "a " * 200]), clip.pictures([picture])
    assert torch.allclose(texts.norm(dim=-1), torch.ones(2)) and pictures.shape == (1, 8)
    assert clip.similarity(picture, "a red cup") == pytest.approx(float(pictures[0] @ texts[0]))


def test_clip_agrees_with_transformers_own_forward(clip_folder: Path, photo: Path) -> None:
    clip, picture = Clip(clip_folder), Image.open(photo).convert("RGB")
    tokens = CLIPTokenizer.from_pretrained(clip_folder)(
        ["a red cup"], padding="max_length", max_length=77, return_tensors="pt"
    )
    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(images=[picture], return_tensors="pt")
    with torch.no_grad():
        whole = CLIPModel.from_pretrained(clip_folder)(**tokens, **pixels)
    cosine = float((whole.image_embeds @ whole.text_embeds.T).item())
    assert clip.similarity(picture, "a red cup") == pytest.approx(cosine, abs=1e-6)


def test_a_class_is_the_mean_of_its_wordings(clip_folder: Path, photo: Path) -> None:
    clip, picture = Clip(clip_folder), Image.open(photo).convert("RGB")
    classes = [["a b", "c d"], ["x y z", "q"], ["1 2 3", "e"]]
    means = torch.stack([torch.nn.functional.normalize(clip.texts(c).mean(0), dim=0) for c in classes])
    assert clip.classify([picture], classes) == [int((means @ clip.pictures([picture])[0]).argmax())]


def test_a_folder_that_is_no_model_is_named(tmp_path: Path, clip_folder: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json is missing"):
        Clip(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(CheckpointError, match="not a CLIP"):
        Clip(tmp_path)


def test_other_weights_have_another_identity(clip_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    before = folder_identity(tmp_path)
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    assert folder_identity(tmp_path) != before


def test_the_detector_finds_instances_with_masks_of_the_pictures_size(
    detector_folder: Path, photo: Path
) -> None:
    found = InstanceDetector(detector_folder).detect(Image.open(photo).convert("RGB"))
    assert 0 < len(found) <= 5 * CLASSES
    assert all(one.mask.shape == (40, 60) and 0 <= one.label < CLASSES for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_a_detector_that_lacks_a_tensor_is_refused(detector_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in detector_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["class_predictor.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"class_predictor\.bias"):
        InstanceDetector(tmp_path)


def test_scores_boxes_and_masks_are_mmdets() -> None:
    """One query sees class 1 in the left half of a padded input; the other sees nothing anywhere."""
    logits = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 9.0]])
    masks = torch.full((2, 4, 4), -4.0)
    masks[0, :, :2] = 4.0
    found = instances(logits, masks, Frame((16, 16), (16, 8)), (8, 16))
    best = found[0]
    probability = float(torch.softmax(logits[0], 0)[1])
    assert best.label == 1 and best.box == (0.0, 0.0, 8.0, 16.0) and best.mask.all()
    inside = torch.nn.functional.interpolate(masks[:1, None], (16, 16), mode="bilinear")[0, 0, :, :8]
    assert best.score == pytest.approx(probability * float(inside.sigmoid().mean()), rel=1e-5)
    assert {one.label for one in found} == {0, 1} and len(found) == 2


def test_a_box_ends_behind_the_last_pixel() -> None:
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    assert box_of(mask) == (2.0, 1.0, 5.0, 3.0)


def test_an_object_is_cut_out_on_grey() -> None:
    picture = Image.new("RGB", (6, 5), "red")
    mask = np.zeros((5, 6), bool)
    mask[1, 2] = mask[2, 4] = True
    alone = np.asarray(cut_out(picture, mask, box_of(mask)))
    assert alone.shape == (2, 3, 3)
    assert (alone[0, 0] == (255, 0, 0)).all() and (alone[0, 1] == (0x99, 0x99, 0x99)).all()


def ask(scorer: Any, call: JudgeCall) -> dict[str, Any]:
    found: dict[int, Reply] = {}
    scorer.answer([call], 0, found.__setitem__)
    return dict(json.loads(found[0].text))


def test_geneval_hf_answers_with_boxes_and_colours(
    detector_folder: Path, clip_folder: Path, photo: Path
) -> None:
    scorer = GenEvalScorer(detector_folder, clip_folder)
    names = [f"thing {n}" for n in range(CLASSES)]
    asked = {"threshold": 0.0, "max_boxes": 2, "classes": names, "colors_of": ["thing 0"]}
    told = ask(scorer, JudgeCall("detect", "", (JudgeImage(photo),), data=asked))
    assert told["detections"] and set(told["detections"]) <= set(names)
    assert all(len(boxes) <= 2 and len(boxes[0]) == 5 for boxes in told["detections"].values())
    assert set(told["colors"]) == {"thing 0"}
    assert len(told["colors"]["thing 0"]) == len(told["detections"]["thing 0"])
    assert set(told["colors"]["thing 0"]) <= set(COLOURS)
    none = ask(scorer, JudgeCall("detect", "", (JudgeImage(photo),), data=asked | {"threshold": 1.0}))
    assert none == {"detections": {}, "colors": {}}
    with pytest.raises(JudgeError, match="knows 5 classes, GenEval has 80"):
        ask(scorer, JudgeCall("d", "", (JudgeImage(photo),), data=asked | {"classes": ["x"] * 80}))


def test_ocr_clip_answers_with_lines_and_fit(
    clip_folder: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (Reading("春天 SPRING", (0.0, 0.0, 9.0, 9.0)),)
    monkeypatch.setattr(Ocr, "__init__", lambda self: None)
    monkeypatch.setattr(Ocr, "read", lambda self, picture: lines)
    call = JudgeCall("look", "", (JudgeImage(photo),), data={"clip_text": "A photo depicts spring"})
    assert ask(OcrClipScorer(), call) == {"lines": ["春天 SPRING"], "clip": None}
    with_clip = OcrClipScorer(clip_folder)
    told = ask(with_clip, call)
    assert -1 <= told["clip"] <= 1
    assert with_clip.profile.model != OcrClipScorer().profile.model
