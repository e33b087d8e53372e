"""The texts of cells that hold more than a number, in the spelling of SWIFT 2.x."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpcbench.report.facts import Facts
from hpcbench.schemas.arguments import SftArgs

_WIDE = 1e12
"""No figure of ours is larger; what is gets an exponent, so that a cell stays a cell."""
_NAMED_BITS = re.compile(r"int(\d+)|(\d+)[-_]?bit", re.IGNORECASE)
"""In the name of a model: `int4` or `2bit`."""
_LONGEST_VALUE = 40
"""Characters of a setting in a cell."""
_COMMON_FILE_NAMES = ("train", "data", "dataset")
_GALORE_SWITCHES = ("galore_per_parameter", "galore_with_embedding")
_DATA_SWITCHES = ("plain_text", "packing", "lazy_tokenize", "use_loss_scale", "loss_on_all_rounds")
"""Arguments that change what a training step is made of; those that are on stand behind the tuner's."""


def number_text(value: float, decimals: int) -> str:
    """Return `value` with a fixed number of decimals, or two digits that tell more where that would print zeros."""
    if value and abs(value) < 10.0**-decimals:
        return f"{value:.2g}"
    if abs(value) >= _WIDE:
        return f"{value:.4g}"
    return f"{value:.{decimals}f}"


def dataset_label(names: Sequence[str]) -> str:
    """Return dataset names as tables show them: hub ids whole, files by name, with the folder of a `train.jsonl`."""
    return ",".join(_file_label(name) if name.startswith(("/", ".", "~")) else name for name in names)


def _file_label(path: str) -> str:
    *folders, name = path.split("/")
    named = folders[-1] if name.split(".", 1)[0] in _COMMON_FILE_NAMES and folders else ""
    return f"{named}/{name}" if named.strip(".~") else name


def tuner_params(args: SftArgs) -> str:
    """Return the tuner's settings in ms-swift's spelling, without those left at their defaults."""
    parts: list[str] = []
    if args.sft_type in {"lora", "adalora"}:
        ranks = {"lora": f"rank={args.lora_rank}", "adalora": f"rank={args.adalora_target_r}"}
        parts += [
            ranks[args.sft_type],
            *([f"init_rank={args.adalora_init_r}"] if args.sft_type == "adalora" else []),
            f"target={args.target_regex or ','.join(args.lora_target_modules)}",
            f"alpha={args.lora_alpha:g}",
        ]
        parts += [f"target_parameters={','.join(args.target_parameters)}"] if args.target_parameters else []
        parts += [f"lr_ratio={args.lora_lr_ratio:g}"] if args.lora_lr_ratio is not None else []
        parts += ["use_rslora=True"] if args.use_rslora else []
        parts += ["use_dora=True"] if args.use_dora else []
        parts += [f"qalora_group_size={args.qalora_group_size}"] if args.use_qalora else []
        parts += [f"bias={args.lora_bias_trainable}"] if args.lora_bias_trainable != "none" else []
        parts += [f"modules_to_save={','.join(args.lora_modules_to_save)}"] if args.lora_modules_to_save else []
        parts += [f"init={args.init_lora_weights}"] if args.init_lora_weights != "true" else []
    if args.is_peft_method and args.takes_targets:
        parts.append(f"target={args.target_regex or ','.join(args.lora_target_modules)}")
    if args.sft_type != "lora" and args.saves_modules and args.lora_modules_to_save:
        parts.append(f"modules_to_save={','.join(args.lora_modules_to_save)}")
    parts += [f"{name}={_short(value)}" for name, value in args.peft_config.items()]
    parts += [f"lora_dtype={args.lora_dtype}"] if args.lora_dtype is not None else []
    match args.tuner:
        case "galore":
            parts.append(f"galore_rank={args.galore_rank}")
            parts += [f"galore_scale={args.galore_scale:g}"] if args.galore_scale != 1 else []
            parts += [f"{name}=True" for name in _GALORE_SWITCHES if getattr(args, name)]
            parts += ["galore_quantization=True"] if args.galore_quantization else []
            parts += [f"galore_proj_bits={args.galore_proj_bits}"] if args.galore_proj_quant else []
        case "adapter":
            parts.append(f"adapter_length={args.adapter_length}")
        case "full":
            parts += _freezing(args)
        case _:
            parts += _other_params(args)
    parts += _preferences(args)
    parts += ["tuner_backend=unsloth"] if args.tuner_backend == "unsloth" else []
    parts += [f"{name}=True" for name in _DATA_SWITCHES if getattr(args, name)]
    if args.neftune_noise_alpha is not None:
        parts.append(f"neftune_noise_alpha={args.neftune_noise_alpha:g}")
    return "/".join(parts)


def swift_tuner_params(args: SftArgs) -> str:
    """Return the tuner's settings exactly as SWIFT 2.x prints them, defaults included."""
    parts: list[str] = []
    if args.sft_type in {"lora", "adalora"}:
        parts = [
            # Of adalora too, where this argument has no effect.
            f"rank={args.lora_rank}",
            f"target={' '.join(args.lora_target_modules)}",
            f"alpha={args.lora_alpha:g}",
            f"lr_ratio={args.lora_lr_ratio}",
            f"use_rslora={args.use_rslora}",
            f"use_dora={args.use_dora}",
        ]
    parts += _other_params(args)
    # SWIFT 2.x's table names packing and not lazy_tokenize, which stands in the experiment's name.
    parts += ["packing=True"] if args.packing else []
    if args.neftune_noise_alpha is not None:
        parts.append(f"neftune_noise_alpha={args.neftune_noise_alpha}")
    return "/".join(parts)


def _other_params(args: SftArgs) -> list[str]:
    match args.tuner:
        case "llamapro":
            return [f"num_blocks={args.llamapro_num_new_blocks}"]
        case "galore":
            switches = (f"{name}={getattr(args, name)}".lower() for name in _GALORE_SWITCHES)
            return [f"galore_rank={args.galore_rank}", *switches]
        case "lisa":
            return [
                f"lisa_activated_layers={args.lisa_activated_layers}",
                f"lisa_step_interval={args.lisa_step_interval}",
            ]
        case _:
            return []


def _freezing(args: SftArgs) -> list[str]:
    """Return which weights of full are left out."""
    ratio = args.freeze_parameters_ratio
    parts = [f"freeze_ratio={ratio:g}"] if ratio else []
    for label in ("freeze", "trainable"):
        names, pattern = getattr(args, f"{label}_parameters"), getattr(args, f"{label}_parameters_regex")
        parts += [f"{label}={','.join([*names, *([pattern] if pattern else [])])}"] if names or pattern else []
    return parts


def _preferences(args: SftArgs) -> list[str]:
    """Return the loss of a training from preferences."""
    if args.rlhf_type is None:
        return []
    names = "+".join(f"{weight:g}*{name}" if weight != 1 else name for name, weight in args.losses)
    parts = [f"rlhf_type={args.rlhf_type}", f"beta={args.effective_beta:g}"]
    return [*parts, f"loss_type={names}"] if args.differs_from_default("loss_type") or "*" in names else parts


def _short(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def quantization_text(args: SftArgs) -> str:
    """Return how the base's weights are held, as the tables of SWIFT 2.x write it: bf16, or for example int4 (bnb).

    Of a base that comes quantized, by quant_method, the bits are those that its name says: int4 (gptq), or gptq.
    """
    if args.quantization_bit:
        return f"int{args.quantization_bit} (bnb)"
    if args.quant_method is None:
        return args.dtype
    found = _NAMED_BITS.search(args.model_name)
    return args.quant_method if found is None else f"int{found[1] or found[2]} ({args.quant_method})"


def model_form(facts: Facts) -> str | None:
    """Return how a base's weights are held while it trains; of an exported model `int4 (awq)` or `merged`."""
    request = None if facts.view.main is None else facts.view.main.request
    if request is not None and request.export is not None:
        bits, method = request.export.quant_bits, request.export.quant_method
        return f"int{bits} ({method})" if bits else "merged"
    return None if facts.args is None else quantization_text(facts.args)


def hypers(args: SftArgs) -> str:
    """Return learning rate and length of the training, for example `lr=5e-05/epoch=2`."""
    length = f"steps={args.max_steps}" if args.max_steps >= 0 else f"epoch={args.num_train_epochs:g}"
    return f"lr={args.effective_learning_rate:g}/{length}"


def global_batch_text(facts: Facts) -> str:
    """Return `16`, or `2 packs` where a batch holds packs of samples."""
    train, args = facts.train, facts.train_args
    if train is None:
        return ""
    unit = " pack" if args is not None and args.packing else ""
    return f"{train.global_batch_size}{unit}{'s' if unit and train.global_batch_size > 1 else ''}"


def trainable_text(facts: Facts) -> str:
    """Return `17.89 (0.231%)`, or `134.52 (100%), 35.41 at a time` where a step trains a part of them."""
    parameters = None if facts.train is None else facts.train.parameters
    if parameters is None:
        return ""
    share = f" ({100 * parameters.trainable / parameters.total:.3g}%)" if parameters.total else ""
    at_once = parameters.trained_at_once
    text = number_text(parameters.trainable / 1e6, 2) + share
    return text if at_once is None else f"{text}, {number_text(at_once / 1e6, 2)} at a time"


def swift_trainable_text(facts: Facts) -> str:
    """Return `17.8913(0.2312%)`, as SWIFT 2.x prints trainable parameters in millions and their part of all."""
    parameters = None if facts.train is None else facts.train.parameters
    if parameters is None:
        return ""
    share = f"({100 * parameters.trainable / parameters.total:.4f}%)" if parameters.total else ""
    return f"{parameters.trainable / 1e6:.4f}{share}"


def swift_train_speed_text(facts: Facts) -> str:
    """Return `0.92(87543 samples/95338.71 seconds)`, all epochs and ranks counted."""
    train = facts.train
    if train is None or train.samples_per_second is None:
        return ""
    speed = number_text(train.samples_per_second, 2)
    if train.train_time_s is None:
        return speed
    return f"{speed}({train.num_samples} samples/{train.train_time_s:.2f} seconds)"


def infer_totals(facts: Facts) -> tuple[int, float] | None:
    """Return tokens and seconds of all generation in the experiment's evals, as SWIFT 2.x adds them up, or answers."""
    speeds = [
        found.metrics.infer
        for found in facts.evals.values()
        if found.metrics is not None and found.metrics.infer is not None
    ]
    if facts.infer is not None and facts.infer.infer is not None:
        speeds.append(facts.infer.infer)
    num_tokens, time_s = sum(speed.num_tokens for speed in speeds), sum(speed.time_s for speed in speeds)
    return (num_tokens, time_s) if num_tokens > 0 and time_s > 0 else None


def swift_infer_speed_text(facts: Facts) -> str:
    """Return `17.33(2345 tokens/135.29 seconds)`."""
    totals = infer_totals(facts)
    if totals is None:
        return ""
    return f"{number_text(totals[0] / totals[1], 2)}({totals[0]} tokens/{totals[1]:.2f} seconds)"


def eval_loss(facts: Facts) -> float | None:
    """Return the eval loss of a training, or that of a baseline where an eval was asked for it."""
    if facts.train is not None:
        return facts.train.eval_loss
    losses = [found.metrics.eval_loss for found in facts.evals.values() if found.metrics is not None]
    return next((loss for loss in losses if loss is not None), None)
