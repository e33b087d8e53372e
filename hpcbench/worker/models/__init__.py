"""Models on their device: loaded, quantised, with adapters, in evaluation mode for a while; what ends an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hpcbench.worker.parallel.fsdp import is_sharded


def eos_token_ids(model: Any) -> tuple[int, ...]:
    """Return the tokens that end a generation of this model."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else tuple(ids)


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """Put a model into evaluation mode without gradients, and afterwards back into the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        # What sharded layers gather in inference mode would be of no use to the next training step.
        with torch.no_grad() if is_sharded(model) else torch.inference_mode():
            yield
    finally:
        model.train(was_training)
