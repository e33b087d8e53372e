"""Tokenizers and models, of a hub id in the local cache, of a folder, or of a finished checkpoint; our own adapters.

In: the training arguments and a device. Out: a transformers tokenizer or model, in the dtype that was asked for.
What is missing, unsupported or unsafe raises a WorkerError with a way on; nothing here downloads anything.
"""

from __future__ import annotations

import logging
import math
import os
import pickle  # for its errors alone
import re
import warnings
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub.errors import StrictDataclassError

from hpcbench.catalog.hubs import OnHub
from hpcbench.errors import PREFETCH, WorkerError, first_line
from hpcbench.hub.models import find_files
from hpcbench.model_files.checks import MEDIA_KEYS
from hpcbench.model_files.image_models import IMAGE_MODELS, find_image_model
from hpcbench.model_files.quantized import Quantized, find_quantized
from hpcbench.model_files.weights import WEIGHT_NAMES, read_weights
from hpcbench.schemas.arguments import Dtype, SftArgs
from hpcbench.schemas.request import Device
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import PEFT_CONFIG, TUNER_CONFIG
from hpcbench.worker.models.attention import choose_attention, refuses_attention
from hpcbench.worker.models.files import check_loading_info
from hpcbench.worker.models.quantization import (
    GPTQMODEL,
    check_loadable,
    describe,
    quantization_config,
    settle,
    show_gptqmodel_to_peft,
    torch_dtype,
    trainable_kernel,
)
from hpcbench.worker.models.source import model_source
from hpcbench.worker.packed_weights import is_packed
from hpcbench.worker.tuners import load_tuner
from hpcbench.worker.tuners.lora import cast_adapter, draw_alike

TUNER_WEIGHTS: Final = "tuner.safetensors"

logger = logging.getLogger(__name__)


class GpuNotFoundError(WorkerError):
    """A GPU was asked for and torch sees none; recorded as `GpuNotFound`."""

    type_name = "GpuNotFound"


def check_device(args: SftArgs, device: Device) -> None:
    """Raise where the device is not there or cannot compute in the dtype.

    Raises:
        GpuNotFoundError: `cuda` without a GPU.
        WorkerError: the dtype does not fit the device.
    """
    if device == "cuda":
        if not torch.cuda.is_available():
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            raise GpuNotFoundError(
                f"no GPU: torch {torch.__version__} sees none (CUDA_VISIBLE_DEVICES={visible!r})",
                hint="ask for a GPU in requirements, install a CUDA build of torch, or set device: cpu",
            )
        # Before Ampere bf16 is emulated: it runs, at a fraction of the speed, so torch's plain answer is too kind.
        if args.dtype == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise WorkerError(f"{torch.cuda.get_device_name()} cannot compute in bf16", hint="set dtype: fp16")
    elif args.dtype == "fp16":
        raise WorkerError("dtype: fp16 needs a GPU", hint="set dtype: bf16 or fp32 with device: cpu")


def load_tokenizer(args: SftArgs, folder: Path | None = None) -> Any:
    """Return the model's tokenizer, or that of a checkpoint folder.

    Raises:
        WorkerError: there is none.
    """
    from transformers import AutoTokenizer

    source = model_source(args) if folder is None else str(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=args.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, StrictDataclassError) as error:
        raise _not_loadable("tokenizer", source, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # GPT-2's and Llama's have no padding token
    tokenizer.padding_side = "right"
    return tokenizer


def load_model(
    args: SftArgs, device: Device, *, num_gpus: int = 1, for_training: bool = True, stays_on_host: bool = False
) -> Any:
    """Return the base model in its dtype on its device, or in host memory until something else moves it there.

    Raises:
        WorkerError: the model is not there or cannot run as asked.
    """
    check_device(args, device)
    source = model_source(args)
    # torch's GradScaler refuses to unscale gradients in fp16.
    keeps_fp32 = for_training and args.dtype == "fp16" and load_tuner(args.tuner).trains_in_model_dtype
    return _from_pretrained(
        args,
        source,
        device,
        dtype="fp32" if keeps_fp32 else args.dtype,
        num_gpus=num_gpus,
        stays_on_host=stays_on_host,
    )


def load_checkpoint(args: SftArgs, folder: Path, device: Device, *, merge: bool = False, num_gpus: int = 1) -> Any:
    """Return a finished checkpoint's model, in eval mode; an adapter goes on the base that `args` names.

    Raises:
        WorkerError: the checkpoint is not there or not readable.
    """
    check_device(args, device)
    if (folder / TUNER_CONFIG).is_file():
        if merge:
            raise WorkerError(
                f"{folder}: an adapter of this kind cannot be merged",
                hint="set eval_args.merge_lora: false for an eval; an export needs an adapter of peft's",
            )
        return rebuild_adapter(load_model(args, device, num_gpus=num_gpus, for_training=False), args, folder).eval()
    if (folder / PEFT_CONFIG).is_file():
        from peft import PeftModel

        if merge and args.is_peft_method and not args.merges:
            raise WorkerError(
                f"{folder}: what sft_type {args.sft_type} trains cannot be merged",
                hint="set eval_args.merge_lora: false",
            )
        base = load_model(args, device, num_gpus=num_gpus, for_training=False)
        if merge and any(map(is_packed, base.modules())):
            raise WorkerError(
                f"{folder}: an adapter cannot be merged into weights of few bits ({describe(base)})",
                hint="set eval_args.merge_lora: false for an eval; an export needs the model that was quantised",
            )
        if merge and args.quantization_bit:
            # Merged into quantised weights an adapter would be rounded away with them.
            base = base.dequantize(dtype=torch_dtype(args.dtype))
        if merge:
            _untie(base, folder)
        try:
            # A base that lacks the part which the adapter began with lacks the same here.
            with draw_alike(args.seed):
                model = PeftModel.from_pretrained(base, str(folder))
            if args.lora_dtype is not None:
                cast_adapter(model, args.lora_dtype)
        except (OSError, ValueError, RuntimeError) as error:
            misfit = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), None)
            raise WorkerError(
                f"{folder}: adapter cannot be loaded: {misfit or first_line(error)}",
                hint=None if misfit is None else f"it belongs to another base than {model_source(args)}: name that one",
            ) from error
        return (model.merge_and_unload() if merge else model).eval()
    if not (folder / "config.json").is_file():
        raise WorkerError(f"{folder}: not a checkpoint: it has no {PEFT_CONFIG}, {TUNER_CONFIG} or config.json")
    return _from_pretrained(args, str(folder), device, dtype=args.dtype, num_gpus=num_gpus).eval()


def _untie(base: Any, folder: Path) -> None:
    """Give the head a weight of its own where the adapter changes it or the embedding that it shares its weight with.

    Merged into the shared weight a change of the one would change the other.
    """
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    config = read_json(folder / PEFT_CONFIG) or {}
    # peft trains tokens of the embedding and of a head that is tied to it as one.
    if head is None or head.weight is not embedding.weight or config.get("peft_type") == "TRAINABLE_TOKENS":
        return
    words = config.get("target_modules") or []
    names = [name for name, module in base.named_modules() if module is embedding or module is head]
    if isinstance(words, str):
        is_changed = words != "all-linear" and any(re.fullmatch(words, name) for name in names)
    else:
        is_changed = any(f".{name}".endswith(f".{word}") for name in names for word in words)
    if is_changed:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        base.config.tie_word_embeddings = False


def _from_pretrained(
    args: SftArgs, source: str, device: Device, *, dtype: Dtype, num_gpus: int, stays_on_host: bool = False
) -> Any:
    options: dict[str, Any] = {"dtype": torch_dtype(dtype), "trust_remote_code": args.trust_remote_code}
    attention = choose_attention(args, device)
    if attention is not None:
        options["attn_implementation"] = attention
    quantization = quantization_config(args)
    held = _find_quantized(source)
    if held is not None:
        check_loadable(held, on_cpu=device == "cpu")
        quantization = quantization or trainable_kernel(held)
    show_gptqmodel_to_peft(needed=held is not None and held.form is not None and GPTQMODEL in held.form.modules)
    if quantization is not None:
        options["quantization_config"] = quantization
    if quantization is not None or held is not None:
        # Quantised while loaded, or packed for a kernel of its device: either has to be where the model stays.
        options["device_map"] = {"": torch.cuda.current_device() if device == "cuda" else "cpu"}
    if num_gpus > 1:
        # accelerate spreads the layers over all visible GPUs.
        options["device_map"] = "auto"
        if args.device_max_memory:
            options["max_memory"] = dict(enumerate(args.device_max_memory))
    if args.rope_scaling is not None:
        options["config"] = stretch_positions(args, source)
    model = _load_weights(source, args, options)
    media = next((key for key in MEDIA_KEYS if getattr(model.config, key, None) is not None), None)
    if media is not None and find_image_model(model.config.to_dict()) is None:
        raise WorkerError(
            f"model: {source} takes images or sound (`{media}` in its configuration), and is of no type that hpcbench "
            f"trains: {model.config.model_type}",
            hint=f"choose a text model, or one of {', '.join(IMAGE_MODELS)}",
        )
    if quantization is not None or held is not None:
        settle(model)
    elif num_gpus <= 1 and not stays_on_host:
        model.to(device)
    return model


def stretch_positions(args: SftArgs, source: str) -> Any:
    """Return a model's configuration with its rotary positions stretched as `rope_scaling` says.

    The factor is that of SWIFT 2.4: the length that is asked for over the model's, rounded up.

    Raises:
        WorkerError: the model has no rotary positions.
    """
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(source, trust_remote_code=args.trust_remote_code)
    rope, trained = getattr(config, "rope_parameters", None), getattr(config, "max_position_embeddings", None)
    if not rope or "rope_theta" not in rope or trained is None:
        raise WorkerError(
            f"rope_scaling: {source} has no rotary positions of one kind", hint="remove it, and lower max_length"
        )
    factor = max(1.0, math.ceil(args.max_length / trained))
    config.rope_parameters = {"rope_theta": rope["rope_theta"], "rope_type": args.rope_scaling, "factor": float(factor)}
    if args.rope_scaling == "yarn":
        config.rope_parameters["original_max_position_embeddings"] = trained
    logger.info("rope_scaling: %s, %g times the %d positions of %s", args.rope_scaling, factor, trained, source)
    return config


def _find_quantized(source: str) -> Quantized | None:
    """Return how the files of a model hold its weights, or None where they are plain or not here."""
    path = Path(source) if Path(source).is_absolute() else find_files(OnHub(hub="huggingface", id=source), os.environ)
    config = None if path is None else read_json(path / "config.json")
    return None if config is None else find_quantized(config)


def _load_weights(source: str, args: SftArgs, options: dict[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            # Of a configuration for weights that the folder holds quantised the kernel alone is read, as it shall be.
            warnings.filterwarnings("ignore", message="You passed `quantization_config` or equivalent")
            loaded: Any = _choose_class(source).from_pretrained(
                source, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except pickle.UnpicklingError as error:
        raise WorkerError(
            f"model: {source} cannot be loaded: its pytorch_model.bin holds more than tensors: {first_line(error)}",
            hint="convert it where you trust it: load it there and save_pretrained(FOLDER), which writes safetensors",
        ) from error
    except (OSError, ValueError, KeyError, ImportError, StrictDataclassError) as error:
        attention = options.pop("attn_implementation", None)
        if attention is None or not refuses_attention(error):
            raise _not_loadable("model", source, error) from error
        if args.attn_impl is not None:
            raise WorkerError(
                f"attn_impl: {source} cannot run {attention}: {first_line(error)}",
                hint="remove attn_impl to take what the model has",
            ) from error
        logger.info("%s has no %s", source, attention)
        return _load_weights(source, args, options)
    model, loading_info = loaded
    check_loading_info(loading_info, source)
    return model


def _choose_class(source: str) -> Any:
    """Return the class that loads a model: for those that read images another one than for text models."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig

    config, _ = PreTrainedConfig.get_config_dict(source)
    return AutoModelForCausalLM if find_image_model(config) is None else AutoModelForImageTextToText


def _not_loadable(what: str, source: str, error: Exception) -> WorkerError:
    path = Path(source)
    reason = first_line(error)
    if path.is_absolute() and not path.is_dir():
        return WorkerError(f"{what}: no such folder: {source}", hint="give model_id_or_path: a folder that jobs see")
    if "trust_remote_code" in str(error):
        return WorkerError(
            f"{what}: {source} brings Python code of its own, which runs only where you trust it",
            hint="set trust_remote_code: true",
        )
    if path.is_dir():
        return WorkerError(f"{what}: {source} cannot be loaded: {reason}")
    return WorkerError(
        f"{what} {source!r} is not in the local cache: {reason}",
        hint=f"run `{PREFETCH}` where there is internet, or give model_id_or_path: a local folder",
    )


def save_adapter(model: Any, args: SftArgs, folder: Path) -> None:
    """Write the trained weights and what rebuilds their modules."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    names = load_tuner(args.tuner).saved_arguments
    values = args.model_dump(mode="json", include=set(names))
    # Neither peft nor transformers can save these: method, arguments and trained weights rebuild them on their base.
    save_file(_trained(model), folder / TUNER_WEIGHTS)
    write_json(folder / TUNER_CONFIG, {"schema_version": 1, "tuner": args.tuner, "arguments": values})


def load_adapter_weights(model: Any, folder: Path) -> None:
    """Put saved weights into a model that is prepared already.

    Raises:
        WorkerError: they are not there, or belong to another model.
    """
    from safetensors.torch import load_file

    try:
        found = load_file(folder / TUNER_WEIGHTS)
    except (OSError, ValueError) as error:
        raise WorkerError(f"{folder}: adapter cannot be loaded: {error}") from error
    expected = {name: tensor.shape for name, tensor in _trained(model).items()}
    if expected != {name: tensor.shape for name, tensor in found.items()}:
        raise WorkerError(
            f"{folder}: its weights do not belong to this model", hint="load it on the base it was made of"
        )
    model.load_state_dict(found, strict=False)  # the frozen weights are not in it


def has_other_names(model: Any, folder: Path) -> bool:
    """Return whether a checkpoint of a whole model holds its weights under other names than the model has.

    transformers 5 saves Qwen2-VL, for example, under the names of its first release, and renames them when it loads.
    """
    if not any((folder / name).is_file() for name in WEIGHT_NAMES):
        return False
    return not read_weights(folder).names <= model.state_dict().keys()


def load_converted(model: Any, folder: Path) -> None:
    """Put a checkpoint's weights into its model, renamed as transformers does when it loads a model.

    The Trainer takes them by their names in the file, and goes on with the base's weights where none fits.
    """
    loaded = type(model).from_pretrained(str(folder), dtype="auto")
    model.load_state_dict(loaded.state_dict())


def rebuild_adapter(base: Any, args: SftArgs, folder: Path) -> Any:
    """Return the base with the folder's adapter on it.

    Raises:
        WorkerError: the folder is damaged or belongs to another base.
    """
    config = read_json(folder / TUNER_CONFIG)
    if config is None or not isinstance(config.get("arguments"), dict):
        raise WorkerError(f"{folder / TUNER_CONFIG}: not readable")
    tuner = load_tuner(str(config.get("tuner")))
    model = tuner.prepare(base, args.model_copy(update=config["arguments"]))
    load_adapter_weights(model, folder)
    return model


def _trained(model: Any) -> dict[str, Any]:
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
