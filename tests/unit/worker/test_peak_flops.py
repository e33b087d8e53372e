"""Peak FLOP/s by the names that drivers report."""

from __future__ import annotations

import pytest

from hpcbench.schemas.arguments import Dtype
from hpcbench.worker.measure.peak_flops import PEAKS, find_peak, peak_flops


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("NVIDIA H200", "bf16", 989.4e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4e12),
        ("NVIDIA H100 PCIe", "bf16", 756.4e12),
        ("NVIDIA H100 NVL", "fp16", 835.5e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA A100-PCIE-40GB", "fp32", 19.5e12),
        ("NVIDIA A10G", "bf16", 70e12),
        ("NVIDIA A10", "bf16", 125e12),
        ("NVIDIA L40S", "bf16", 362.05e12),
        ("Tesla V100-SXM2-32GB", "fp16", 125e12),
        ("Tesla V100-PCIE-16GB", "fp16", 112e12),
        ("Tesla T4", "fp16", 65e12),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2e12),
    ],
)
def test_known_gpus_have_their_dense_peak(name: str, dtype: Dtype, expected: float) -> None:
    assert peak_flops(name, dtype) == expected


@pytest.mark.parametrize("name", ["Tesla V100-SXM2-32GB", "Tesla T4"])
def test_gpus_without_bf16_have_no_bf16_peak(name: str) -> None:
    assert peak_flops(name, "bf16") is None


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 D",
        "Some CPU",
        "",
    ],
)
def test_other_silicon_behind_a_similar_name_is_unknown(name: str) -> None:
    assert find_peak(name) is None


def test_every_figure_has_a_source() -> None:
    assert all(peak.source.startswith("https://") for peak in PEAKS)
