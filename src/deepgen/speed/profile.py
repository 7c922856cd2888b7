"""Where the time of one piece of work goes: kernels, launches and waits."""

import time
from collections.abc import Callable

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
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    wait()
    with record(activities=activities) as found:
        start = time.perf_counter()
        work()
        wait()
        seconds = time.perf_counter() - start
    rows = found.key_averages()

    def own(row: object) -> float:
        return getattr(row, "self_device_time_total" if cuda else "self_cpu_time_total")

    def count(names: tuple[str, ...]) -> int:
        return sum(row.count for row in rows if row.key in names)

    # Operators repeat the time of their kernels.
    timed = [row for row in rows if not cuda or row.device_type == torch.autograd.DeviceType.CUDA]
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
