"""One network at a time on the accelerator, the others in host memory: for cards smaller than the model.

diffusers' own offloading hooks `forward` alone; here the VLM and the VAE are entered by other methods too.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deepgen.errors import InputError

ENTRY_POINTS = {
    "vlm": ("image_embeds", "hidden", "pad_row"),
    "connector": ("forward",),
    "transformer": ("forward",),
    "vae": ("encode", "decode"),
}
"""The methods of each network that compute; what they are given is moved to the accelerator."""

HOST = torch.device("cpu")
HEADROOM = 1.1
"""Memory that drawing needs beside the weights, as a factor of them."""


def check_devices(values: Iterable[Any]) -> None:
    """Raise InputError for a device among the values that this machine does not have."""
    there = torch.accelerator.current_accelerator(check_available=True)
    for value in values:
        if not isinstance(value, str | torch.device):
            continue
        try:
            device = torch.device(value)
        except RuntimeError:
            raise InputError(f"{value!r} is no device; give cpu, cuda or cuda:1, for example") from None
        if device.type in ("cpu", "meta"):
            continue
        count = 0 if there is None else torch.accelerator.device_count()
        if there is None or there.type != device.type or (device.index or 0) >= count:
            found = "none" if there is None else f"{count} x {there.type}"
            raise InputError(f"there is no device {str(value)!r} here (accelerators: {found})")


def has_room(device: torch.device, nbytes: int) -> bool:
    """Whether weights of so many bytes fit; taken for granted where a device does not tell its free memory."""
    return device.type != "cuda" or torch.cuda.mem_get_info(device)[0] > HEADROOM * nbytes


class Offload:
    """Wraps the networks' entry points until `remove`.

    Tensors that an entry point returns go back to the CPU, so that everything between the networks is there.

    Args:
        networks: under the names in ENTRY_POINTS, on the CPU.
        device: the accelerator.
    """

    def __init__(self, networks: Mapping[str, nn.Module], device: torch.device) -> None:
        self.networks, self.device = networks, device
        self.resident: str | None = None
        self._home: list[tuple[Tensor, Tensor]] = []
        for name, network in networks.items():
            for method in ENTRY_POINTS[name]:
                setattr(network, method, self._wrapped(name, getattr(network, method)))

    def _wrapped(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            self._bring(name)
            result = method(*_moved(arguments, self.device), **_moved(named, self.device))
            return _moved(result, HOST)

        return call

    def _bring(self, name: str) -> None:
        if self.resident == name:
            return
        self.release()
        network = self.networks[name]
        # Ordinary tensors, also inside a call's inference mode: they outlive it.
        with torch.inference_mode(False):
            for tensor in (*network.parameters(), *network.buffers()):
                self._home.append((tensor, tensor.data))
                tensor.data = tensor.data.to(self.device)
        self.resident = name

    def release(self) -> None:
        """Free the accelerator; the weights in host memory were there all the time."""
        for tensor, home in self._home:
            tensor.data = home
        self._home.clear()
        self.resident = None

    def remove(self) -> None:
        """Give the networks their own methods back."""
        self.release()
        for name, network in self.networks.items():
            for method in ENTRY_POINTS[name]:
                delattr(network, method)


def _moved(value: Any, device: torch.device) -> Any:
    """Tensors in plain containers on another device; lengths, which the networks want on the CPU, stay there."""
    if isinstance(value, Tensor):
        return value.to(device if value.is_floating_point() else HOST)
    if type(value) in (list, tuple):
        return type(value)(_moved(x, device) for x in value)
    if type(value) is dict:
        return {key: _moved(x, device) for key, x in value.items()}
    return value
