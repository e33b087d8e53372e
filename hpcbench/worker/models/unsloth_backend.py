"""unsloth's models and adapters (`tuner_backend: unsloth`), in the environment of that name.

In: the training arguments and a device. Out: a model that unsloth loaded and patched, with its LoRA adapter or with all
weights trainable; checkpoints of it are ordinary ones of peft and transformers. It trains nothing itself.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any, Final

from hpcbench.errors import WorkerError, first_line
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.environments import PACKAGES
from hpcbench.schemas.request import Device
from hpcbench.worker.models.source import model_source
from hpcbench.worker.requirements import LibraryMissingError

SETTINGS: Final = {"UNSLOTH_DISABLE_STATISTICS": "1"}
"""It would report runs to its makers."""


def import_first() -> None:
    """Import unsloth, which patches transformers and peft and so has to come before them.

    Raises:
        LibraryMissingError: this Python has no unsloth, or one that does not work.
    """
    os.environ.update({name: value for name, value in SETTINGS.items() if name not in os.environ})
    # Code that it generates for a model goes with the job, like that of other compilers.
    if caches := os.environ.get("TRITON_CACHE_DIR"):
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(Path(caches).parent / "unsloth"))
    try:
        importlib.import_module("unsloth")
    # It checks GPU and torch while it is imported, and torchvision of another build raises a RuntimeError.
    except (ImportError, RuntimeError, NotImplementedError, OSError) as error:
        raise LibraryMissingError(
            f"tuner_backend: unsloth cannot be imported by {sys.executable}: {first_line(error)}",
            hint=f"{sys.executable} -m pip install {PACKAGES['unsloth']}; with a torch of another index than PyPI's, "
            "torchvision has to be of that index too, or removed",
        ) from error


def load_base(args: SftArgs, device: Device) -> Any:
    """Return the base model as unsloth loads it, on its device.

    Raises:
        WorkerError: unsloth cannot load it.
    """
    from hpcbench.worker.models.quantization import settle, torch_dtype

    source = model_source(args)
    try:
        model, _tokenizer = _fast_model().from_pretrained(
            source,
            max_seq_length=args.max_length,
            dtype=torch_dtype(args.dtype),
            load_in_4bit=args.quantization_bit == 4,
            full_finetuning=args.sft_type == "full",
            trust_remote_code=args.trust_remote_code,
            use_gradient_checkpointing=args.gradient_checkpointing,
        )
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise WorkerError(
            f"tuner_backend: unsloth cannot load {source}: {first_line(error)}",
            hint="take tuner_backend: peft for this model",
        ) from error
    if args.quantization_bit:
        settle(model)
    elif device == "cpu":
        model.to(device)
    return model


def add_adapter(model: Any, args: SftArgs) -> Any:
    """Return unsloth's model with its own LoRA layers; with all its weights trainable for `sft_type: full`.

    Raises:
        WorkerError: the model has no modules of the names asked for, or unsloth takes no adapter there.
    """
    if args.sft_type == "full":
        check_took_effect(model)
        return model
    from hpcbench.worker.tuners.lora import choose_targets

    try:
        tuned = _fast_model().get_peft_model(
            model,
            r=args.lora_rank,
            lora_alpha=args.lora_alpha,
            lora_dropout=args.lora_dropout_p,
            target_modules=choose_targets(model, args),
            bias=args.lora_bias_trainable,
            modules_to_save=list(args.lora_modules_to_save) or None,
            use_rslora=args.use_rslora,
            use_gradient_checkpointing=args.gradient_checkpointing,
            random_state=args.seed,
            max_seq_length=args.max_length,
        )
    except (ValueError, TypeError, RuntimeError, NotImplementedError, AssertionError) as error:
        raise WorkerError(
            f"tuner_backend: unsloth puts no adapter on this model: {first_line(error)}",
            hint="take tuner_backend: peft for these arguments",
        ) from error
    check_took_effect(tuned)
    return tuned


def check_took_effect(model: Any) -> None:
    """Raise where unsloth handed out a model of transformers as it is.

    Raises:
        WorkerError: nothing of the model is unsloth's.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not any(name.startswith("_unsloth") for part in (model, base) for name in vars(part)):
        raise WorkerError(
            f"tuner_backend: unsloth has nothing of its own for {type(base).__name__}",
            hint="take tuner_backend: peft, which trains the same",
        )


def _fast_model() -> Any:
    return importlib.import_module("unsloth").FastLanguageModel
