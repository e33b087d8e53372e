"""Peak dense FLOP/s of accelerators by the name that the driver reports, for MFU.

In: a device name and a dtype. Out: FLOP/s, or None for a device, a partition of one, or a dtype that is not listed.
Figures are the vendors' dense ones (a datasheet's "with sparsity" halved), half precision with fp32 accumulation.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpcbench.schemas.arguments import Dtype

TERA = 1e12


@dataclass(frozen=True, slots=True)
class Peak:
    """One device's dense peaks in TFLOP/s; fp32 is without TF32, as torch multiplies by default."""

    words: tuple[str, ...]
    """All must stand in the device's name, which is split at spaces and hyphens."""
    bf16: float | None
    fp16: float
    fp32: float
    source: str


_NVIDIA = "https://www.nvidia.com/en-us/data-center"
_VOLTA = "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf"
_ADA = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
_AMPERE = "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.1.pdf"
_BLACKWELL = "https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf"
_AMD = "https://www.amd.com/en/products/accelerators/instinct"

# The first entry whose words all match wins, so the narrower names stand first.
PEAKS: tuple[Peak, ...] = (
    Peak(("B200",), 2250.0, 2250.0, 75.0, f"{_NVIDIA}/dgx-b200/ (8 GPUs, with sparsity)"),
    Peak(("GH200",), 989.4, 989.4, 67.0, f"{_NVIDIA}/grace-hopper-superchip/"),
    Peak(("H200", "NVL"), 835.5, 835.5, 60.0, f"{_NVIDIA}/h200/"),
    Peak(("H200",), 989.4, 989.4, 67.0, f"{_NVIDIA}/h200/"),
    Peak(("H100", "PCIe"), 756.4, 756.4, 51.2, f"{_NVIDIA}/h100/"),
    Peak(("H100", "NVL"), 835.5, 835.5, 60.0, f"{_NVIDIA}/h100/"),
    Peak(("H100",), 989.4, 989.4, 66.9, f"{_NVIDIA}/h100/"),
    Peak(("A100",), 312.0, 312.0, 19.5, f"{_NVIDIA}/a100/"),
    Peak(("A800",), 312.0, 312.0, 19.5, f"{_NVIDIA}/a100/"),
    Peak(("A40",), 149.7, 149.7, 37.4, f"{_NVIDIA}/a40/"),
    Peak(("A30",), 165.0, 165.0, 10.3, f"{_NVIDIA}/products/a30-gpu/"),
    Peak(("A10",), 125.0, 125.0, 31.2, f"{_NVIDIA}/products/a10-gpu/"),
    Peak(("A10G",), 70.0, 70.0, 31.5, "https://d1.awsstatic.com/product-marketing/ec2/NVIDIA_AWS_A10G_DataSheet.pdf"),
    Peak(("L40S",), 362.05, 362.05, 91.6, f"{_NVIDIA}/l40s/"),
    Peak(("L40",), 181.05, 181.05, 90.5, f"{_NVIDIA}/l40/"),
    Peak(("L4",), 121.0, 121.0, 30.3, f"{_NVIDIA}/l4/"),
    Peak(("RTX", "A6000"), 154.8, 154.8, 38.7, _AMPERE),
    Peak(("V100", "PCIE"), None, 112.0, 14.0, _VOLTA),
    Peak(("V100",), None, 125.0, 15.7, _VOLTA),
    Peak(("T4",), None, 65.0, 8.1, f"{_NVIDIA}/tesla-t4/"),
    Peak(("3090",), 71.0, 71.0, 35.6, _AMPERE),
    Peak(("4090",), 165.2, 165.2, 82.6, _ADA),
    Peak(("5090",), 209.5, 209.5, 104.8, _BLACKWELL),
    Peak(("MI300X",), 1307.4, 1307.4, 163.4, f"{_AMD}/mi300/mi300x.html"),
    Peak(("MI250X",), 191.5, 191.5, 23.9, f"{_AMD}/mi200/mi250x.html (one of its two dies, which is what torch sees)"),
)

# Different silicon behind the same word (laptop parts, other memory buses, MIG slices, Ti models): no figure is better
# than a wrong one.
_UNLISTED = frozenset({"MIG", "LAPTOP", "MOBILE", "TI", "D", "SUPER", "MAX"})


def find_peak(device_name: str) -> Peak | None:
    """Return the listed device that the driver's name means, or None."""
    words = set(device_name.upper().replace("-", " ").split())
    if words & _UNLISTED:
        return None
    return next((peak for peak in PEAKS if {word.upper() for word in peak.words} <= words), None)


def peak_flops(device_name: str, dtype: Dtype) -> float | None:
    """Return the device's dense peak in FLOP/s for matrix products of `dtype`, or None when it is not known."""
    peak = find_peak(device_name)
    if peak is None:
        return None
    tera = {"bf16": peak.bf16, "fp16": peak.fp16, "fp32": peak.fp32}[dtype]
    return None if tera is None else tera * TERA
