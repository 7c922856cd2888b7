"""The stochastic steps against the published formulas, written out again in float64 (rl.md, section 5)."""

import math

import pytest
import torch

from deepgen.errors import InputError
from deepgen.flow.schedule import sigmas
from deepgen.flow.sde import STEPS, ode_rows, sde_step

LEVELS = sigmas(10, 3.0)


def draw(seed=0, rows=4):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, 3, 5, 4, generator=generator) for _ in range(3)]


def levels(rows, step):
    return LEVELS[step].expand(rows), LEVELS[step + 1].expand(rows)


def published_cps(x, v, a, b, eta):
    s = b * math.sin(eta * math.pi / 2)
    return (1 - b) * (x - a * v) + math.sqrt(b * b - s * s) * (x + (1 - a) * v), s, s


def published_flow(x, v, a, b, eta):
    s = eta * math.sqrt(a / (1 - (b if a == 1 else a)))
    d = b - a
    mean = x * (1 + s * s * d / (2 * a)) + v * (1 + s * s * (1 - a) / (2 * a)) * d
    return mean, s * math.sqrt(-d), s


def published_dance(x, v, a, b, eta):
    d, clean = b - a, x - a * v
    s = eta * math.sqrt(-d)
    return x + (v + 0.5 * eta**2 * (x - (1 - a) * clean) / a**2) * d, s, s


PUBLISHED = {"cps": published_cps, "flow": published_flow, "dance": published_dance}


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("step", [0, 1, 4, 8])
@pytest.mark.parametrize("eta", [0.3, 0.8, 1.0])
def test_a_step_is_the_published_formula(kind, step, eta):
    x, v, noise = draw()
    move = sde_step(kind, x, v, *levels(4, step), eta)
    a, b = LEVELS[step].double().item(), LEVELS[step + 1].double().item()
    mean, std, scale = PUBLISHED[kind](x.double(), v.double(), a, b, eta)
    torch.testing.assert_close(move.mean.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(move.draw(noise).double(), mean + std * noise, rtol=1e-5, atol=1e-5)
    assert move.std.double().tolist() == pytest.approx([std] * 4, rel=1e-5)
    assert move.scale.double().tolist() == pytest.approx([scale] * 4, rel=1e-5)


@pytest.mark.parametrize("kind", STEPS)
def test_the_log_probability_is_the_mean_density_and_that_of_cps_the_squared_distance(kind):
    x, v, noise = draw(1)
    move = sde_step(kind, x, v, *levels(4, 3), 0.8)
    value = move.draw(noise)
    normal = torch.distributions.Normal(move.mean.double(), move.std.double().view(-1, 1, 1, 1))
    wanted = normal.log_prob(value.double()).mean((1, 2, 3))
    if kind == "cps":
        wanted = -(value.double() - move.mean.double()).square().mean((1, 2, 3))
    torch.testing.assert_close(move.log_prob(value).double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", STEPS)
def test_a_step_with_hardly_any_noise_is_the_euler_step(kind):
    x, v, _ = draw(2)
    a, b = levels(4, 5)
    torch.testing.assert_close(sde_step(kind, x, v, a, b, 1e-4).mean, ode_rows(x, v, a, b), atol=1e-4, rtol=0)


def test_cps_keeps_the_latents_on_the_path_of_their_level():
    """Of independent clean latents and noise: the next latents' variance is (1 − σ')² + σ'², whatever eta is."""
    generator = torch.Generator().manual_seed(0)
    clean, noise, fresh = (torch.randn(1, 400_000, generator=generator) for _ in range(3))
    a, b = levels(1, 2)
    x = (1 - a[:, None]) * clean + a[:, None] * noise
    for eta in (0.3, 0.8, 1.0):
        drawn = sde_step("cps", x, noise - clean, a, b, eta).draw(fresh)
        assert drawn.var().item() == pytest.approx(((1 - b) ** 2 + b**2).item(), rel=0.01)


@pytest.mark.parametrize("kind", STEPS)
def test_rows_at_different_levels_are_what_they_are_alone(kind):
    x, v, noise = draw(3)
    now, then = LEVELS[[0, 2, 5, 8]], LEVELS[[1, 3, 6, 9]]
    together = sde_step(kind, x, v, now, then, 0.7)
    for i in range(4):
        alone = sde_step(kind, x[i : i + 1], v[i : i + 1], now[i : i + 1], then[i : i + 1], 0.7)
        assert torch.equal(together.draw(noise)[i], alone.draw(noise[i : i + 1])[0])


def test_filled_up_rows_have_the_log_probability_of_their_own_values():
    x, v, noise = (part.flatten(1) for part in draw(4))
    filled = [torch.nn.functional.pad(part, (0, 17)) for part in (x, v, noise)]
    a, b = levels(4, 3)
    alone, wide = (sde_step("flow", one, two, a, b, 0.8) for one, two in ((x, v), filled[:2]))
    counts = torch.full((4,), x.shape[1])
    torch.testing.assert_close(
        wide.log_prob(wide.draw(filled[2]), counts), alone.log_prob(alone.draw(noise)), rtol=1e-6, atol=1e-6
    )


def test_the_gradient_of_a_log_probability_pulls_the_mean_towards_what_was_drawn():
    x, v, noise = draw(5)
    v.requires_grad_()
    move = sde_step("cps", x, v, *levels(4, 2), 0.8)
    value = move.draw(noise).detach()
    before = move.log_prob(value)
    before.sum().backward()
    after = sde_step("cps", x, v + 0.1 * v.grad, *levels(4, 2), 0.8).log_prob(value)
    assert (after > before).all()


@pytest.mark.parametrize(("kind", "eta"), [("cps", 0.0), ("cps", 1.1), ("flow", -1.0), ("heun", 0.5)])
def test_unknown_kinds_and_impossible_noise_are_refused(kind, eta):
    x, v, _ = draw()
    with pytest.raises(InputError):
        sde_step(kind, x, v, *levels(4, 2), eta)
