import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from deepgen.errors import InputError
from deepgen.flow.path import clean_estimate, interpolate, table_index, velocity_target
from deepgen.flow.schedule import sigmas, timestep_of, train_sigma_table


@pytest.mark.parametrize(("steps", "shift"), [(1, 3.0), (4, 3.0), (20, 2.0), (50, 3.0), (50, 1.0), (7, 5.5)])
def test_sampling_levels_equal_diffusers_to_the_last_bit(steps, shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    levels = sigmas(steps, shift)
    assert torch.equal(levels, scheduler.sigmas)
    assert torch.equal(timestep_of(levels[:-1]), scheduler.timesteps)


def test_fifty_published_timesteps_start_and_end_as_recorded():
    times = timestep_of(sigmas(50, 3.0)).tolist()
    assert times[:3] == pytest.approx([1000, 993.1244, 986.0571], abs=1e-4)
    assert times[-3:] == pytest.approx([66.9002, 8.9286, 0], abs=1e-4)


def test_the_training_table_equals_the_schedulers():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert torch.equal(train_sigma_table(3.0), scheduler.sigmas)
    assert torch.equal(timestep_of(train_sigma_table(3.0)), scheduler.timesteps)


def test_uniform_draws_index_the_table_by_floor():
    draws = torch.tensor([0.0, 0.00099, 0.0011, 0.5, 0.99999])
    assert table_index(draws, 1000).tolist() == [0, 0, 1, 500, 999]


@pytest.mark.parametrize("draw", [-0.1, 1.0])
def test_a_draw_outside_the_unit_interval_is_refused(draw):
    with pytest.raises(InputError, match="uniform draws"):
        table_index(torch.tensor([draw]), 1000)


@pytest.mark.parametrize(("steps", "shift"), [(0, 3.0), (10, 0.0)])
def test_a_schedule_without_steps_or_shift_is_refused(steps, shift):
    with pytest.raises(InputError, match="must be"):
        sigmas(steps, shift)


def test_the_path_runs_from_the_picture_to_the_noise_at_constant_velocity():
    clean, noise = torch.randn(2, 3, 4, 4, dtype=torch.float64).unbind()
    middle = interpolate(clean, noise, 0.25)
    assert torch.allclose(middle.double(), 0.75 * clean + 0.25 * noise, atol=1e-6)
    assert torch.allclose(velocity_target(clean, noise).double(), noise - clean, atol=1e-6)
    assert torch.allclose(
        clean_estimate(middle, velocity_target(clean, noise), 0.25).double(), clean, atol=1e-6
    )
