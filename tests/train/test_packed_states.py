"""Q-GaLore's small optimizer state, against statements of it that share no code with ours."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from hpcbench.errors import WorkerError
from hpcbench.worker.tuners import load_tuner
from hpcbench.worker.tuners.galore import (
    GaLoreAdamW,
    pack_groups,
    pack_moment,
    stretch_gap,
    unpack_groups,
    unpack_moment,
)
from tests.support.tiny_models import make_model_folder, prepare

pytestmark = pytest.mark.train

SMALL = {"has_8bit_state": True, "proj_bits": 4, "stretch": {"threshold": 0.4, "gamma": 2.0, "queue_size": 2}}


def make_optimizer(weight: torch.Tensor, **options: Any) -> GaLoreAdamW:
    group = {"params": [torch.nn.Parameter(weight.clone())], "rank": 32, "update_proj_gap": 4, **options}
    return GaLoreAdamW([group], lr=0.01)


def weight_of(optimizer: GaLoreAdamW) -> torch.Tensor:
    weight: torch.Tensor = optimizer.param_groups[0]["params"][0]
    return weight


def state_of(optimizer: GaLoreAdamW) -> dict[str, Any]:
    state: dict[str, Any] = optimizer.state[weight_of(optimizer)]
    return state


def gradients(count: int, *, seed: int = 0, rank: int = 2, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Return noise around one matrix of low rank, as gradients of neighbouring steps are."""
    torch.manual_seed(seed)
    common = torch.randn(256, rank) @ torch.randn(rank, 192)
    return [(common + 0.1 * torch.randn(256, 192)).to(dtype) for _ in range(count)]


def run(optimizer: GaLoreAdamW, steps: list[torch.Tensor]) -> None:
    for gradient in steps:
        weight_of(optimizer).grad = gradient.clone()
        optimizer.step()


@pytest.mark.parametrize(("bits", "size"), [(4, 64), (8, 64), (4, 256)])
def test_a_packed_projection_is_off_by_half_a_step_at_most(bits: int, size: int) -> None:
    values = torch.randn(33, 37)
    packed = pack_groups(values, bits=bits, group_size=size)
    found = unpack_groups(packed, bits=bits, shape=(33, 37))
    flat = torch.cat([values.flatten(), torch.zeros(-values.numel() % size)])
    steps = [(part.max() - part.min()) / (2**bits - 1) for part in flat.split(size)]
    bound = torch.stack(steps).repeat_interleave(size)[: values.numel()].reshape(33, 37) / 2
    assert ((found - values).abs() <= bound * 1.001 + 1e-7).all()
    assert packed["codes"].untyped_storage().nbytes() == flat.numel() * bits // 8


def test_a_moment_of_8_bits_keeps_small_and_large_values_apart() -> None:
    values = torch.randn(64, 64) * torch.logspace(-3, 0, 64)
    signed = unpack_moment(pack_moment(values, signed=True), signed=True)
    assert ((signed - values).abs() <= 0.01 * values.abs().max()).all()
    large = values.abs() > 0.1
    assert ((signed - values)[large].abs() <= 0.1 * values.abs()[large]).all()
    squares = values.square()
    unsigned = unpack_moment(pack_moment(squares, signed=False), signed=False)
    assert (unsigned >= 0).all()
    assert ((unsigned - squares).abs() <= 0.01 * squares.max()).all()


def test_the_state_shrinks_as_stated() -> None:
    plain, small = make_optimizer(torch.zeros(256, 192)), make_optimizer(torch.zeros(256, 192), **SMALL)
    for optimizer in (plain, small):
        run(optimizer, gradients(1))

    def num_bytes(optimizer: GaLoreAdamW, *names: str) -> int:
        return sum(v.numel() * v.element_size() for k, v in state_of(optimizer).items() if k.startswith(names))

    # 256 x 32 moments; 32 x 192 projection. A scale of 4 bytes per 256 codes, a projection's group has a low too.
    assert num_bytes(plain, "exp_avg") == 2 * 256 * 32 * 4
    assert num_bytes(small, "exp_avg") == 2 * (256 * 32 + 256 * 32 // 256 * 4)
    assert num_bytes(plain, "right") == 32 * 192 * 4
    assert num_bytes(small, "right") == 32 * 192 // 2 + 32 * 192 // 256 * 8


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({"proj_bits": 8}, 0.06), ({"has_8bit_state": True}, 0.05), ({"proj_bits": 4}, 0.35), (SMALL, 0.35)],
)
def test_the_step_is_plain_galores_up_to_rounding(options: dict[str, Any], tolerance: float) -> None:
    steps = gradients(6, rank=32)
    plain, small = make_optimizer(torch.zeros(256, 192)), make_optimizer(torch.zeros(256, 192), **options)
    for optimizer in (plain, small):
        run(optimizer, steps)
    difference = (weight_of(small) - weight_of(plain)).norm() / weight_of(plain).norm()
    assert 0 < difference < tolerance


def test_svds_become_rarer_while_the_direction_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Tensor] = []
    svd = torch.linalg.svd

    def counted(matrix: torch.Tensor, **options: Any) -> Any:
        made.append(matrix)
        return svd(matrix, **options)

    monkeypatch.setattr(torch.linalg, "svd", counted)
    steady = make_optimizer(torch.zeros(256, 192), **SMALL)
    run(steady, gradients(40))
    # At steps 0, 4, 8: two cosines near 1, so that the gap is 8, then 16, then 32.
    assert int(state_of(steady)["gap"]) == 32
    assert len(made) == len({0, 4, 8, 16, 32})
    made.clear()
    fixed = make_optimizer(torch.zeros(256, 192), **(SMALL | {"stretch": None}))
    run(fixed, gradients(40))
    assert len(made) == 10
    made.clear()
    turning = make_optimizer(torch.zeros(256, 192), **SMALL)
    run(turning, [gradients(1, seed=seed)[0] for seed in range(40)])
    assert int(state_of(turning)["gap"]) == 4
    assert len(made) == 10


def test_the_gap_grows_by_the_mean_of_the_queue_whatever_the_signs() -> None:
    state: dict[str, Any] = {}
    options: dict[str, Any] = {"gap": 10, "threshold": 0.5, "gamma": 3.0, "queue_size": 2}
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    gaps = []
    for direction in (east, -east, north, north, -north):
        stretch_gap(state, direction, **options)
        gaps.append(int(state["gap"]))
    # cosines 1, 0, 1, 1: their means of two are 0.5, 0.5, 1
    assert gaps == [10, 10, 30, 90, 270]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_goes_on_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    steps = gradients(12, dtype=dtype)
    whole = make_optimizer(torch.zeros(256, 192, dtype=dtype), **SMALL)
    run(whole, steps)
    first = make_optimizer(torch.zeros(256, 192, dtype=dtype), **SMALL)
    run(first, steps[:7])
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    second = make_optimizer(weight_of(first).detach(), **SMALL)
    second.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    kept = copy.deepcopy({key: value.dtype for key, value in state_of(first).items()})
    assert {key: value.dtype for key, value in state_of(second).items()} == kept
    assert kept["exp_avg_codes"] is torch.uint8
    run(second, steps[7:])
    assert (weight_of(second) == weight_of(whole)).all()


def test_the_arguments_reach_the_optimizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_model_folder(tmp_path / "base")
    values = {"galore_quantization": "true", "galore_proj_quant": "true", "galore_proj_bits": "8", "galore_rank": 4}
    prepared, args = prepare(base, sft_type="galore", **values, galore_cos_threshold=0.7, galore_queue_size=3)
    training_args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    optimizer = load_tuner("galore").create_optimizer(prepared, args, training_args)
    assert optimizer is not None
    (group,) = [group for group in optimizer.param_groups if group["rank"] is not None]
    assert (group["has_8bit_state"], group["proj_bits"], group["proj_group_size"]) == (True, 8, 256)
    assert group["stretch"] == {"threshold": 0.7, "gamma": 2.0, "queue_size": 3}
    prepared(input_ids=torch.arange(20)[None], labels=torch.arange(20)[None]).loss.backward()
    optimizer.step()
    assert any("left_codes" in state or "right_codes" in state for state in optimizer.state.values())
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(WorkerError, match="galore_quantization: true needs bitsandbytes"):
        load_tuner("galore").create_optimizer(prepared, args, training_args)
