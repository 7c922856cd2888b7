"""Under which licence a network's weights come, as far as their shapes tell; docs/licences.md has the whole."""

from deepgen.checkpoints.tensors import StoredTensors

QWEN = "Qwen Research licence (Qwen2.5-VL-3B): no commercial use"
SD35 = "Stability AI Community licence (Stable Diffusion 3.5 Medium): free below 1 M USD of yearly revenue"
DEEPGEN = "DeepGen 1.0's model card; it was trained on top of the two others"
OWN = "not of a published shape: nano's weights are Apache-2.0, others are their maker's to license"

SIGNS = {
    "vlm": ("language_model.embed_tokens.weight", (151936, 2048), QWEN),
    "transformer": ("pos_embed.pos_embed", (1, 147456, 1536), SD35),
    "vae": ("decoder.conv_in.weight", (512, 16, 3, 3), SD35),
    "connector": ("projector_3.weight", (4096, 2048), DEEPGEN),
}
"""For each network a tensor whose shape gives a published one away."""


def licence_of(tower: str, tensors: StoredTensors) -> str:
    """One line on the licence of a network's weights."""
    name, shape, licence = SIGNS[tower]
    return licence if name in tensors and tensors[name].shape == shape else OWN
