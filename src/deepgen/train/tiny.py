"""Random networks of a few thousand parameters: the published classes, for trying a run out in seconds."""

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLModel
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig

from deepgen.checkpoints.defaults import GenerationDefaults
from deepgen.model.bridge import Bridge
from deepgen.model.deepgen import DeepGenModel
from deepgen.model.dit import DiT
from deepgen.model.prompts import IMAGE_PAD, text_to_image_prompt
from deepgen.model.vlm import FusedVLM
from deepgen.train.tokenizer import SPECIAL_TOKENS, train_tokenizer

TINY = "tiny"
VOCABULARY = 320
AREA = 64 * 64


def tiny_defaults() -> GenerationDefaults:
    """Sampling of the tiny model: 64 × 64 pixels in four steps."""
    return GenerationDefaults(
        area=AREA,
        num_inference_steps=4,
        padding="none",
        negative_prompt="",
        negative_edit_prompt="",
        trained_sizes=((64, 64),),
    )


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and Qwen's special tokens, with few merges."""
    words = "".join(part for part in text_to_image_prompt("a red ball").parts if isinstance(part, str))
    return train_tokenizer(iter([words]), VOCABULARY)


def tiny_vlm() -> FusedVLM:
    """A Qwen2.5-VL of four layers with a byte-level tokenizer."""
    tokenizer = tiny_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids[IMAGE_PAD],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    return FusedVLM(Qwen2_5_VLModel(config), tokenizer, fused_layers=2)


def tiny_model(seed: int) -> DeepGenModel:
    """The four networks, the same for equal seeds; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vlm = tiny_vlm()
        bridge = Bridge(
            vlm_hidden_size=32,
            num_fused_layers=2,
            hidden_size=32,
            intermediate_size=64,
            num_layers=2,
            num_heads=2,
            num_queries=8,
            pooled_dim=32,
            context_dim=32,
        )
        dit = DiT(
            sample_size=16,
            num_layers=3,
            in_channels=4,
            out_channels=4,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=32,
            pos_embed_max_size=24,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            scaling_factor=1.0,
            shift_factor=0.0,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,
        )
        # A new model's last layers are zero, and keep gradients from what is before them; here all shall learn at once.
        for module in (bridge, dit):
            for parameter in module.parameters():
                if parameter.dim() >= 2 and not parameter.any():
                    nn.init.normal_(parameter, std=0.05)
    return DeepGenModel(vlm, bridge, dit, vae).eval()
