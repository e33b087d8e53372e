"""A bottleneck adapter after the MLP of each decoder layer (Houlsby et al. 2019, arXiv:1902.00751).

In: the base model, adapter_length and adapter_act. Out: the same model, with `mlp.adapter` in each layer, which alone
is trained. One adapter per layer, as ms-swift's tables have it (33.69 million weights on Qwen-7B). It starts as
the identity and never touches the base's weights.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.decoder_layers import find_layers, find_mlp
from hpcbench.worker.tuners import Tuner

ACTIVATIONS: Final = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Bottleneck(nn.Module):
    """Down, activation, up, and the input added; `up` starts at zero."""

    def __init__(self, width: int, length: int, act: str, device: torch.device) -> None:
        super().__init__()
        self.down = nn.Linear(width, length, device=device, dtype=torch.float32)
        self.act = ACTIVATIONS[act]()
        self.up = nn.Linear(length, width, device=device, dtype=torch.float32)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the adapted hidden states, in their own dtype."""
        change: torch.Tensor = self.up(self.act(self.down(hidden.to(self.down.weight.dtype))))
        return hidden + change.to(hidden.dtype)


def prepare(model: Any, args: SftArgs) -> Any:
    """Return the model with an adapter after each MLP.

    Raises:
        WorkerError: the architecture's layers or MLPs are not known.
    """
    model.requires_grad_(requires_grad=False)
    for layer in find_layers(model):
        mlp = find_mlp(layer)
        device = next(mlp.parameters()).device
        mlp.adapter = Bottleneck(model.config.hidden_size, args.adapter_length, args.adapter_act, device)
        mlp.register_forward_hook(_adapt)
    return model


def _adapt(module: Any, _inputs: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # a mixture of experts returns its router's logits too
        return (module.adapter(output[0]), *output[1:])
    return module.adapter(output)


TUNER: Final = Tuner(prepare=prepare, saved_arguments=("adapter_length", "adapter_act"))
