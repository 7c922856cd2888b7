"""Where the weights go: devices that are not here, offloading, casting."""

import numpy as np
import pytest
import torch

from deepgen import DeepGenPipeline
from deepgen.errors import InputError
from deepgen.pipeline import offload, pipeline
from deepgen.pipeline.offload import ENTRY_POINTS, Offload, check_devices


@pytest.fixture
def own(tiny_checkpoint):
    made = DeepGenPipeline.from_pretrained(tiny_checkpoint, device="cpu")
    made.set_progress_bar_config(disable=True)
    return made


def test_a_device_that_is_not_here_is_refused_in_one_line(own):
    absent = "xpu" if torch.cuda.is_available() else "cuda"
    with pytest.raises(InputError, match=f"no device '{absent}'"):
        own.to(absent)
    with pytest.raises(InputError, match="no device"):
        own.enable_model_cpu_offload(device=absent)
    with pytest.raises(InputError, match="no device"):
        DeepGenPipeline.from_pretrained("nano", device=absent)
    with pytest.raises(InputError, match="'gpu' is no device"):
        own.to("gpu")
    check_devices(["cpu", torch.device("meta"), torch.bfloat16, None])


def test_offloading_without_an_accelerator_stays_on_the_cpu(own, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    with pytest.warns(UserWarning, match="stays on the CPU"):
        own.enable_model_cpu_offload()
    assert own("a cat", seed=1, output_type="np").images.shape == (1, 64, 64, 3)


def test_one_network_at_a_time_is_resident_and_pictures_stay_the_same(own):
    plain = own("a cat", seed=1, output_type="np").images
    resident = []

    class Recording(Offload):
        def _bring(self, name):
            super()._bring(name)
            resident.append(name)
            moved = {id(tensor) for tensor, _ in self._home}
            assert moved == {
                id(t) for t in (*own.components[name].parameters(), *own.components[name].buffers())
            }

    offloading = Recording(own.components, torch.device("cpu"))
    again = own("a cat", seed=1, output_type="np").images
    assert np.array_equal(plain, again)
    phases = [name for i, name in enumerate(resident) if i == 0 or resident[i - 1] != name]
    assert phases == ["vlm", "connector", "transformer", "vae"]
    offloading.remove()
    assert not any(m in own.components[n].__dict__ for n, methods in ENTRY_POINTS.items() for m in methods)


def test_moving_the_pipeline_ends_offloading(own):
    own._offload = Offload(own.components, torch.device("cpu"))
    assert own.to("cpu") is own and own._offload is None
    assert "forward" not in own.transformer.__dict__


def test_a_cast_leaves_the_rotary_frequencies_in_fp32(own):
    own.to(torch.bfloat16)
    assert own.transformer.dtype == torch.bfloat16
    assert own.vlm.model.language_model.rotary_emb.inv_freq.dtype == torch.float32


def test_a_model_too_large_for_the_accelerator_stays_on_the_cpu(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(pipeline, "has_room", lambda device, nbytes: nbytes < 1000)
    with pytest.warns(UserWarning, match="does not fit.*enable_model_cpu_offload"):
        made = DeepGenPipeline.from_pretrained(tiny_checkpoint)
    assert made.transformer.device.type == "cpu"


def test_room_is_measured_with_some_to_spare(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 2000))
    assert offload.has_room(torch.device("cuda"), 900) and not offload.has_room(torch.device("cuda"), 950)
    assert offload.has_room(torch.device("cpu"), 10**15)


@pytest.mark.gpu
def test_offloading_draws_on_the_accelerator_what_is_drawn_there_without(tiny_checkpoint):
    made = DeepGenPipeline.from_pretrained(tiny_checkpoint, torch_dtype=torch.float32, device="cuda")
    made.set_progress_bar_config(disable=True)
    plain = made("a cat", seed=1, output_type="np").images
    edited = made("make it red", image=made("a cat", seed=1).images, seed=2, output_type="np").images
    made.enable_model_cpu_offload()
    for _ in range(2):
        assert np.abs(made("a cat", seed=1, output_type="np").images - plain).max() < 1 / 255
        assert made("a cat", seed=1, output_type="latent").images.device.type == "cpu"
    again = made("make it red", image=made("a cat", seed=1).images, seed=2, output_type="np").images
    assert np.abs(edited - again).max() < 1 / 255
    made.to("cuda")
    assert np.abs(made("a cat", seed=1, output_type="np").images - plain).max() < 1 / 255
