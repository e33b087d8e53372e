"""LoRA (arXiv:2106.09685) by peft, with its variants rsLoRA (2312.03732), DoRA (2402.09353) and LoRA+ (2402.12354).

In: the base model and the lora_* arguments. Out: a peft model whose adapter alone is trained.
It never touches the base's weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hpcbench.catalog.models import MODELS
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.tuners import Tuner

if TYPE_CHECKING:
    from peft import LoraConfig

QKV_NAMES: Final = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("c_attn",),
    ("query_key_value",),
    ("qkv_proj",),
    ("W_pack",),
    ("wqkv",),
)
"""What architectures call the projections to query, key and value; the first that a model has in full is taken."""


def prepare(model: Any, args: SftArgs) -> Any:
    """Return the model with a LoRA adapter; see `choose_targets` for where.

    Raises:
        WorkerError: the model has no modules of the names asked for.
    """
    from peft import LoraConfig

    # peft passes over a name that no module has.
    names = [name for name, _ in model.named_modules()]
    unknown = [word for word in args.lora_modules_to_save if not any(name.endswith(word) for name in names)]
    if unknown:
        raise WorkerError(f"lora_modules_to_save: no module is named {', '.join(unknown)}")
    return add_adapter(
        model,
        args,
        LoraConfig,
        r=args.lora_rank,
        use_rslora=args.use_rslora,
        use_dora=args.use_dora,
        bias=args.lora_bias_trainable,
        modules_to_save=list(args.lora_modules_to_save) or None,
        init_lora_weights={"true": True, "false": False}.get(args.init_lora_weights, args.init_lora_weights),
    )


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
        **options,
    )
    try:
        return get_peft_model(model, config)
    # peft raises it where no module has the name of a target.
    except ValueError as error:
        raise WorkerError(f"lora_target_modules: {error}") from error


def choose_targets(model: Any, args: SftArgs) -> str | list[str]:
    """Return peft's target_modules: ALL is every linear layer but the head, DEFAULT query, key and value.

    Raises:
        WorkerError: DEFAULT is not known for this architecture.
    """
    words = list(args.lora_target_modules)
    if "ALL" in words:
        return "all-linear"  # peft leaves the output layer out
    if "DEFAULT" not in words:
        return words
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    entry = MODELS.lookup(args.model_type) if args.model_type is not None else None
    known = (entry.lora_target_modules,) if entry is not None and entry.lora_target_modules else ()
    for candidate in (*known, *QKV_NAMES):
        if names.issuperset(candidate):
            return [*candidate, *(word for word in words if word != "DEFAULT")]
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
