"""Packs: which samples share one sequence, and the proof that they do not attend to each other.

In: lengths, a model. Out: packs as lists of indices. No sample is cut, none is left out, and the packs depend on the
lengths alone, so they are the same for any number of ranks and after a resume.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any, Final

import torch

from hpcbench.errors import WorkerError

_EXACT_ATTENTION: Final = ("sdpa", "eager", "flash")
_PROBE_LENGTH: Final = 8


def pack_lengths(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return packs of indices whose lengths sum to at most `capacity`; longer samples are alone.

    Best-fit decreasing: each sample, longest first, goes where the least room is left. It needs at most 11/9 of the
    fewest packs possible, plus a constant (Johnson et al. 1974, https://doi.org/10.1137/0203025).
    """
    packs: list[list[int]] = []
    with_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the keys of with_room, sorted
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        at = bisect_left(rooms, lengths[index])
        if at == len(rooms):
            room, pack = capacity, len(packs)
            packs.append([])
        else:
            room = rooms[at]
            pack = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[at]
        packs[pack].append(index)
        left = room - lengths[index]
        if left > 0:
            if left not in with_room:
                with_room[left] = []
                insort(rooms, left)
            with_room[left].append(pack)
    return packs


def check_packing(model: Any, device: torch.device | str) -> None:
    """Raise if the samples of a pack attend to each other in this model.

    The second half of a pack must not change when the first does: a leak shows as a difference far above rounding.

    Raises:
        WorkerError: the attention is not one that keeps samples apart, or a sample attended to another.
    """
    attention = str(getattr(model.config, "_attn_implementation", None))
    if not attention.startswith(_EXACT_ATTENTION):
        raise WorkerError(
            f"packing: attention {attention!r} may mix samples; it works with sdpa, eager and flash attention"
        )
    size = int(model.get_input_embeddings().weight.shape[0])
    positions = torch.arange(_PROBE_LENGTH).repeat(2)[None].to(device)
    first = torch.arange(2 * _PROBE_LENGTH)[None] % size
    second = first.clone()
    second[:, :_PROBE_LENGTH] = (first[:, :_PROBE_LENGTH] + size // 2) % size
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            outputs = [
                model(input_ids=ids.to(device), position_ids=positions, use_cache=False)
                .logits[:, _PROBE_LENGTH:]
                .float()
                for ids in (first, second)
            ]
    finally:
        model.train(was_training)
    difference = float((outputs[0] - outputs[1]).abs().max())
    if not difference <= 1e-3 * float(outputs[0].abs().max()):
        raise WorkerError(
            f"packing: samples of a pack attend to each other in this model (logits differ by {difference:.3g})",
            hint="set packing: false",
        )
