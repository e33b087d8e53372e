"""What ranks of an eval gather in the order of documents, and the batch size that fits all of them."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="the eval worker needs the `eval` extra")

import torch

from hpcbench.worker.evaluate.batch_size import find_batch_size
from hpcbench.worker.evaluate.model import CutPrompts
from hpcbench.worker.evaluate.shared_run import in_order
from hpcbench.worker.measure.meter import GenerationMeter


def sample(doc_id: int, name: str = "none") -> dict[str, Any]:
    return {"doc_id": doc_id, "filter": name}


def test_values_of_all_ranks_are_in_the_order_of_documents() -> None:
    gathered = [{"t": {("acc", "none"): [0, 3, 6]}}, {"t": {("acc", "none"): [1, 4]}}, {"t": {("acc", "none"): [2, 5]}}]
    assert in_order(gathered) == {"t": {("acc", "none"): [0, 1, 2, 3, 4, 5, 6]}}


def test_samples_of_all_ranks_are_by_filter_and_document() -> None:
    first = [sample(0, "strict"), sample(2, "strict"), sample(0, "flexible"), sample(2, "flexible")]
    second = [sample(1, "strict"), sample(1, "flexible")]
    merged = in_order([{"t": first}, {"t": second}])["t"]
    assert [(each["filter"], each["doc_id"]) for each in merged] == [
        ("strict", 0),
        ("strict", 1),
        ("strict", 2),
        ("flexible", 0),
        ("flexible", 1),
        ("flexible", 2),
    ]


def test_ranks_that_generate_at_once_add_up_their_tokens_and_take_the_slowest_time() -> None:
    meters = [
        GenerationMeter(num_tokens=100, num_first_tokens=4, num_prompt_tokens=40, time_s=10, prefill_time_s=1),
        GenerationMeter(num_tokens=60, num_first_tokens=3, num_prompt_tokens=30, time_s=4, prefill_time_s=2),
    ]
    speed = GenerationMeter.over(meters).speed(batch_size=8)
    assert speed is not None
    assert (speed.num_tokens, speed.num_prompt_tokens, speed.tokens_per_second) == (160, 70, 16)


def test_prompts_that_ranks_cut_add_up() -> None:
    parts = [CutPrompts(), CutPrompts(), CutPrompts()]
    parts[0].documents["t"] |= {0, 2}
    parts[1].documents["t"] |= {1}
    parts[0].limits["t"], parts[1].limits["t"] = 90, 80
    merged = CutPrompts.over(parts)
    assert (merged.count("t"), merged.limit_tokens("t"), merged.count("u")) == (3, 80, 0)


@pytest.mark.parametrize(
    ("fits", "found", "tried"), [(64, 64, [64]), (20, 16, [64, 32, 16]), (0, 1, [64, 32, 16, 8, 4, 2])]
)
def test_auto_halves_until_a_batch_fits(fits: int, found: int, tried: list[int]) -> None:
    sizes: list[int] = []

    def trial(size: int) -> None:
        sizes.append(size)
        if size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    assert find_batch_size(trial) == found
    assert sizes == tried


def test_auto_does_not_take_another_failure_for_a_full_memory() -> None:
    def trial(size: int) -> None:
        raise RuntimeError("device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        find_batch_size(trial)
