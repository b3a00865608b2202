"""What the benchmarks share: turns of several contenders, allocated peaks, the name of the machine."""

import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Step = Callable[[], object]


def take_turns(
    steps: Mapping[str, Step], turns: int, clock: Callable[[], float] = time.perf_counter, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of every contender in every turn; one after the other, so that what else the machine does hits all."""
    for _ in range(warm_up):
        for step in steps.values():
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, step in steps.items():
            _wait()
            start = clock()
            step()
            _wait()
            times[name].append(clock() - start)
    return times


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """Median over the turns of one contender's time as a multiple of another's."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def allocated_peak(step: Step) -> tuple[int, object]:
    """Most bytes that a step holds at once of what it allocates itself (weights were there before); and its answer."""
    if _on_cuda():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        answer = step()
        return torch.cuda.max_memory_allocated() - before, answer
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        answer = step()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak, answer


def peak_rss() -> int:
    """Most bytes of memory that the process ever held; on Linux without what its parent held before it started."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    if found:
        return found[0]
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def machine() -> str:
    """Processor or accelerator, threads, version of torch."""
    name = torch.cuda.get_device_name() if _on_cuda() else _processor()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _on_cuda() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def _wait() -> None:
    if _on_cuda():
        torch.cuda.synchronize()
