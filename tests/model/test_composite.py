import pytest
import torch

from deepgen.errors import ConfigError, InputError
from deepgen.model.bridge import Bridge
from deepgen.model.deepgen import Conditioning, DeepGenModel, front_pads
from deepgen.model.dit import DiT

LONG = "a much longer prompt about a lake and a mountain"


def picture(height=64, width=64, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def assert_same_row(one, i, other, j):
    length = int(one.lengths[i])
    assert length == int(other.lengths[j])
    assert torch.allclose(one.context[i, :length], other.context[j, :length], atol=2e-4, rtol=1e-4)
    assert torch.allclose(one.pooled[i], other.pooled[j], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [("none", [0, 0, 0, 0]), ("pair", [0, 5, 3, 0]), ("batch", [2, 5, 5, 0])],
)
def test_pads_in_front_follow_the_padding_mode(padding, expected):
    assert front_pads([10, 7], [7, 12], padding) == expected


def test_without_negatives_a_pair_is_the_prompt_alone():
    assert front_pads([10, 7], [], "pair") == [0, 0]


def test_an_unknown_padding_is_refused():
    with pytest.raises(ConfigError, match="padding is 'left'"):
        front_pads([1], [1], "left")


@pytest.mark.parametrize("padding", ["none", "pair"])
def test_conditioning_of_a_request_does_not_depend_on_its_neighbours(tiny, padding):
    together = tiny.condition(["a dog", LONG, "blue"], [[], [], [picture()]], padding, ["", "bad", "blurry"])
    alone = tiny.condition(["blue"], [[picture()]], padding, ["blurry"])
    assert_same_row(together, 2, alone, 0)
    assert_same_row(together, 5, alone, 1)


def test_pair_padding_of_one_request_equals_batch_padding(tiny):
    pair = tiny.condition([LONG], None, "pair", [""])
    batch = tiny.condition([LONG], None, "batch", [""])
    assert torch.equal(pair.context, batch.context) and torch.equal(pair.pooled, batch.pooled)


def test_unguided_conditioning_keeps_the_padding_of_its_negative(tiny):
    guided = tiny.condition(["a dog"], None, "pair", [LONG])
    unguided = tiny.condition(["a dog"], None, "pair", [LONG], encode_negatives=False)
    assert len(unguided) == 1
    assert_same_row(unguided, 0, guided, 0)
    assert int(unguided.lengths[0]) > int(tiny.condition(["a dog"]).lengths[0])


def test_rows_are_chosen_without_needless_filler(tiny):
    both = tiny.condition(["a dog", LONG])
    first = both.rows([0])
    assert first.context.shape[1] == int(both.lengths[0]) < both.context.shape[1]
    assert_same_row(Conditioning.join([first, both.rows([1])]), 1, both, 1)


def test_velocity_takes_samples_of_any_size_with_any_references(tiny):
    torch.manual_seed(0)
    conditioning = tiny.condition(["a dog", LONG], [[], [picture()]])
    latents, references = [torch.randn(16, 8, 8), torch.randn(16, 4, 12)], [[], [torch.randn(16, 8, 8)]]
    times = torch.tensor([500.0, 20.0])
    together = tiny.velocity(latents, times, conditioning, references)
    for i in range(2):
        alone = tiny.velocity([latents[i]], times[i : i + 1], conditioning.rows([i]), [references[i]])
        assert torch.allclose(together[i], alone[0], atol=1e-4)


def test_pictures_go_to_latents_and_back_with_their_size(tiny):
    latents = tiny.encode(picture(64, 96)[None])
    assert latents.shape == (1, 16, 8, 12) and tiny.decode(latents).shape == (1, 3, 64, 96)
    assert tiny.latent_scale == 8


def test_gradients_of_a_condition_reach_the_bridge(tiny):
    bridge = Bridge(**dict(tiny.bridge.config))
    torch.nn.init.normal_(bridge.projector_3.weight)
    model = DeepGenModel(tiny.vlm, bridge, tiny.dit, tiny.vae)
    model.condition(["a dog", LONG]).context.square().mean().backward()
    assert bridge.meta_queries.grad.abs().max() > 0


def test_counts_that_disagree_are_refused(tiny):
    with pytest.raises(InputError, match="one entry a sample"):
        tiny.condition(["a", "b"], [[]])


def test_networks_that_do_not_fit_are_refused(tiny):
    other = Bridge(**{**dict(tiny.bridge.config), "context_dim": 41})
    with pytest.raises(ConfigError, match="bridge context and transformer do not fit: 41 and 40"):
        DeepGenModel(tiny.vlm, other, tiny.dit, tiny.vae)


def test_published_sizes_have_the_published_parameter_counts():
    with torch.device("meta"):
        dit = DiT(
            num_layers=24,
            num_attention_heads=24,
            caption_projection_dim=1536,
            pos_embed_max_size=384,
            dual_attention_layers=tuple(range(13)),
            qk_norm="rms_norm",
        )
        bridge = Bridge()
    elements = [sum(t.numel() for t in network.state_dict().values()) for network in (dit, bridge)]
    assert elements == [2_469_663_936, 432_449_532]
    assert [len(dit.state_dict()), len(bridge.state_dict())] == [909, 103]
