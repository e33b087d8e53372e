"""The libraries that a job's Python needs, by what its request asks for, and how to install them. It imports none."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Iterable, Iterator, Mapping

from hpcbench.catalog.models import MODELS
from hpcbench.schemas.arguments import HUB_KERNELS, SftArgs
from hpcbench.schemas.optimizers import OPTIMIZERS
from hpcbench.schemas.request import VLLM, JobRequest

_TRAIN = ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors")
_EXTRAS: Mapping[str, str] = {
    **dict.fromkeys(_TRAIN, "train"),
    "lm_eval": "eval",
    "bitsandbytes": "bnb",
    **dict.fromkeys(("gptqmodel", "optimum"), "gptq"),
    "modelscope": "modelscope",
    "trl": "rlhf",
    **dict.fromkeys(("liger_kernel", "cut_cross_entropy"), "speed"),
    "deepspeed": "deepspeed",
}
_MODULES: Mapping[str, tuple[str, ...]] = {"bnb": ("bitsandbytes",), "gptq": ("gptqmodel", "optimum")}
"""What a model of the catalog may need -> its modules, where that is not the one of its name."""
_DISTRIBUTIONS: Mapping[str, str] = {
    "optimi": "torch-optimi",
    "aqlm": "aqlm[gpu,cpu]",
    "compressed_tensors": "compressed-tensors",
}
"""Names on PyPI of modules in no extra, where the two differ."""


def missing_libraries(requests: Iterable[JobRequest]) -> list[str]:
    """Return the modules that the jobs need and this Python has not."""
    needed = dict.fromkeys(module for request in requests for module in _needed(request))
    return [module for module in needed if importlib.util.find_spec(module) is None]  # torch alone takes seconds


def _needed(request: JobRequest) -> Iterator[str]:
    if request.environment == VLLM:
        # It loads models and adapters itself; datasets of a hub are read by their library.
        yield from ("torch", "transformers", "safetensors", VLLM)
        names = () if request.args is None else (*request.args.dataset, *request.args.val_dataset)
        yield from () if all(name.startswith("/") for name in names) else ("datasets",)
        return
    yield from _TRAIN
    if request.cmd == "eval":
        yield "lm_eval"
    args = request.args
    if args is None:
        return
    entry = MODELS.lookup(args.model_type) if args.model_type is not None and args.model_id_or_path is None else None
    for extra in () if entry is None else entry.needs:
        yield from _MODULES.get(extra, (extra,))
    if request.export is not None and request.export.quant_bits:
        yield from ("gptqmodel", "optimum") if request.export.calibrates else ("bitsandbytes",)
    if args.quantization_bit or (request.trains and args.galore_quantization):
        yield "bitsandbytes"
    if args.attn_impl is not None and args.attn_impl.startswith(HUB_KERNELS):
        yield "kernels"
    if request.trains:
        yield from _needed_to_train(args)


def _needed_to_train(args: SftArgs) -> Iterator[str]:
    if args.use_liger_kernel:
        yield "liger_kernel"
    if args.use_cce:
        yield "cut_cross_entropy"
    if args.rlhf_type is not None or args.activation_offloading:
        yield "trl"
    if args.deepspeed is not None:
        yield "deepspeed"
    if (module := OPTIMIZERS.get(args.optim)) is not None:
        yield module


def install_hint(modules: Iterable[str]) -> str:
    """Return how to install modules: the extras of hpcbench that hold them, and packages of their own."""
    extras = dict.fromkeys(_EXTRAS[module] for module in modules if module in _EXTRAS)
    packages = [_DISTRIBUTIONS.get(module, module) for module in modules if module not in _EXTRAS]
    if extras:
        packages.insert(0, f"hpcbench-llm[{','.join(extras)}]")
    return f"pip install {shlex.join(packages)} into the Python that runs the jobs"
