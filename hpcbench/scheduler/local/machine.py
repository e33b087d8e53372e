"""What this machine offers to local jobs: its GPUs and cores, found without torch; a silent driver means no GPU."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping

from hpcbench.scheduler.local.choose_starts import Machine, parse_gpu_list, parse_visible_devices

logger = logging.getLogger(__name__)

DRIVER_TIMEOUT_S = 30


def read_machine(environ: Mapping[str, str] = os.environ) -> Machine:
    """Return the slots that this process may hand out; CUDA_VISIBLE_DEVICES in `environ` limits its GPUs."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    gpus = list_gpus() if visible is None else parse_visible_devices(visible)
    return Machine(gpus=gpus, cpus=len(os.sched_getaffinity(0)))


def list_gpus() -> tuple[str, ...]:
    """Return the machine's GPUs as CUDA_VISIBLE_DEVICES takes them, in PCI order."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],
            capture_output=True,
            text=True,
            timeout=DRIVER_TIMEOUT_S,
            check=False,
            errors="replace",
        )
    except FileNotFoundError:
        return _list_with_nvml()
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("nvidia-smi: %s; no GPU is used", error)
        return ()
    if done.returncode != 0:
        logger.warning(
            "nvidia-smi: exit code %s: %s; no GPU is used", done.returncode, done.stdout.strip() or done.stderr.strip()
        )
        return ()
    return parse_gpu_list(done.stdout)


def _list_with_nvml() -> tuple[str, ...]:
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(str(index) for index in range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()
