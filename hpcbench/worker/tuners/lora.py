"""LoRA (arXiv:2106.09685) by peft, with its variants rsLoRA (2312.03732), DoRA (2402.09353) and LoRA+ (2402.12354).

In: the base model and the lora_* arguments. Out: a peft model whose adapter alone is trained.
It never touches the base's weights.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from hpcbench.catalog.models import MODELS
from hpcbench.errors import WorkerError, name_first
from hpcbench.model_files.modules import (
    ALL,
    DEFAULT,
    EMBEDDING,
    GROUP_WORDS,
    choose_default,
    ends_of,
    find_unmatched,
    find_unsaved,
    last_parts,
)
from hpcbench.schemas.arguments import TORCH_DTYPES, Dtype, SftArgs
from hpcbench.worker.image_parts import limit_targets
from hpcbench.worker.packed_weights import is_packed
from hpcbench.worker.tuners import Tuner

if TYPE_CHECKING:
    from peft import LoraConfig


def prepare(model: Any, args: SftArgs) -> Any:
    """Return the model with a LoRA adapter; see `choose_targets` for where.

    Raises:
        WorkerError: the model has no modules of the names asked for.
    """
    from peft import LoraConfig

    check_saved_modules(model, args)
    weights = {end for name, _ in model.named_parameters() for end in ends_of(name)}
    # peft passes over a name that it does not find.
    if unmatched := [name for name in args.target_parameters if name not in weights]:
        known = sorted({re.sub(r".*\.\d+\.", "", name) for name, _ in model.named_parameters()})
        raise WorkerError(
            f"target_parameters: no weight is named {name_first(unmatched)}", hint=f"it has {name_first(known, 20)}"
        )
    tuned = add_adapter(
        model,
        args,
        LoraConfig,
        r=args.lora_rank,
        use_rslora=args.use_rslora,
        use_dora=args.use_dora,
        bias=args.lora_bias_trainable,
        modules_to_save=list(args.lora_modules_to_save) or None,
        init_lora_weights={"true": True, "false": False}.get(args.init_lora_weights, args.init_lora_weights),
        target_parameters=list(args.target_parameters) or None,
        use_qalora=args.use_qalora,
        qalora_group_size=args.qalora_group_size,
    )
    # peft reads the switch in layers of GPTQ's alone, and passes over it in others.
    if args.use_qalora and not any(hasattr(module, "qalora_group_size") for module in tuned.modules()):
        raise WorkerError(
            "use_qalora: the base's weights are not GPTQ's",
            hint="give a model that `cmd: export` with quant_method: gptq made, or set use_qalora: false",
        )
    return tuned


def check_saved_modules(model: Any, args: SftArgs) -> None:
    """Raise where the model lacks a module that is to be trained in full.

    Raises:
        WorkerError: with its name.
    """
    names = [name for name, _ in model.named_modules()]
    if unknown := find_unsaved(args.lora_modules_to_save, names):
        raise WorkerError(f"lora_modules_to_save: no module is named {', '.join(unknown)}")


def add_adapter(model: Any, args: SftArgs, config_type: type[LoraConfig], **options: Any) -> Any:
    """Return the model with an adapter of LoRA's family, whose common arguments are filled in.

    Raises:
        WorkerError: the model has no modules of the names asked for.
    """
    from peft import get_peft_model

    config = config_type(
        task_type="CAUSAL_LM",
        lora_alpha=args.lora_alpha,  # type: ignore[arg-type]  # peft only divides by it; fractions are fine
        lora_dropout=args.lora_dropout_p,
        target_modules=choose_targets(model, args),
        **args.peft_config,
        **options,
    )
    # PiSSA's fast SVD draws numbers: an evaluation has to draw the same to take the same part out of the base.
    with draw_alike(args.seed):
        try:
            tuned = get_peft_model(model, config)
        # peft raises it where no module has the name of a target.
        except ValueError as error:
            raise WorkerError(f"lora_target_modules: {error}") from error
    if args.lora_dtype is not None:
        cast_adapter(tuned, args.lora_dtype)
    return tuned


@contextlib.contextmanager
def draw_alike(seed: int) -> Iterator[None]:
    """Let what is drawn inside depend on the seed alone, and leave the generators as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def cast_adapter(model: Any, dtype: Dtype) -> None:
    """Give the adapter's weights a dtype; peft makes them fp32. Whole modules and biases beside them keep their own."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.to(getattr(torch, TORCH_DTYPES[dtype]))


def choose_targets(model: Any, args: SftArgs) -> str | list[str]:
    """Return peft's target_modules, of an image model those in the parts that are trained.

    Raises:
        WorkerError: DEFAULT is not known for this architecture, or no module has a name asked for.
    """
    return limit_targets(model, args, _name_targets(model, args))


def _name_targets(model: Any, args: SftArgs) -> str | list[str]:
    """Return peft's target_modules for a whole model.

    ALL is every linear layer but the head, DEFAULT query, key and value, EMBEDDING the input's embedding.

    Raises:
        WorkerError: DEFAULT is not known for this architecture, or no module has a name asked for.
    """
    if args.target_regex is not None:
        return args.target_regex
    words = list(args.lora_target_modules)
    # peft leaves the output layer out; in packed layers (GPTQ, AWQ) it finds nothing, and needs their names.
    if set(words) == {ALL} and not any(map(is_packed, model.modules())):
        return "all-linear"
    check_names(model, "lora_target_modules", words, groups=GROUP_WORDS)
    found = [word for word in words if word not in GROUP_WORDS]
    if DEFAULT in words:
        found = [*_choose_default(model, args), *found]
    if ALL in words:
        found = [*_find_linear(model), *found]
    if EMBEDDING in words:
        found.append(_name_of(model, model.get_input_embeddings()))
    return found


def check_names(model: Any, argument: str, words: Iterable[str], *, groups: frozenset[str] = frozenset()) -> None:
    """Raise where no module has a name asked for: peft passes over a name beside others that it finds.

    Args:
        model: the base.
        argument: whose words they are.
        words: names of modules.
        groups: words that the argument takes for several modules.

    Raises:
        WorkerError: with the names that there are.
    """
    names = [name for name, _ in model.named_modules()]
    if unmatched := find_unmatched(words, names, groups=groups):
        known = last_parts(name for name, _ in model.named_parameters())
        raise WorkerError(
            f"{argument}: no module is named {name_first(unmatched)}", hint=f"it has {name_first(known, 20)}"
        )


def _find_linear(model: Any) -> list[str]:
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        # GPT-2's Conv1D is a linear layer by another name; bitsandbytes' are subclasses.
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D" or is_packed(module))
        and module is not head
    ]


def _name_of(model: Any, wanted: Any) -> str:
    return next(str(name) for name, module in model.named_modules() if module is wanted)


def _choose_default(model: Any, args: SftArgs) -> Sequence[str]:
    entry = MODELS.lookup(args.model_type) if args.model_type is not None else None
    names = [name for name, _ in model.named_modules()]
    if found := choose_default(names, entry.lora_target_modules if entry is not None else None):
        return found
    raise WorkerError(
        f"lora_target_modules: DEFAULT is not known for {type(model).__name__}",
        hint="set lora_target_modules: ALL, or name the modules",
    )


def create_optimizer(model: Any, args: SftArgs, training_args: Any) -> Any | None:
    """Return LoRA+'s optimizer (B learns lora_lr_ratio times as fast as A), or None for plain LoRA."""
    if args.lora_lr_ratio is None:
        return None
    from peft.optimizers import create_loraplus_optimizer
    from transformers import Trainer

    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(training_args)
    # peft 0.21 overrides weight_decay in its groups; loraplus_weight_decay sets it.
    return create_loraplus_optimizer(
        model,
        optimizer_class,
        loraplus_lr_ratio=args.lora_lr_ratio,
        loraplus_weight_decay=args.weight_decay,
        **options,
    )


TUNER: Final = Tuner(prepare=prepare, create_optimizer=create_optimizer)
