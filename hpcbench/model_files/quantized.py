"""Models whose folder holds quantised weights: in which form, what loads it, and what can be trained on it.

In: the `quantization_config` of a config.json. Out: a `QuantizedForm`, or why this version cannot use it (pure). What
quantises weights while they are loaded (`quantization_bit`) is `worker/models/quantization.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

BITSANDBYTES: Final = "bitsandbytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedForm:
    """One way to hold weights in few bits."""

    modules: tuple[str, ...]
    """What the job's Python must have to load it."""
    tuners: tuple[str, ...] = ("lora",)
    """Values of `sft_type` that peft has layers for."""
    takes_dora: bool = False
    merges: bool = False
    """Whether an adapter can be merged into such weights."""
    on_cpu: bool = True
    """Whether it runs without a GPU."""
    bits: int | None = None
    """Bits per weight of every model in this form; None where a model's config says how many."""


FORMS: Final[Mapping[str, QuantizedForm]] = {
    "gptq": QuantizedForm(modules=("gptqmodel", "optimum"), tuners=("lora", "adalora")),
    "awq": QuantizedForm(modules=("gptqmodel", "optimum"), bits=4),
    "aqlm": QuantizedForm(modules=("aqlm",)),
    "compressed-tensors": QuantizedForm(modules=("compressed_tensors",)),
    "hqq": QuantizedForm(modules=("hqq",), tuners=("lora",), on_cpu=False),
    BITSANDBYTES: QuantizedForm(
        modules=("bitsandbytes",), tuners=("lora", "adalora", "ia3"), takes_dora=True, merges=True
    ),
}
"""By `quant_method` of a config.json. peft 0.21 refuses gptqmodel without optimum, for awq too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """How the weights of one folder are quantised."""

    method: str
    """`quant_method` of the config.json, or what other keys mean."""
    bits: int | None
    group_size: int | None
    config: Mapping[str, Any]

    @property
    def form(self) -> QuantizedForm | None:
        """What is known of the method; None where nothing is."""
        return FORMS.get(self.method)

    @property
    def name(self) -> str:
        """`gptq, 4 bits` for messages."""
        return self.method if self.bits is None else f"{self.method}, {self.bits} bits"


def find_quantized(config: Mapping[str, Any]) -> Quantized | None:
    """Return how the weights of a model are quantised by its config.json, or None where they are not."""
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        return None
    method = str(quantization.get("quant_method") or "")
    bits = bitsandbytes_bits(quantization)
    if not method and bits:
        method = BITSANDBYTES  # files of before 2024 name no method
    form = FORMS.get(method)
    named = next((quantization[key] for key in ("bits", "w_bit", "nbits") if _is_count(quantization.get(key))), None)
    if method != BITSANDBYTES:
        bits = named or (form.bits if form is not None else None) or 0
    groups = (quantization.get(key) for key in ("group_size", "q_group_size", "in_group_size"))
    group_size = next((value for value in groups if _is_count(value)), None)
    return Quantized(method=method, bits=bits or None, group_size=group_size, config=quantization)


def bitsandbytes_bits(quantization: Mapping[str, Any]) -> int:
    """Return the bits of bitsandbytes' weights by their configuration, 0 where it names none."""
    return 4 if quantization.get("load_in_4bit") else 8 if quantization.get("load_in_8bit") else 0


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
