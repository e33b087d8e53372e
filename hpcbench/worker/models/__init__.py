"""Models on their device: loaded, quantised, with their adapters, and in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """Put a model into evaluation mode without gradients, and afterwards back into the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
