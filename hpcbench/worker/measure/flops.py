"""FLOPs per token of a prepared model: which weights get gradients, which pass them on, and where none comes.

In: a model with its tuner in it, the lengths of its samples. Out: a number, or None. It computes nothing with the
model and counts what the method asks for, not what an implementation of it does beside: no recomputation, no masked
attention between packed samples or in padding, nothing that is done once per step.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from hpcbench.errors import WorkerError
from hpcbench.schemas.metrics import TokenStats
from hpcbench.worker.decoder_layers import find_last_projections, find_layers
from hpcbench.worker.image_parts import kind_of
from hpcbench.worker.measure import formulas
from hpcbench.worker.models.quantization import logical_size
from hpcbench.worker.packed_weights import Weight, named_weights


def count_flops_per_token(
    model: Any, *, tokens: TokenStats | None, num_trained_at_once: int | None = None
) -> float | None:
    """Return model FLOPs per trained token, None where lengths or the architecture's sizes are not known.

    None of an image model either: the work of its encoder does not follow from the number of tokens.
    """
    if kind_of(model) is not None:
        return None
    config = model.config
    heads = getattr(config, "num_attention_heads", None)
    num_layers = getattr(config, "num_hidden_layers", None)
    head_size = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else None)
    if tokens is None or not heads or not num_layers or not head_size:
        return None
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    # The lookup multiplies nothing; a tied matrix is counted once, as the head that it also is.
    is_tied = head is not None and head.weight is embedding
    weights = [weight for weight in used_weights(model) if is_tied or weight is not embedding]
    num_trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    if num_trained_at_once is not None:
        # LISA trains a few layers in one step.
        num_trained = num_trained_at_once - (0 if is_tied else embedding.numel())
    forward_only, num_layers_forward_only = _find_forward_only(model)
    num_forward_only = sum(logical_size(w) for w in weights if id(w) in forward_only and w is not embedding)
    return formulas.flops_per_token(
        num_trained=num_trained,
        num_frozen=sum(map(logical_size, weights)) - num_trained - num_forward_only,
        num_layers=num_layers,
        attention_width=heads * head_size,
        context_length=formulas.mean_context_length(tokens),
        num_forward_only=num_forward_only,
        num_layers_forward_only=num_layers_forward_only,
    )


def used_weights(model: Any) -> list[Weight]:
    """Return the weights that compute something, each once, packed ones too.

    peft keeps the untrained original of a module in lora_modules_to_save; a head that is tied to it goes on using that.
    """
    named = named_weights(model)
    return list({id(weight): weight for name, weight in named if ".original_module." not in name}.values())


def _find_forward_only(model: Any) -> tuple[set[int], int]:
    """Return the ids of the weights that no gradient reaches, and the number of layers whose attention none reaches.

    Models have their weights in the order of their use.
    """
    ordered = _weights_of(model)
    first = next((index for index, weight in enumerate(ordered) if weight.requires_grad), len(ordered))
    below = {id(weight) for weight in ordered[:first]}
    try:
        layers = list(find_layers(model))
    except WorkerError:  # of another shape: all its attention counts as reached
        return below, 0
    num_below = sum(all(id(weight) in below for weight in _weights_of(layer)) for layer in layers)
    if num_below == len(layers):
        return below, num_below
    beside, reaches_attention = _find_beside(layers[num_below], id(ordered[first]))
    return below | beside, num_below + (not reaches_attention)


def _weights_of(module: nn.Module) -> list[Weight]:
    return list({id(weight): weight for _, weight in named_weights(module)}.values())


def _find_beside(layer: nn.Module, first: int) -> tuple[set[int], bool]:
    """Return ids of frozen weights that read what the first trained one reads, and whether attention needs gradients.

    Args:
        layer: the lowest that gradients reach.
        first: id of the model's first trained weight, in this layer or below all layers.
    """
    weights = dict(named_weights(layer))
    name = next((name for name, weight in weights.items() if id(weight) == first), None)
    try:
        last_of_attention, last_of_mlp = find_last_projections(layer)
    except WorkerError:
        return set(), True
    if name is None:
        return set(), True
    for last in (last_of_attention, last_of_mlp):
        block = last.rpartition(".")[0]
        if name.startswith(f"{block}."):
            inner = {n: w for n, w in weights.items() if n.startswith(f"{block}.") and not n.startswith(f"{last}.")}
            is_trained = any(weight.requires_grad for weight in inner.values())
            beside = {id(weight) for weight in inner.values() if not weight.requires_grad}
            return beside, is_trained and last == last_of_attention
    return set(), True
