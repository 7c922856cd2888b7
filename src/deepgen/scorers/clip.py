"""CLIP from a folder on disk: how well words and pictures agree. Needs no torchvision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from deepgen.errors import CheckpointError
from deepgen.scorers.identity import folder_identity, require_whole

TOKENS = 77


class Clip:
    """An OpenAI CLIP as transformers stores it: config, weights in safetensors, tokenizer, preprocessor.

    Raises CheckpointError where the folder is none, or weights are missing.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self.identity = folder_identity(folder)
        self.device = device
        try:
            loaded = CLIPModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
            self._tokenizer: Any = CLIPTokenizer.from_pretrained(folder)
            self._processor: Any = CLIPImageProcessorPil.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder}: not a CLIP of transformers ({error})") from error
        self._model: Any = require_whole(loaded, folder).to(device).eval()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D] of texts, each cut off after 77 tokens."""
        tokens = self._tokenizer(
            list(texts), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        )
        found = self._model.text_model(**tokens.to(self.device))
        return functional.normalize(self._model.text_projection(found.pooler_output), dim=-1)

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit vectors [N, D] of RGB pictures: shorter side to CLIP's size, middle cut out."""
        pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        found = self._model.vision_model(pixel_values=pixels.to(self.device))
        return functional.normalize(self._model.visual_projection(found.pooler_output), dim=-1)

    def classify(self, pictures: Sequence[Image.Image], classes: Sequence[Sequence[str]]) -> list[int]:
        """The class of each picture; a class is several wordings, whose unit vectors are averaged (Radford et al.
        2021, section 3.1.4)."""
        vectors = [self.texts(wordings).mean(dim=0) for wordings in classes]
        of_classes = functional.normalize(torch.stack(vectors), dim=-1)
        return (self.pictures(pictures) @ of_classes.T).argmax(dim=-1).tolist()

    def similarity(self, picture: Image.Image, text: str) -> float:
        """The cosine between a picture and a text, in [-1, 1]."""
        return float((self.pictures([picture]) @ self.texts([text]).T).item())
