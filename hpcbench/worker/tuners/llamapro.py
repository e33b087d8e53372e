"""LLaMA Pro's block expansion (arXiv:2401.02415): new decoder layers between the old ones, which stay frozen.

In: the base model and the llamapro_* arguments. Out: a deeper model of the same architecture, whose new layers alone
are trained. A new layer is a copy of the one before it with the last projections zeroed, so that it starts as the
identity. It is saved as a whole model, with its new depth in its config.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from torch import nn

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.decoder_layers import find_last_projections, find_layers
from hpcbench.worker.tuners import Tuner

PER_LAYER: Final = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Lists in configs with one entry per layer."""


def prepare(model: Any, args: SftArgs) -> Any:
    """Return the model with `llamapro_num_new_blocks` new layers.

    Raises:
        WorkerError: the blocks do not divide into their groups, or the architecture's layers are not known.
    """
    layers = find_layers(model)
    sources = place_blocks(len(layers), args.llamapro_num_new_blocks, args.llamapro_num_groups)
    model.requires_grad_(requires_grad=False)
    expanded: list[nn.Module] = []
    for source, is_new in sources:
        expanded.append(_make_block(layers[source]) if is_new else layers[source])
    for index, layer in enumerate(expanded):
        for module in layer.modules():
            # The number of a layer's own entry in the key-value cache.
            if hasattr(module, "layer_idx"):
                module.layer_idx = index  # type: ignore[assignment]  # torch declares tensors and modules only
    del layers[:]
    layers.extend(expanded)
    for name in PER_LAYER:
        entries = getattr(model.config, name, None)
        if entries is not None:
            setattr(model.config, name, [entries[source] for source, _ in sources])
    model.config.num_hidden_layers = len(expanded)
    return model


def place_blocks(num_layers: int, num_new: int, num_groups: int | None) -> list[tuple[int, bool]]:
    """Return (old layer that it is or copies, whether it is new) for each layer of the deeper model.

    The layers are cut into as many runs as there are groups, equal up to one layer; each run's last is copied.

    Raises:
        WorkerError: there are more groups than layers, or unequal groups.
    """
    groups = num_groups or num_new
    if num_new % groups or groups > num_layers:
        raise WorkerError(
            f"llamapro_num_new_blocks: {num_new} blocks in {groups} groups do not fit into {num_layers} layers",
            hint="the groups must divide the blocks and be no more than the layers",
        )
    ends = {(group + 1) * num_layers // groups - 1 for group in range(groups)}
    placed: list[tuple[int, bool]] = []
    for index in range(num_layers):
        placed.append((index, False))
        placed += [(index, True)] * (num_new // groups if index in ends else 0)
    return placed


def _make_block(layer: nn.Module) -> nn.Module:
    """Return a trainable copy that adds nothing to its input yet."""
    block = copy.deepcopy(layer).requires_grad_(requires_grad=True)
    for projection in find_last_projections(block).values():
        for parameter in projection.parameters():
            nn.init.zeros_(parameter)
    return block


TUNER: Final = Tuner(prepare=prepare, trains_in_model_dtype=True)
