"""Where the time of one piece of work goes: kernels, launches and waits."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as record

ROWS = 25
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
WAITS = (
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "aten::_local_scalar_dense",
)


COLLECTIVES = ("nccl", "gloo:")
"""How the names of kernels, or of gloo's operators, begin."""


def _recorded(work: Callable[[], None], wait: Callable[[], None]) -> tuple[list[Any], float]:
    """Rows of one more run of some work, by name, and its seconds."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    wait()
    with record(activities=activities) as found:
        start = time.perf_counter()
        work()
        wait()
        seconds = time.perf_counter() - start
    return list(found.key_averages()), seconds


def _on_device(row: Any) -> bool:
    # Operators repeat the time of their kernels.
    return row.device_type == torch.autograd.DeviceType.CUDA


def collective_seconds(work: Callable[[], object], wait: Callable[[], None]) -> float:
    """Seconds that collectives take in one more run of some work, beside other kernels or not; on a GPU with the wait
    for slower processes. Every process calls."""
    cuda = torch.cuda.is_available()
    wait()
    # Of kernels alone where there are any: a rollout has too many operators to record.
    with record(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as found:
        work()
        wait()
    assert found.profiler is not None and found.profiler.kineto_results is not None
    kind = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
    chosen = [e for e in found.profiler.kineto_results.events() if e.name().startswith(COLLECTIVES)]
    return sum(e.duration_ns() for e in chosen if e.device_type() == kind) / 1e9


def profile(work: Callable[[], None], wait: Callable[[], None]) -> str:
    """Run some work once more and tell what it did.

    Args:
        work: has been run before, so that nothing is made for the first time.
        wait: until the device has done all.

    Returns:
        Lines of text: wall time and the device's busy time, counts of kernel launches and of waits for the device,
        copies from the host, and the operators or kernels with the most time of their own.
    """
    cuda = torch.cuda.is_available()
    rows, seconds = _recorded(work, wait)

    def own(row: Any) -> float:
        return row.self_device_time_total if cuda else row.self_cpu_time_total

    def count(names: tuple[str, ...]) -> int:
        return sum(row.count for row in rows if row.key in names)

    timed = [row for row in rows if not cuda or _on_device(row)]
    busy = sum(own(row) for row in timed) / 1e6
    lines = [
        f"wall {seconds:.3f} s, {'device' if cuda else 'operators'} busy {busy:.3f} s, "
        f"{count(LAUNCHES)} launches, {count(WAITS)} waits, {count(('cudaMemcpyAsync',))} copies, "
        f"{sum(row.count for row in rows if row.key.startswith('aten::'))} operators"
    ]
    for row in sorted(timed, key=own, reverse=True)[:ROWS]:
        lines.append(
            f"{own(row) / 1e3:10.2f} ms {own(row) / 1e6 / busy:6.1%} {row.count:6}x  {row.key[:110]}"
        )
    return "\n".join(lines)
