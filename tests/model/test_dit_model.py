import pytest
import torch
from diffusers import SD3Transformer2DModel

from deepgen.errors import ConfigError, InputError
from deepgen.model.dit import DiT

CONFIG = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "joint_attention_dim": 20,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 12,
    "pos_embed_max_size": 12,
    "dual_attention_layers": (0, 1),
    "qk_norm": "rms_norm",
}


def random_weights(module, seed=0):
    torch.manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return module.eval()


def inputs(batch=2, context=5, seed=1):
    torch.manual_seed(seed)
    return {
        "timestep": torch.linspace(3.0, 900.0, batch),
        "encoder_hidden_states": torch.randn(batch, context, 20),
        "pooled_projections": torch.randn(batch, 12),
    }


@pytest.fixture(scope="module")
def dit():
    return random_weights(DiT(**CONFIG))


@pytest.mark.parametrize(
    "changes", [{}, {"dual_attention_layers": ()}, {"qk_norm": None}, {"patch_size": 1, "sample_size": 8}]
)
def test_it_equals_diffusers_sd3_transformer(changes):
    ours = random_weights(DiT(**{**CONFIG, **changes}))
    theirs = SD3Transformer2DModel(**{**CONFIG, **changes}).eval()
    theirs.load_state_dict(ours.state_dict())
    latents = torch.randn(2, 4, 8, 10 if not changes.get("patch_size") else 6)
    with torch.no_grad():
        difference = ours(latents, **inputs()) - theirs(latents, **inputs()).sample
    assert difference.abs().max() < 1e-5


def test_a_new_position_table_equals_diffusers():
    theirs = SD3Transformer2DModel(**CONFIG)
    assert torch.equal(DiT(**CONFIG).pos_embed.pos_embed, theirs.pos_embed.pos_embed)


def test_gradients_equal_diffusers():
    ours, theirs = random_weights(DiT(**CONFIG)), SD3Transformer2DModel(**CONFIG)
    theirs.load_state_dict(ours.state_dict())
    latents = torch.randn(2, 4, 8, 8)
    ours(latents, **inputs()).square().mean().backward()
    theirs(latents, **inputs()).sample.square().mean().backward()
    grads = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter.grad, grads[name].grad, atol=1e-6, rtol=1e-3), name


def test_a_ragged_batch_equals_its_samples_alone(dit):
    torch.manual_seed(2)
    targets = [torch.randn(4, 8, 8), torch.randn(4, 12, 4), torch.randn(4, 4, 6)]
    references = [[torch.randn(4, 8, 12)], [torch.randn(4, 4, 4), torch.randn(4, 8, 8)], []]
    given, lengths = inputs(3, context=7), torch.tensor([7, 2, 5])
    with torch.no_grad():
        together = dit(targets, **given, encoder_lengths=lengths, reference_hidden_states=references)
        for i in range(3):
            alone = dit(
                [targets[i]],
                given["timestep"][i : i + 1],
                given["encoder_hidden_states"][i : i + 1, : lengths[i]],
                given["pooled_projections"][i : i + 1],
                reference_hidden_states=[references[i]],
            )
            assert torch.allclose(together[i], alone[0], atol=1e-5)


def test_filler_in_the_context_changes_nothing(dit):
    given, latents = inputs(), torch.randn(2, 4, 8, 8)
    other = {**given, "encoder_hidden_states": given["encoder_hidden_states"].clone()}
    other["encoder_hidden_states"][0, 3:] = 1e3
    with torch.no_grad():
        one, two = (dit(latents, **g, encoder_lengths=torch.tensor([3, 5])) for g in (given, other))
    assert torch.allclose(one, two, atol=1e-6)


def test_references_are_seen_and_their_order_is_not(dit):
    latents, refs = torch.randn(1, 4, 8, 8), list(torch.randn(2, 4, 8, 8))
    given = inputs(1)
    with torch.no_grad():
        none, one, two, swapped = (
            dit(latents, **given, reference_hidden_states=[r]) for r in ([], refs[:1], refs, refs[::-1])
        )
    assert (none - one).abs().max() > 1e-3 and (one - two).abs().max() > 1e-4
    assert torch.allclose(two, swapped, atol=1e-5)


def test_embed_and_forward_tokens_compose_to_forward(dit):
    latents, given = torch.randn(2, 4, 8, 6), inputs()
    with torch.no_grad():
        patches = dit.forward_tokens(dit.embed(latents), *given.values())
        assert torch.equal(dit.unpatchify(patches, 8, 6), dit(latents, **given))


def test_forward_tokens_compiles_to_one_graph_with_lengths(dit):
    latents, given = torch.randn(2, 4, 8, 6), inputs()
    lengths = {"image_lengths": torch.tensor([12, 5]), "encoder_lengths": torch.tensor([5, 2])}
    compiled = torch.compile(dit.forward_tokens, fullgraph=True, backend="eager")
    with torch.no_grad():
        tokens = dit.embed(latents)
        eager = dit.forward_tokens(tokens, *given.values(), **lengths)
        assert torch.allclose(compiled(tokens, *given.values(), **lengths), eager, atol=1e-6)


def test_a_list_gives_a_list_and_a_tensor_a_tensor(dit):
    latents, given = torch.randn(2, 4, 8, 8), inputs()
    with torch.no_grad():
        listed, stacked = dit(list(latents), **given), dit(latents, **given)
    assert isinstance(listed, list) and torch.allclose(torch.stack(listed), stacked, atol=1e-6)


def test_a_latent_that_does_not_fit_is_refused(dit):
    with pytest.raises(InputError, match="not multiples of 2"):
        dit(torch.randn(2, 4, 7, 8), **inputs())
    with pytest.raises(InputError, match="larger than the model's position table"):
        dit(torch.randn(2, 4, 26, 8), **inputs())


def test_reference_lists_must_match_the_samples(dit):
    with pytest.raises(InputError, match="2 targets but reference lists for 1"):
        dit(torch.randn(2, 4, 8, 8), **inputs(), reference_hidden_states=[[]])


def test_a_width_that_is_not_heads_times_head_size_is_refused():
    with pytest.raises(ConfigError, match="caption_projection_dim is 30"):
        DiT(**{**CONFIG, "caption_projection_dim": 30})


def test_a_new_model_predicts_zero():
    latents = torch.randn(2, 4, 8, 8)
    assert DiT(**CONFIG)(latents, **inputs()).abs().max() == 0
