"""The loss of a training from the hidden states before the model's head, so that its logits never exist as a whole.

In: a causal language model of transformers, an argument that names how the loss is computed. Out: the same model, whose
forward passes inside `HeadLoss.computing` return that loss; all others are as ever. The loss is the mean cross-entropy
of transformers, up to the order of its sums: what a tuner adds to the loss stays.

Shapes: B batch, T padded length, N predicted tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hpcbench.errors import WorkerError, first_line
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.encoded import IGNORED_LABEL
from hpcbench.worker.models import inference
from hpcbench.worker.requirements import require

_PROBE_LENGTH: Final = 8
SumLosses = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
"""Head, hidden states (N, H), targets (N) -> sum of the tokens' cross-entropies in nats, fp32."""


class HeadLoss:
    """Takes the place of a model's head and loss function inside `computing`."""

    def __init__(self, model: Any, argument: str, sum_losses: SumLosses) -> None:
        """Put the loss into the model.

        Raises:
            WorkerError: the model has no head whose outputs are its logits.
        """
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._argument = argument
        self._sum_losses = sum_losses
        self._head = base.get_output_embeddings()
        if self._head is None:
            raise self._cannot(base, "has no output layer")
        self._project = self._head.forward
        self._computes = self._is_used = False
        # On the instances: neither changes a weight's name in checkpoints.
        self._head.forward = self._forward_head
        self._check_logits(base)
        base.loss_function = self

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Let the forward pass inside return this loss.

        Raises:
            WorkerError: the model computed its loss in some other way.
        """
        self._computes, self._is_used = True, False
        try:
            yield
        finally:
            self._computes = False
        if not self._is_used:
            raise WorkerError(
                f"{self._argument}: this model computes its loss by itself", hint=f"set {self._argument}: false"
            )

    def __call__(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        vocab_size: int,  # noqa: ARG002  # transformers' models give it
        num_items_in_batch: Any = None,
        shift_labels: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Return the mean cross-entropy; where the head was left out, `logits` are the hidden states before it."""
        self._is_used = True
        if shift_labels is None:
            # Shift so that tokens < n predict n, as transformers' ForCausalLMLoss.
            shift_labels = functional.pad(labels, (0, 1), value=IGNORED_LABEL)[..., 1:]
        targets_N = shift_labels.reshape(-1).to(logits.device)  # noqa: N806
        predicted = targets_N != IGNORED_LABEL
        states_NH, targets_N = logits.flatten(0, -2)[predicted], targets_N[predicted]  # noqa: N806
        count = targets_N.numel() if num_items_in_batch is None else num_items_in_batch
        if self._computes:
            total = self._sum_losses(_Projection(self._head, self._project), states_NH, targets_N)
        else:
            total = functional.cross_entropy(states_NH.float(), targets_N, reduction="sum")
        return total / (count.to(total) if isinstance(count, torch.Tensor) else max(count, 1))

    def _forward_head(self, states: torch.Tensor) -> torch.Tensor:
        return states if self._computes else self._project(states)

    def _check_logits(self, base: Any) -> None:
        """Raise unless the logits are what comes out of the head, which some models cap or scale."""
        ids = torch.arange(_PROBE_LENGTH)[None].to(base.device) % int(base.get_input_embeddings().weight.shape[0])
        try:
            with inference(base):
                logits = base(input_ids=ids, use_cache=False).logits
                self._computes = True
                states = base(input_ids=ids, use_cache=False).logits
                found = self._project(states).to(logits.device)  # of a model on several GPUs they may differ
        except (RuntimeError, TypeError, ValueError) as error:
            raise self._cannot(base, f"cannot run without its head: {first_line(error)}") from error
        finally:
            self._computes = False
        if found.shape != logits.shape or not torch.allclose(found.float(), logits.float(), rtol=1e-3, atol=1e-4):
            raise self._cannot(base, "changes the logits after its head")

    def _cannot(self, base: Any, why: str) -> WorkerError:
        return WorkerError(f"{self._argument}: {type(base).__name__} {why}", hint=f"set {self._argument}: false")


class _Projection:
    """A head as it was: what it computes, and its weight."""

    def __init__(self, head: Any, project: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.head = head
        self.project = project


def make_head_loss(model: Any, args: SftArgs) -> HeadLoss | None:
    """Return the loss that the arguments ask for, put into the model; None for the model's own.

    Raises:
        WorkerError: the model cannot compute it.
    """
    if args.chunked_cross_entropy:
        return HeadLoss(model, "chunked_cross_entropy", _in_chunks(args.chunked_cross_entropy_num_chunks))
    if args.use_cce:
        return HeadLoss(model, "use_cce", _cut_cross_entropy)
    return None


def _in_chunks(num_chunks: int) -> SumLosses:
    def sum_losses(head: _Projection, states_NH: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:  # noqa: N803
        # One chunk's logits live at a time: the backward pass computes them again.
        pairs = zip(states_NH.chunk(num_chunks), targets_N.chunk(num_chunks), strict=True)
        losses = [checkpoint(_sum_chunk, head.project, states, wanted, use_reentrant=False) for states, wanted in pairs]
        return torch.stack(losses).sum()

    return sum_losses


def _sum_chunk(
    project: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    logits = project(states).float()
    # Of a model on several GPUs a head that is tied to the embedding is on the first, its states on the last.
    return functional.cross_entropy(logits, targets.to(logits.device), reduction="sum")


def _cut_cross_entropy(head: _Projection, states_NH: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """Return the sum by Apple's kernel, or on the CPU by their form for torch.compile.

    Raises:
        WorkerError: the head is more than one matrix.
    """
    require("cut_cross_entropy", for_what="use_cce")
    linear_cross_entropy = importlib.import_module("cut_cross_entropy").linear_cross_entropy
    layer = head.head
    is_matrix = type(layer) is torch.nn.Linear  # an adapter's layer may be a subclass
    if not is_matrix or layer.bias is not None:
        what = "has a bias" if is_matrix else f"is a {type(layer).__name__}"
        raise WorkerError(
            f"use_cce: the head {what}, and the kernel takes one matrix",
            hint="set use_cce: false and chunked_cross_entropy: true, which takes any head",
        )
    weight, device = layer.weight, states_NH.device.type
    states_NH, targets_N = (tensor.to(weight.device) for tensor in (states_NH, targets_N))  # noqa: N806
    if torch.is_autocast_enabled(device):
        # Autocast knows nothing of the kernel.
        states_NH, weight = (tensor.to(torch.get_autocast_dtype(device)) for tensor in (states_NH, weight))  # noqa: N806
    total: torch.Tensor = linear_cross_entropy(
        states_NH, weight, targets_N, reduction="sum", impl="cce" if device == "cuda" else "torch_compile"
    )
    return total.float()
