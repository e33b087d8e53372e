"""GaLore (arXiv:2403.03507): full fine-tuning whose optimizer sees each gradient in a low-rank subspace.

In: the base model and the galore_* arguments. Out: the same, all weights trainable, and an AdamW whose moments of the
targets are as small as the subspace; with Q-GaLore (arXiv:2407.08296) moments in 8 bits, projections in 4 or 8. Its
state is tensors only, so that it is saved and resumed as any other.

Shapes: m, n of a weight; r the rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from hpcbench.errors import WorkerError, name_first
from hpcbench.model_files.modules import find_unmatched
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.requirements import require
from hpcbench.worker.tuners import Tuner, full

State = dict[str, torch.Tensor]

MIN_8BIT_SIZE: Final = 4096
"""Smaller moments stay as they are, as in bitsandbytes' optimizers: there is little to save."""

BLOCK: Final = 256


class GaLoreAdamW(torch.optim.Optimizer):
    """AdamW in the subspace of each gradient's largest singular vectors, found anew every `update_proj_gap` steps.

    A group without `rank` is trained by AdamW as it is. As in the authors' code eps is added to the uncorrected root
    of the second moment, the moments stay as they are when the subspace changes, and weights decay after the update.

    Args:
        groups: parameter groups; `rank`, `update_proj_gap`, `scale`, `proj_type`, `frees_gradients`, `has_8bit_state`,
            `proj_bits`, `proj_group_size` and `stretch` (the options of `stretch_gap`, None for a fixed gap) are read.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": 0.0,
            "rank": None,
            "update_proj_gap": 50,
            "scale": 1.0,
            "proj_type": "std",
            "frees_gradients": False,
            "has_8bit_state": False,
            "proj_bits": None,
            "proj_group_size": 256,
            "stretch": None,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # takes no closure
        """Update every weight that has a gradient."""
        if closure is not None:
            raise ValueError("GaLoreAdamW.step: closures are not supported")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
                    if group["frees_gradients"]:
                        parameter.grad = None

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None  # noqa: S101  # narrows the type
        if "step" not in state:
            state["step"] = torch.zeros(())
        left_mr, right_rn = self._subspace(state, gradient, group)
        if left_mr is not None:
            gradient = left_mr.T @ gradient
        if right_rn is not None:
            gradient = gradient @ right_rn.T
        state["step"] += 1
        beta1, beta2 = group["betas"]
        first, second = self._moment(state, "exp_avg", gradient), self._moment(state, "exp_avg_sq", gradient)
        # Moments out of 8 bits are fp32, whatever the gradient is.
        wide = gradient.to(first.dtype)
        first.mul_(beta1).add_(wide, alpha=1 - beta1)
        second.mul_(beta2).addcmul_(wide, wide, value=1 - beta2)
        update = (first / second.sqrt().add_(group["eps"])).to(gradient.dtype)
        if group["has_8bit_state"] and gradient.numel() >= MIN_8BIT_SIZE:
            _put(state, "exp_avg", pack_moment(first, signed=True))
            _put(state, "exp_avg_sq", pack_moment(second, signed=False))
        if left_mr is not None:
            update = left_mr @ update
        if right_rn is not None:
            update = update @ right_rn
        count = int(state["step"])
        rate = group["lr"] * math.sqrt(1 - beta2**count) / (1 - beta1**count)
        parameter.add_(update, alpha=-rate * (group["scale"] if group["rank"] is not None else 1.0))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a saved state with every tensor's own dtype."""
        # torch casts the state of floating-point weights to the weights' dtype, so it is put in once more.
        super().load_state_dict(state_dict)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                # Counters and cosines are read by the host alone.
                on_host = key in {"step", "gap", "cosines"}
                place = "cpu" if on_host else parameter.device
                self.state[parameter][key] = value.to(place, copy=True)

    def _subspace(
        self, state: dict[str, Any], gradient: torch.Tensor, group: dict[str, Any]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return `left` [m, r] and `right` [r, n] as far as the gradient is projected, found anew where that is due."""
        if group["rank"] is None:
            return None, None
        bits, shape = group["proj_bits"], gradient.shape
        if int(state["step"]) % int(state.get("gap", group["update_proj_gap"])) == 0:
            found = find_subspace(gradient, rank=group["rank"], proj_type=group["proj_type"])
            if group["stretch"] is not None:
                direction = found["left"][:, 0] if "left" in found else found["right"][0]
                stretch_gap(state, direction, gap=group["update_proj_gap"], **group["stretch"])
            for side, matrix in found.items():
                if bits is None:
                    state[side] = matrix
                else:
                    _put(state, side, pack_groups(matrix, bits=bits, group_size=group["proj_group_size"]))
        rank = min(group["rank"], *shape)
        sides: list[torch.Tensor | None] = []
        for side, size in (("left", (shape[0], rank)), ("right", (rank, shape[1]))):
            if f"{side}_codes" in state:
                sides.append(unpack_groups(_get(state, side), bits=bits, shape=size).to(gradient.dtype))
            else:
                sides.append(state.get(side))
        return sides[0], sides[1]

    @staticmethod
    def _moment(state: dict[str, Any], name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Return a moment as it is computed with: kept in 8 bits unpacked, else the state's own."""
        if f"{name}_codes" in state:
            return unpack_moment(_get(state, name), signed=name == "exp_avg")
        if name not in state:
            state[name] = torch.zeros_like(gradient)
        found: torch.Tensor = state[name]
        return found


def _put(state: dict[str, Any], name: str, packed: State) -> None:
    state.pop(name, None)
    state.update({f"{name}_{part}": tensor for part, tensor in packed.items()})


def _get(state: dict[str, Any], name: str) -> State:
    return {key.removeprefix(f"{name}_"): value for key, value in state.items() if key.startswith(f"{name}_")}


def find_subspace(gradient: torch.Tensor, *, rank: int, proj_type: str) -> dict[str, torch.Tensor]:
    """Return the largest singular vectors: `left` [m, r], `right` [r, n], or both.

    `std` projects the longer side away (right where m >= n), `reverse_std` the shorter one.
    """
    # torch has no SVD in bf16 or fp16.
    left_mk, _, right_kn = torch.linalg.svd(gradient.float(), full_matrices=False)
    is_tall = gradient.shape[0] >= gradient.shape[1]
    sides = {
        "std": ("right",) if is_tall else ("left",),
        "reverse_std": ("left",) if is_tall else ("right",),
        "right": ("right",),
        "left": ("left",),
        "full": ("left", "right"),
    }[proj_type]
    found = {"left": left_mk[:, :rank], "right": right_kn[:rank]}
    return {side: found[side].to(gradient.dtype).contiguous() for side in sides}


def create_optimizer(model: Any, args: SftArgs, training_args: Any) -> Any:
    """Return GaLore's optimizer; weights with a projection, other matrices and the rest differ in their options.

    Raises:
        WorkerError: no module has a name asked for.
    """
    matrices = [name for name, module in model.named_modules() if getattr(_weight_of(module), "ndim", 0) > 1]
    if unmatched := find_unmatched(args.galore_target_modules, matrices):
        raise WorkerError(
            f"galore_target_modules: no module with a matrix is named {name_first(unmatched)}",
            hint="leave galore_target_modules out for every linear layer",
        )
    targets = {id(parameter) for parameter in _find_targets(model, args)}
    projected = {
        "rank": args.galore_rank,
        "update_proj_gap": args.galore_update_proj_gap,
        "scale": args.galore_scale,
        "proj_type": args.galore_proj_type,
        "proj_bits": args.galore_proj_bits if args.galore_proj_quant else None,
        "proj_group_size": args.galore_proj_group_size,
        # Q-GaLore makes SVDs rarer; plain GaLore's gap is fixed.
        "stretch": {
            "threshold": args.galore_cos_threshold,
            "gamma": args.galore_gamma_proj,
            "queue_size": args.galore_queue_size,
        }
        if args.galore_quantization or args.galore_proj_quant
        else None,
    }
    if args.galore_quantization:
        require("bitsandbytes", for_what="galore_quantization: true")
    groups: dict[Any, dict[str, Any]] = {}
    for index, parameter in enumerate(model.parameters()):
        is_target, is_matrix = id(parameter) in targets, parameter.ndim >= 2
        key = index if args.galore_per_parameter else (is_target, is_matrix)
        # Norms and biases do not decay, as with the Trainer's own optimizer.
        options = {
            "params": [],
            "weight_decay": args.weight_decay if is_matrix else 0.0,
            "frees_gradients": args.galore_per_parameter,
            "has_8bit_state": args.galore_quantization,
        }
        group = groups.setdefault(key, options | (projected if is_target else {}))
        group["params"].append(parameter)
    return GaLoreAdamW(
        list(groups.values()),
        lr=training_args.learning_rate,
        betas=(training_args.adam_beta1, training_args.adam_beta2),
        eps=training_args.adam_epsilon,
    )


def _weight_of(module: nn.Module) -> torch.Tensor | None:
    return dict(module.named_parameters(recurse=False)).get("weight")


def _find_targets(model: Any, args: SftArgs) -> Iterator[torch.Tensor]:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    for name, module in model.named_modules():
        if args.galore_target_modules:
            is_named = any(f".{name}".endswith(f".{word}") for word in args.galore_target_modules)
        else:
            # GPT-2's Conv1D is a linear layer by another name.
            is_named = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
            is_named = is_named and module is not head
        if (is_named or (args.galore_with_embedding and module is embedding)) and hasattr(module, "weight"):
            yield module.weight


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


TUNER: Final = Tuner(
    prepare=full.prepare, trains_base=True, trains_in_model_dtype=True, create_optimizer=create_optimizer
)
