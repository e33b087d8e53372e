"""Find the parts of a decoder that tuners work on: its layers, and in a layer the MLP and the last projections.

In: a model of transformers, with a peft adapter or not. Out: its own modules. It never changes them.
"""

from __future__ import annotations

from typing import Any, Final

from torch import nn

from hpcbench.errors import WorkerError

MLP_NAMES: Final = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
"""What architectures call the feed-forward part of a layer."""

LAST_PROJECTIONS: Final = (
    ("self_attn.o_proj", "mlp.down_proj"),
    ("attn.c_proj", "mlp.c_proj"),
    ("self_attention.dense", "mlp.dense_4h_to_h"),
    ("attention.dense", "mlp.dense_4h_to_h"),
    ("attention.wo", "feed_forward.w2"),
    ("self_attn.dense", "mlp.fc2"),
)
"""The projections whose outputs a layer adds to its input; the first pair that a layer has is taken."""


def find_layers(model: Any) -> nn.ModuleList:
    """Return the decoder's layers.

    Raises:
        WorkerError: no list in the model has as many modules as its config has layers.
    """
    count = getattr(model.config, "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise WorkerError(f"{type(model).__name__}: its {count} decoder layers were not found", hint="use sft_type: lora")


def find_mlp(layer: nn.Module) -> nn.Module:
    """Return a layer's feed-forward part.

    Raises:
        WorkerError: it has none of the known names.
    """
    for name, module in layer.named_children():
        if name in MLP_NAMES:
            return module
    raise WorkerError(f"{type(layer).__name__}: no module named {', '.join(MLP_NAMES)}", hint="use sft_type: lora")


def find_last_projections(layer: nn.Module) -> dict[str, nn.Module]:
    """Return the last projections of a layer's attention and MLP, in this order, by their names in the layer.

    Raises:
        WorkerError: they have none of the known names.
    """
    modules = dict(layer.named_modules())
    for names in LAST_PROJECTIONS:
        if modules.keys() >= set(names):
            return {name: modules[name] for name in names}
    raise WorkerError(
        f"{type(layer).__name__}: the last projections of its attention and MLP are not known",
        hint="use sft_type: lora",
    )
