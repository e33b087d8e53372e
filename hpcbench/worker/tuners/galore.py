"""GaLore (arXiv:2403.03507): full fine-tuning whose optimizer sees each gradient in a low-rank subspace of its own.

In: the base model and the galore_* arguments. Out: the same, all weights trainable, and an AdamW whose moments of the
targets are as small as the subspace. Its state is tensors only, so that it is saved and resumed as any other.

Shapes: m, n of a weight; r the rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn

from hpcbench.arguments import SftArgs
from hpcbench.errors import WorkerError
from hpcbench.worker.tuners import Tuner, full


class GaLoreAdamW(torch.optim.Optimizer):
    """AdamW in the subspace of each gradient's largest singular vectors, found anew every `update_proj_gap` steps.

    A group without `rank` is trained by AdamW as it is. As in the authors' code eps is added to the uncorrected root
    of the second moment, the moments stay as they are when the subspace changes, and weights decay after the update.

    Args:
        groups: parameter groups; `rank`, `update_proj_gap`, `scale`, `proj_type` and `frees_gradients` are read.
        lr: learning rate.
        betas: of the moments.
        eps: added to the root of the second moment.
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
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update every weight that has a gradient."""
        if closure is not None:
            raise ValueError("no closures")
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
        if group["rank"] is not None and int(state["step"]) % group["update_proj_gap"] == 0:
            state.update(find_subspace(gradient, rank=group["rank"], proj_type=group["proj_type"]))
        left_mr, right_rn = state.get("left"), state.get("right")
        if left_mr is not None:
            gradient = left_mr.T @ gradient
        if right_rn is not None:
            gradient = gradient @ right_rn.T
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        state["exp_avg"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        update = state["exp_avg"] / state["exp_avg_sq"].sqrt().add_(group["eps"])
        if left_mr is not None:
            update = left_mr @ update
        if right_rn is not None:
            update = update @ right_rn
        count = int(state["step"])
        rate = group["lr"] * math.sqrt(1 - beta2**count) / (1 - beta1**count)
        parameter.add_(update, alpha=-rate * (group["scale"] if group["rank"] is not None else 1.0))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])


def find_subspace(gradient: torch.Tensor, *, rank: int, proj_type: str) -> dict[str, torch.Tensor]:
    """Return the largest singular vectors: `left` [m, r], `right` [r, n], or both.

    `std` projects the longer side away (right where m >= n), `reverse_std` the shorter one.
    """
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
    targets = {id(parameter) for parameter in _find_targets(model, args)}
    if not targets:
        raise WorkerError(f"galore_target_modules: no module is named {', '.join(args.galore_target_modules)}")
    projected = {
        "rank": args.galore_rank,
        "update_proj_gap": args.galore_update_proj_gap,
        "scale": args.galore_scale,
        "proj_type": args.galore_proj_type,
    }
    groups: dict[Any, dict[str, Any]] = {}
    for index, parameter in enumerate(model.parameters()):
        is_target, is_matrix = id(parameter) in targets, parameter.ndim >= 2
        key = index if args.galore_per_parameter else (is_target, is_matrix)
        # Norms and biases do not decay, as with the Trainer's own optimizer.
        options = {
            "params": [],
            "weight_decay": args.weight_decay if is_matrix else 0.0,
            "frees_gradients": args.galore_per_parameter,
        }
        group = groups.setdefault(key, options | (projected if is_target else {}))
        group["params"].append(parameter)
    return GaLoreAdamW(
        list(groups.values()),
        lr=training_args.learning_rate,
        betas=(training_args.adam_beta1, training_args.adam_beta2),
        eps=training_args.adam_epsilon,
    )


def _find_targets(model: Any, args: SftArgs) -> Iterator[torch.Tensor]:
    """Yield the weights whose gradients are projected."""
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


TUNER: Final = Tuner(
    prepare=full.prepare, trains_base=True, trains_in_model_dtype=True, create_optimizer=create_optimizer
)
