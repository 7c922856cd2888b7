"""Which files each kind of checkpoint is read from; `*` stands for anything within a name."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json")


def _weights(stem: str, folder: str = "") -> tuple[str, ...]:
    """One file, or shards with their index; not the half-precision and framework variants beside them."""
    return tuple(
        f"{folder}{stem}{end}" for end in (".safetensors", ".safetensors.index.json", "-*-of-*.safetensors")
    )


def _tower(folder: str, *stems: str) -> tuple[str, ...]:
    return (f"{folder}/config.json", *(name for stem in stems for name in _weights(stem, f"{folder}/")))


DIT_FILES = (
    *_tower("transformer", "diffusion_pytorch_model"),
    *_tower("vae", "diffusion_pytorch_model"),
    "scheduler/scheduler_config.json",
)
VLM_FILES = ("config.json", *_weights("model"), *TOKENIZER_FILES)
DIFFUSERS_FILES = (
    "model_index.json",
    "generation_config.json",
    *DIT_FILES,
    *_tower("connector", "diffusion_pytorch_model", "model"),
    *_tower("vlm", "model"),
    *(f"{folder}{name}" for folder in ("vlm/", "tokenizer/") for name in TOKENIZER_FILES),
)
NATIVE_FILES = ("model.pt",)
RL_FILES = _weights("model")
DEEPSPEED_FILES = (
    "mp_rank_00_model_states.pt",
    "zero_pp_rank_*_optim_states.pt",
    "bf16_zero_pp_rank_*_optim_states.pt",
)
PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
