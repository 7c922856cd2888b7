import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

from deepgen.errors import ConfigError, InputError
from deepgen.model.prompts import edit_prompt, text_to_image_prompt
from deepgen.model.vision import resize_for_vision
from deepgen.model.vlm import FusedVLM, fused_layer_indices, with_pads

LAYERS = [35, 29, 23, 17, 11, 5]
WORDS = [71, 72, 73]
"""Tokens whose embeddings stand in for think tokens, so that transformers can read the same sequence."""


def processor_rows(picture):
    """Qwen's patch rows of a normalised picture [3, H, W]."""
    rows = picture.unfold(1, 14, 14).unfold(2, 14, 14)
    _, height, width, _, _ = rows.shape
    rows = rows.view(3, height // 2, 2, width // 2, 2, 14, 14).permute(1, 3, 2, 4, 0, 5, 6)
    return rows.reshape(height * width, 3, 1, 196).expand(-1, -1, 2, -1).flatten(1)


def transformers_states(model, ids, pictures=()):
    """All hidden states of transformers' own forward over one unpadded sequence, with its own positions."""
    tokens = torch.tensor([ids])
    extra = {}
    if pictures:
        resized = [resize_for_vision(p[None])[0] for p in pictures]
        extra["pixel_values"] = torch.cat([processor_rows(x) for x in resized])
        extra["image_grid_thw"] = torch.tensor([[1, x.shape[1] // 14, x.shape[2] // 14] for x in resized])
        extra["mm_token_type_ids"] = (tokens == model.config.image_token_id).int()
    return model(
        tokens, attention_mask=torch.ones_like(tokens), output_hidden_states=True, **extra
    ).hidden_states


def think_tokens(vlm):
    return vlm.model.language_model.embed_tokens.weight[WORDS]


@pytest.mark.parametrize(
    ("depth", "count", "expected"),
    [(36, 6, LAYERS), (12, 6, [11, 9, 7, 5, 3, 1]), (36, 1, [35]), (28, 6, [27, 23, 19, 15, 11, 7])],
)
def test_fused_layers_are_counted_down_from_the_last_but_one(depth, count, expected):
    assert fused_layer_indices(depth, count) == expected


@pytest.mark.parametrize(("depth", "count"), [(6, 6), (4, 6), (1, 1), (12, 12)])
def test_a_depth_that_cannot_give_enough_layers_is_refused(depth, count):
    with pytest.raises(ConfigError, match=f"{depth} layers does not give {count}"):
        fused_layer_indices(depth, count)


def test_text_states_equal_transformers(tiny):
    ids = tiny.vlm.tokenize(text_to_image_prompt("a red cube"))
    fused, lengths = tiny.vlm.hidden([ids], [[]], think_tokens(tiny.vlm))
    states = transformers_states(tiny.vlm.model, ids + WORDS)
    assert lengths.tolist() == [len(ids) + 3]
    assert torch.allclose(fused, torch.cat([states[i] for i in LAYERS], -1), atol=5e-5, rtol=1e-5)


def test_picture_states_equal_transformers(tiny):
    pictures = [torch.rand(3, 64, 128) * 2 - 1, torch.rand(3, 96, 64) * 2 - 1]
    ids = tiny.vlm.tokenize(edit_prompt("make it blue", [8, 6]))
    embeds = [tiny.vlm.image_embeds(p[None])[0] for p in pictures]
    fused, _ = tiny.vlm.hidden([ids], [embeds], think_tokens(tiny.vlm))
    states = transformers_states(tiny.vlm.model, ids + WORDS, pictures)
    assert torch.allclose(fused, torch.cat([states[i] for i in LAYERS], -1), atol=5e-5, rtol=1e-5)


def test_a_samples_states_do_not_depend_on_its_neighbours(tiny):
    vlm = tiny.vlm
    picture = vlm.image_embeds(torch.rand(1, 3, 64, 64) * 2 - 1)[0]
    prompts = [
        edit_prompt("blue", [4]),
        text_to_image_prompt("a much longer prompt of words"),
        text_to_image_prompt(""),
    ]
    ids, embeds = [vlm.tokenize(p) for p in prompts], [[picture], [], []]
    together, lengths = vlm.hidden(ids, embeds, think_tokens(vlm))
    for i, length in enumerate(lengths.tolist()):
        alone, _ = vlm.hidden([ids[i]], [embeds[i]], think_tokens(vlm))
        assert torch.allclose(together[i, :length], alone[0], atol=5e-5, rtol=1e-5)


def test_gradients_reach_the_think_tokens_and_only_from_their_rows(tiny):
    think = think_tokens(tiny.vlm).clone().requires_grad_()
    ids = [tiny.vlm.tokenize(text_to_image_prompt(t)) for t in ("a", "a longer one")]
    fused, lengths = tiny.vlm.hidden(ids, [[], []], think)
    (before,) = torch.autograd.grad(fused[0, : len(ids[0])].sum(), think, retain_graph=True)
    (behind,) = torch.autograd.grad(fused[0, len(ids[0]) : int(lengths[0])].square().sum(), think)
    assert before.abs().max() == 0 and (behind.abs().amax(1) > 0).all()


def test_without_bridging_it_gives_the_normalised_last_state(tiny):
    vlm = FusedVLM(tiny.vlm.model, tiny.vlm.tokenizer, fused_layers=0)
    ids = vlm.tokenize(text_to_image_prompt("a dog"))
    fused, _ = vlm.hidden([ids], [[]], think_tokens(vlm))
    assert torch.allclose(fused, transformers_states(vlm.model, ids + WORDS)[36], atol=5e-5, rtol=1e-5)


def test_the_last_block_is_never_run(tiny, monkeypatch):
    last = tiny.vlm.model.language_model.layers[-1]
    monkeypatch.setattr(last, "forward", lambda *a, **k: pytest.fail("the last decoder block was run"))
    ids = tiny.vlm.tokenize(text_to_image_prompt("a dog"))
    assert tiny.vlm.hidden([ids], [[]], think_tokens(tiny.vlm))[0].shape == (1, len(ids) + 3, 192)


def test_an_eager_model_still_reads_causally(tiny):
    config = Qwen2_5_VLConfig.from_dict(tiny.vlm.model.config.to_dict(), attn_implementation="eager")
    eager = Qwen2_5_VLModel(config)
    eager.load_state_dict(tiny.vlm.model.state_dict())
    vlm = FusedVLM(eager, tiny.vlm.tokenizer)
    ids = vlm.tokenize(text_to_image_prompt("a dog"))
    ours, _ = vlm.hidden([ids], [[]], think_tokens(vlm))
    assert torch.allclose(ours, tiny.vlm.hidden([ids], [[]], think_tokens(vlm))[0], atol=1e-5)


def test_image_tokens_must_match_the_pictures(tiny):
    ids = tiny.vlm.tokenize(edit_prompt("blue", [4]))
    with pytest.raises(InputError, match="sample 0 has 4 image tokens but its pictures give 6"):
        tiny.vlm.hidden([ids], [[torch.zeros(2, 3, 32)]], think_tokens(tiny.vlm))


def test_pad_rows_stand_in_front_and_the_rest_moves_behind():
    fused = torch.arange(12.0).view(2, 3, 2)
    padded, total = with_pads(fused, torch.tensor([3, 1]), torch.tensor([1, 2]), torch.tensor([-1.0, -2.0]))
    assert total.tolist() == [4, 3]
    assert padded[0].tolist() == [[-1, -2], *fused[0].tolist()]
    assert padded[1, :3].tolist() == [[-1, -2], [-1, -2], fused[1, 0].tolist()]
