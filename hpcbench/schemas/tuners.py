"""The names of the fine-tuning methods: the files of `worker/tuners`, and words that stand for one with its switch on.

In: the package's folder. Out: names, for the arguments and the worker alike. No method is imported: their libraries
are behind the wall.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TUNERS_FOLDER: Final = Path(__file__).parents[1] / "worker" / "tuners"

SHORTHANDS: Final[Mapping[str, Mapping[str, str | float | bool]]] = {
    "dora": {"sft_type": "lora", "use_dora": True},
    "rslora": {"sft_type": "lora", "use_rslora": True},
    # 2^4, the ratio of the paper's experiments on language models (arXiv:2402.12354).
    "lora+": {"sft_type": "lora", "lora_lr_ratio": 16.0},
    # As in SWIFT 2.x's scripts: `qlora` is lora with quantization_bit 4.
    "qlora": {"sft_type": "lora", "quantization_bit": 4},
    "galore": {"sft_type": "full", "use_galore": True},
    # Two layers at a time, as in the paper (arXiv:2403.17919) and ms-swift's benchmark.
    "lisa": {"sft_type": "full", "lisa_activated_layers": 2},
}
"""Values of `sft_type` that mean another one with a switch on, as ms-swift's benchmark tables write these methods."""


def list_tuners() -> tuple[str, ...]:
    """Return the names of all methods, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(TUNERS_FOLDER)])))


def list_sft_types() -> tuple[str, ...]:
    """Return what `sft_type` may be, sorted."""
    return tuple(sorted({*list_tuners(), *SHORTHANDS}))
