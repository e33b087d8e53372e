"""What makes a training faster or smaller: put into the Trainer, and proven to have taken effect.

In: the training arguments, a prepared model. Out: settings of transformers' `TrainingArguments`, contexts around a step
and its loss, and a line for the record on each argument that took effect. What was asked for and did not is an error
after the first step, before hours are spent on a row that says what did not run.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch

from hpcbench.errors import WorkerError, first_line
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.requirements import require
from hpcbench.worker.train.head_loss import make_head_loss

FUSED_OPTIMIZER: Final = "adamw_torch_fused"
_LIGER: Final = "liger_kernel"


def trainer_arguments(args: SftArgs) -> dict[str, Any]:
    """Return what transformers' `TrainingArguments` are given."""
    given: dict[str, Any] = {}
    if args.use_liger_kernel:
        given |= {"use_liger_kernel": True, "liger_kernel_config": dict(args.liger_kernel_config)}
    if args.torch_compile:
        given |= {
            "torch_compile": True,
            "torch_compile_backend": args.torch_compile_backend or "inductor",
            "torch_compile_mode": args.torch_compile_mode,
        }
    return given


class Speed:
    """The arguments for speed of one training."""

    def __init__(self, args: SftArgs, model: Any) -> None:
        """Put what the Trainer has no argument for into the model.

        Raises:
            WorkerError: the model or this machine cannot run what is asked for.
        """
        self._args = args
        self._head_loss = make_head_loss(model, args)
        self._offload = _Offload(model) if args.activation_offloading else None
        if args.use_liger_kernel:
            _check_liger(args, model)
        if args.torch_compile:
            # Beyond the limit torch runs the rest uncompiled and says so only in a log.
            torch._dynamo.config.fail_on_recompile_limit_hit = True  # noqa: SLF001  # documented under this name
            torch._dynamo.utils.counters.clear()  # noqa: SLF001  # no public name for them

    @contextlib.contextmanager
    def in_step(self) -> Iterator[None]:
        """Offload the activations of a forward and backward pass, and name the argument where its compiler fails.

        Raises:
            WorkerError: torch.compile gave up.
        """
        failures = _compiler_failures() if self._args.torch_compile else ()
        try:
            with self._offload.context if self._offload is not None else contextlib.nullcontext():
                yield
        except failures as error:
            if "limit" in type(error).__name__.lower():
                raise WorkerError(
                    "torch_compile: the model was compiled anew too often, and the rest would run uncompiled: "
                    f"{first_line(error)}",
                    hint="set torch_compile: false",
                ) from error
            raise WorkerError(
                f"torch_compile: {type(error).__name__}: {first_line(error)}", hint="set torch_compile: false"
            ) from error

    def computing_loss(self) -> contextlib.AbstractContextManager[None]:
        """Return what the forward pass of the training loss is inside of."""
        return contextlib.nullcontext() if self._head_loss is None else self._head_loss.computing()

    def check_first_step(self, model: Any, optimizer: Any) -> None:
        """Raise unless everything that was asked for ran in the first optimizer step.

        Raises:
            WorkerError: something did not take effect; named by its argument.
        """
        args = self._args
        if args.torch_compile and not _count_compiled()["graphs"]:
            raise _without_effect("torch_compile", "torch compiled nothing of this model")
        if self._offload is not None and not self._offload.num_tensors:
            raise _without_effect("activation_offloading", "no activation of this model was moved to the host")
        if args.optim == FUSED_OPTIMIZER and not _is_fused(optimizer):
            raise _without_effect("optim", f"{type(optimizer).__name__} of this method is not fused", "adamw_torch")
        if args.use_liger_kernel:
            found = find_liger_kernels(model)
            wanted = [name for name, value in args.liger_kernel_config.items() if value]
            if not found or not found.keys() >= set(wanted):
                missing = sorted(set(wanted) - found.keys())
                raise _without_effect("use_liger_kernel", f"it replaced no {' and no '.join(missing) or 'part'} of it")

    def describe(self, model: Any) -> dict[str, str]:
        """Return what ran, by the argument that asked for it."""
        args, ran = self._args, {}
        if args.chunked_cross_entropy:
            ran["chunked_cross_entropy"] = f"{args.chunked_cross_entropy_num_chunks} chunks"
        if args.use_cce:
            ran["use_cce"] = "cce" if model.device.type == "cuda" else "torch_compile"
        if args.optim == FUSED_OPTIMIZER:
            ran["optim"] = "fused"
        if self._offload is not None:
            ran["activation_offloading"] = self._offload.describe()
        if args.use_liger_kernel:
            parts = find_liger_kernels(model)
            ran["use_liger_kernel"] = ", ".join(f"{name} x{parts[name]}" for name in sorted(parts))
        if args.torch_compile:
            counts = _count_compiled()
            ran["torch_compile"] = (
                f"{args.torch_compile_backend or 'inductor'}: {counts['graphs']} graphs, "
                f"{counts['breaks']} graph breaks"
            )
        return ran


class _Offload:
    """TRL's offloading of activations, with a count of what it moved."""

    def __init__(self, model: Any) -> None:
        require("trl", for_what="activation_offloading")
        if not torch.cuda.is_available():
            raise WorkerError("activation_offloading runs on GPUs only", hint="set activation_offloading: false")
        self.context: Any = importlib.import_module("trl.models").get_act_offloading_ctx_manager(model)
        self.num_tensors = self.num_bytes = 0
        pack = self.context.pack_hook

        def count(activation: torch.Tensor) -> int:
            number: int = pack(activation)
            if self.context.tracker.get(number, (None, False))[1]:
                self.num_tensors += 1
                self.num_bytes += activation.numel() * activation.element_size()
            return number

        self.context.pack_hook = count

    def describe(self) -> str:
        """Return what all forward passes moved, in words."""
        return f"{self.num_tensors} tensors, {self.num_bytes / 2**30:.2f} GiB moved to the host"


def _without_effect(argument: str, why: str, instead: str = "false") -> WorkerError:
    return WorkerError(f"{argument}: it had no effect: {why}", hint=f"set {argument}: {instead}")


def _is_fused(optimizer: Any) -> bool:
    return all(group.get("fused") for group in optimizer.param_groups)


def _compiler_failures() -> tuple[type[Exception], ...]:
    exceptions = importlib.import_module("torch._dynamo.exc")
    return (exceptions.TorchDynamoException, exceptions.FailOnRecompileLimitHit)


def _count_compiled() -> dict[str, int]:
    counters: Mapping[str, Mapping[str, int]] = torch._dynamo.utils.counters  # noqa: SLF001  # no public name
    return {
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
    }


def _check_liger(args: SftArgs, model: Any) -> None:
    """Raise where Liger Kernel would leave something out without a word.

    Raises:
        WorkerError: it has no kernels for the model's type, or not those that are named.
    """
    require(_LIGER, for_what="use_liger_kernel")
    functions = importlib.import_module("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = base.config.model_type
    if kind not in functions:
        raise WorkerError(
            f"use_liger_kernel: Liger Kernel has no kernels for models of type {kind}",
            hint="set use_liger_kernel: false; torch_compile: true works with any type",
        )
    takes = inspect.signature(functions[kind]).parameters.keys() - {"model"}
    if unknown := sorted(args.liger_kernel_config.keys() - takes):
        raise WorkerError(
            f"liger_kernel_config: Liger Kernel has no {unknown[0]} for models of type {kind}",
            hint=f"it has {', '.join(sorted(takes))}",
        )


def find_liger_kernels(model: Any) -> dict[str, int]:
    """Return which of Liger's kernels a model runs with, and how many of its modules each replaced."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    found: Counter[str] = Counter()
    if _home(base.forward).startswith(_LIGER):
        found["fused_linear_cross_entropy"] = 1
    for module in base.modules():
        if module is not base and (home := _home(module.forward)).startswith(_LIGER):
            found[home.rsplit(".", 1)[-1]] += 1
    modeling = inspect.getmodule(type(base))
    if _home(getattr(modeling, "apply_rotary_pos_emb", None)).startswith(_LIGER):
        found["rope"] = 1
    if _home(torch.nn.functional.cross_entropy).startswith(_LIGER):
        found["cross_entropy"] = 1
    return dict(found)


def _home(function: Any) -> str:
    """Return the module that a function or bound method was defined in."""
    return str(getattr(getattr(function, "__func__", function), "__module__", None) or "")
