"""Optimizer state in fewer bits, as in Q-GaLore (arXiv:2407.08296): moments of 8 bits, projections of 4 or 8.

In: tensors. Out: dicts of tensors that stand for them, which an optimizer keeps and a checkpoint saves like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import torch
from torch.nn import functional

State = dict[str, torch.Tensor]

MIN_8BIT_SIZE: Final = 4096
"""Smaller moments stay as they are, as in bitsandbytes' optimizers: there is little to save."""
BLOCK: Final = 256


def pack_groups(values: torch.Tensor, *, bits: int, group_size: int) -> State:
    """Return `codes` (two per byte at 4 bits), `scales` and `lows`: evenly spaced values between a group's extremes.

    The error is at most half a step, a step being (largest - smallest) / (2^bits - 1) of `group_size` neighbours.
    """
    flat = values.float().flatten()
    groups = functional.pad(flat, (0, -flat.numel() % group_size)).reshape(-1, group_size)
    lows, highs = groups.amin(dim=1, keepdim=True), groups.amax(dim=1, keepdim=True)
    scales = ((highs - lows) / (2**bits - 1)).clamp(min=torch.finfo(torch.float32).tiny)
    codes = ((groups - lows) / scales).round().to(torch.uint8)
    if bits == 4:
        codes = codes[:, ::2] << 4 | codes[:, 1::2]
    return {"codes": codes, "scales": scales, "lows": lows}


def unpack_groups(packed: Mapping[str, torch.Tensor], *, bits: int, shape: tuple[int, int]) -> torch.Tensor:
    """Return the values of `pack_groups` in fp32."""
    codes = packed["codes"]
    if bits == 4:
        codes = torch.stack([codes >> 4, codes & 15], dim=-1).flatten(start_dim=1)
    flat = (codes * packed["scales"] + packed["lows"]).flatten()
    return flat[: shape[0] * shape[1]].reshape(shape)


def pack_moment(values: torch.Tensor, *, signed: bool) -> State:
    """Return a moment in 8 bits per value: bitsandbytes' dynamic values, scaled by the largest of 256 neighbours."""
    from bitsandbytes.functional import quantize_blockwise

    codes, state = quantize_blockwise(values.float(), code=_dynamic_values(signed, values.device), blocksize=BLOCK)
    return {"codes": codes, "scales": state.absmax}


def unpack_moment(packed: Mapping[str, torch.Tensor], *, signed: bool) -> torch.Tensor:
    """Return the values of `pack_moment` in fp32."""
    from bitsandbytes.functional import dequantize_blockwise

    codes = packed["codes"]
    values: torch.Tensor = dequantize_blockwise(
        codes, absmax=packed["scales"], code=_dynamic_values(signed, codes.device), blocksize=BLOCK
    )
    return values


@cache
def _dynamic_values(signed: bool, device: torch.device) -> Any:  # noqa: FBT001  # the cache's key
    from bitsandbytes.functional import create_dynamic_map

    return create_dynamic_map(signed=signed).to(device)


def stretch_gap(
    state: dict[str, Any], direction: torch.Tensor, *, gap: int, threshold: float, gamma: float, queue_size: int
) -> None:
    """Note how far the first singular vector turned since the last SVD; where it hardly does, make SVDs rarer.

    As in the authors' code the gap grows by `gamma` where the mean cosine of the last `queue_size` turns reaches
    `threshold`. The cosine's sign is dropped: that of a singular vector means nothing.

    Args:
        state: of one weight; `gap`, `cosines` and `direction` are kept in it.
        direction: the first singular vector of the SVD just made.
        gap: steps between SVDs at the start.
        threshold: mean cosine from which the gap grows.
        gamma: factor on the gap.
        queue_size: number of turns in the mean.
    """
    if "direction" not in state:
        state.update(gap=torch.tensor(gap), cosines=torch.zeros(0), direction=direction.clone())
        return
    cosine = functional.cosine_similarity(state["direction"].float(), direction.float(), dim=0).abs().cpu()
    state["cosines"] = torch.cat([state["cosines"], cosine.reshape(1)])[-queue_size:]
    if len(state["cosines"]) == queue_size and float(state["cosines"].mean()) >= threshold:
        state["gap"] = torch.tensor(int(int(state["gap"]) * gamma))
    state["direction"] = direction.clone()
