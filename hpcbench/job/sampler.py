"""Memory, utilisation and power of a running job, seen from outside; never fails a job, and needs no torch."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from hpcbench.processes.process_tree import descendants
from hpcbench.schemas.metrics import GIB
from hpcbench.schemas.record import SampledMemory

INTERVAL_S = 1.0


class Sampler:
    """Samples once a second in a thread of its own until stopped."""

    def __init__(self, pid: int, *, interval_s: float = INTERVAL_S) -> None:
        self._pid = pid
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._rss_peak_bytes = 0
        self._gpus = _GpuReader()

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> SampledMemory:
        """End sampling and return what was seen."""
        self._stop.set()
        self._thread.join(timeout=5 * self._interval_s)
        summary = self._gpus.summary()
        peak = self._rss_peak_bytes / GIB if self._rss_peak_bytes else None
        return SampledMemory(host_rss_peak_gib=peak, **summary)

    def _run(self) -> None:
        while True:
            self._rss_peak_bytes = max(self._rss_peak_bytes, tree_rss_bytes(self._pid))
            self._gpus.sample()
            if self._stop.wait(self._interval_s):
                return


def tree_rss_bytes(root: int) -> int:
    """Return the sum of the resident sets of a process and its descendants, in bytes."""
    page = os.sysconf("SC_PAGE_SIZE")  # statm counts in pages; its second figure is the resident set (proc(5))
    total = 0
    for pid in descendants(root):
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * page
    return total


class _GpuReader:
    """Reads the job's GPUs through NVML, or nothing where there is none."""

    def __init__(self) -> None:
        self._nvml: ModuleType | None = None
        self._handles: list[Any] = []
        self._peaks: list[int] = []
        self._utilization: list[float] = []
        self._power_w: list[float] = []
        self._energy_j = 0.0
        self._last: float | None = None
        with contextlib.suppress(Exception):  # any NVML failure means: no GPU figures
            self._open()

    def _open(self) -> None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible == "":
            return
        import pynvml

        pynvml.nvmlInit()
        self._nvml = pynvml
        names = None if visible is None else visible.split(",")
        count = pynvml.nvmlDeviceGetCount()
        for name in names if names is not None else [str(i) for i in range(count)]:
            handle = (
                pynvml.nvmlDeviceGetHandleByIndex(int(name))
                if name.strip().isdigit()
                else pynvml.nvmlDeviceGetHandleByUUID(name.strip())  # CUDA_VISIBLE_DEVICES takes UUIDs too
            )
            self._handles.append(handle)
        self._peaks = [0] * len(self._handles)

    def sample(self) -> None:
        """Take one sample of all GPUs."""
        if self._nvml is None:
            return
        now = time.monotonic()
        with contextlib.suppress(Exception):
            power = 0.0
            for number, handle in enumerate(self._handles):
                used = int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used)
                self._peaks[number] = max(self._peaks[number], used)
                self._utilization.append(float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu))
                power += self._nvml.nvmlDeviceGetPowerUsage(handle) / 1000  # NVML counts in mW
            self._power_w.append(power)
            if self._last is not None:
                self._energy_j += power * (now - self._last)
        self._last = now

    def summary(self) -> dict[str, Any]:
        """Return the figures for a `SampledMemory`."""
        if not self._handles or not self._power_w:
            return {}
        return {
            "gpu_peak_gib": tuple(peak / GIB for peak in self._peaks),
            "gpu_utilization_mean_pct": sum(self._utilization) / len(self._utilization),
            "gpu_power_mean_w": sum(self._power_w) / len(self._power_w),
            "gpu_energy_wh": self._energy_j / 3600,
        }
