"""Mask2Former from a folder on disk: the objects in a picture, their boxes and their masks. Needs no torchvision."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.mask2former.configuration_mask2former import Mask2FormerConfig
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerModel,
    Mask2FormerPreTrainedModel,
)

from deepgen.errors import CheckpointError
from deepgen.scorers.identity import folder_identity, require_whole

MOST = 100
"""Instances of a picture at most, as mmdet's configurations of Mask2Former have it."""


@dataclass(frozen=True)
class Instance:
    """One object. label: the class's number. box: left, top, right, bottom in pixels. mask: bool [H, W]."""

    label: int
    score: float
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_]


class InstanceNetwork(Mask2FormerPreTrainedModel):
    """Mask2Former with its class head but without its loss, which would need scipy."""

    _keys_to_ignore_on_load_unexpected = (r"criterion\.",)

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__(config)
        self.model = Mask2FormerModel(config)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """[1, 3, H, W] → class logits [Q, classes + 1] and mask logits [Q, H/4, W/4]."""
        found = self.model(pixel_values=pixel_values, output_hidden_states=True, return_dict=True)
        last = found.transformer_decoder_intermediate_states[-1].transpose(0, 1)
        return self.class_predictor(last)[0], found.masks_queries_logits[-1][0]


class InstanceDetector:
    """Raises CheckpointError where the folder is no Mask2Former, or weights are missing."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.identity = folder_identity(folder)
        self.device = device
        try:
            loaded = InstanceNetwork.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
            self._processor: Any = Mask2FormerImageProcessorPil.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder}: not a Mask2Former of transformers ({error})") from error
        self._network: Any = require_whole(loaded, folder).to(device).eval()
        self.classes = int(self._network.config.num_labels)

    @torch.inference_mode()
    def detect(self, picture: Image.Image) -> list[Instance]:
        """At most 100 instances of an RGB picture, the best first."""
        prepared = self._processor(images=[picture], return_tensors="pt").to(self.device)
        logits, masks = self._network(prepared["pixel_values"])
        # The processor pads right and below; what is the picture says its mask.
        rows, columns = prepared["pixel_mask"][0].amax(dim=1), prepared["pixel_mask"][0].amax(dim=0)
        frame = Frame(tuple(prepared["pixel_values"].shape[-2:]), (int(rows.sum()), int(columns.sum())))
        return instances(logits.float().cpu(), masks.float().cpu(), frame, picture.size)


@dataclass(frozen=True)
class Frame:
    """(height, width) of the network's input with its pad, and of the picture in it, which begins at the corner."""

    padded: tuple[int, ...]
    inside: tuple[int, int]


def instances(logits: Tensor, masks: Tensor, frame: Frame, size: tuple[int, int]) -> list[Instance]:
    """Instances from class logits [Q, C + 1] and mask logits [Q, h, w], as mmdet makes them for Mask2Former.

    The best MOST pairs of query and class count; a score is the class's probability times the mean probability of
    the mask's pixels. size: (width, height) of the picture. Empty masks are left out.
    """
    classes = logits.shape[-1] - 1
    probabilities = logits.softmax(dim=-1)[:, :-1].flatten()
    scores, places = probabilities.topk(min(MOST, probabilities.numel()))
    whole = functional.interpolate(masks[None], frame.padded, mode="bilinear", align_corners=False)
    cut = whole[..., : frame.inside[0], : frame.inside[1]]
    full = functional.interpolate(cut, (size[1], size[0]), mode="bilinear", align_corners=False)[0]
    found = []
    for score, place in zip(scores.tolist(), places.tolist(), strict=True):
        mask_logits = full[place // classes]
        mask = mask_logits > 0
        if mask.any():
            certainty = mask_logits.sigmoid()[mask].mean().item()
            shape = mask.numpy()
            found.append(Instance(place % classes, score * certainty, box_of(shape), shape))
    return sorted(found, key=lambda one: -one.score)


def box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The box around a mask [H, W] that is not empty; right and bottom lie behind the last pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
