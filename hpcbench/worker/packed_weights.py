"""Weights that no parameter of a model holds: packed into integers, several in one, as GPTQ, AWQ, AQLM and HQQ do.

In: a model. Out: all its weights, each packed layer's as a stand-in with the shape and bits that it has. It unpacks
nothing and changes no weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

_PACKED: Final = ("qweight", "codes", "W_q")
"""Where layers of GPTQ and AWQ, of AQLM and of HQQ keep their weights, several in one integer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedWeight:
    """Stands for the weight of a layer that has none: its values are packed into buffers or codes."""

    name: str
    shape: tuple[int, int]
    dtype_name: str
    requires_grad: bool = False

    def numel(self) -> int:
        """Return how many weights the layer has."""
        return math.prod(self.shape)


Weight = torch.Tensor | PackedWeight


def named_weights(model: nn.Module) -> Iterator[tuple[str, Weight]]:
    """Yield all weights of a model with their names, packed ones too, in the order of their modules."""
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        packed = _find_packed(module)
        if packed is None:
            for name, parameter in module.named_parameters(recurse=False):
                yield f"{prefix}{name}", parameter
            continue
        yield f"{prefix}{packed.name}", packed
        # Scales and codes are how the others are written; the bias is a weight, and gptqmodel's no parameter.
        bias = getattr(module, "bias", None)
        if isinstance(bias, torch.Tensor):
            yield f"{prefix}bias", bias


def is_packed(module: nn.Module) -> bool:
    """Return whether a layer holds its weights packed."""
    return _find_packed(module) is not None


def _find_packed(module: nn.Module) -> PackedWeight | None:
    if isinstance(module, nn.Linear) or hasattr(module, "base_layer"):  # peft's layers have what their base has
        return None
    name = next((name for name in _PACKED if hasattr(module, name)), None)
    inputs, outputs = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if name is None or not isinstance(inputs, int) or not isinstance(outputs, int):
        return None
    # One stand-in for each layer: weights are told apart by identity, as parameters are.
    known: PackedWeight | None = module.__dict__.get("_hpcbench_packed")
    if known is None:
        bits = getattr(module, "bits", None)
        dtype = f"int{bits}" if isinstance(bits, int) else name
        known = PackedWeight(name=name, shape=(outputs, inputs), dtype_name=dtype)
        module.__dict__["_hpcbench_packed"] = known
    return known
