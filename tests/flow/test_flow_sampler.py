import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from deepgen.flow.guidance import guide
from deepgen.flow.noise import keyed_noise
from deepgen.flow.sampler import SampleState, advance
from deepgen.flow.schedule import sigmas


def velocity_of(rows):
    return [torch.sin(row.latents * row.condition) + row.timestep / 1000 for row in rows]


def state(seed, steps=4, guidance=1.0, shape=(4, 6, 6), negative=None):
    return SampleState(keyed_noise(shape, seed, "init"), sigmas(steps, 3.0), 1.5, negative, guidance, seed)


def run(states):
    while not all(s.done for s in states):
        advance(states, velocity_of)
    return [s.latents for s in states]


def test_sampling_equals_diffusers_euler_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(6)
    latents = keyed_noise((4, 6, 6), 3, "init")
    (ours,) = run([state(3, steps=6)])
    for time in scheduler.timesteps:
        velocity = torch.sin(latents * 1.5) + time / 1000
        latents = scheduler.step(velocity, time, latents, return_dict=False)[0]
    assert torch.allclose(ours, latents, atol=1e-6)


def test_guidance_moves_from_the_negative_through_the_positive_velocity():
    negative, positive = torch.randn(2, 3, 3).unbind()
    assert torch.allclose(guide(negative, positive, 4.0), negative + 4 * (positive - negative))
    assert torch.allclose(guide(negative, positive, 1.0), positive, atol=1e-6)


def test_states_of_other_sizes_steps_and_guidance_do_not_disturb_each_other():
    makers = [
        lambda: state(1, steps=3),
        lambda: state(2, steps=5, guidance=4.0, negative=0.3, shape=(4, 2, 8)),
        lambda: state(3, steps=2, guidance=2.0, negative=0.7),
    ]
    together = run([make() for make in makers])
    for make, latents in zip(makers, together, strict=True):
        assert torch.equal(run([make()])[0], latents)


def test_states_may_join_between_steps():
    early, late = state(1), state(2)
    advance([early], velocity_of)
    run([early, late])
    assert torch.equal(late.latents, run([state(2)])[0])
    assert early.index == late.index == 4


def test_negative_rows_come_first_and_only_for_guided_states():
    seen = []

    def record(rows):
        seen.extend(row.condition for row in rows)
        return velocity_of(rows)

    plain, guided = state(1, negative=0.5, guidance=1.0), state(2, negative=0.7, guidance=3.0)
    advance([plain, guided], record)
    assert seen == [0.7, 1.5, 1.5]


def test_a_finished_state_is_left_alone():
    done = state(1, steps=1)
    advance([done], velocity_of)
    before = done.latents.clone()
    advance([done], lambda rows: pytest.fail("a finished state was evaluated"))
    assert torch.equal(done.latents, before)
