"""Requests that a model cannot carry out, found in its files: by plan before anything is queued, by the job once more.

In: training arguments and a model's folder. Out: faults, each at the argument that it contradicts (pure). What files do
not say, such as the names of modules in a pickled file, is left to the job.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from hpcbench.errors import name_first
from hpcbench.model_files.architectures import unknown_to
from hpcbench.model_files.chat_template import find_fault
from hpcbench.model_files.fault import Fault
from hpcbench.model_files.folder import ModelFolder
from hpcbench.model_files.image_checks import check_images
from hpcbench.model_files.image_models import IMAGE_MODELS, find_image_model
from hpcbench.model_files.modules import DEFAULT as DEFAULT_GROUP
from hpcbench.model_files.modules import (
    GROUP_WORDS,
    find_unmatched,
    find_unsaved,
    has_experts,
    last_parts,
    module_names,
    with_matrices,
)
from hpcbench.model_files.peft_sizes import find_misfits
from hpcbench.model_files.quantized import find_quantized
from hpcbench.model_files.quantized_checks import check_quantized
from hpcbench.model_files.tokenizer import DEFAULT
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.located_yaml import shorten

_MODEL: Final = "model_id_or_path"

MEDIA_KEYS: Final = ("vision_config", "visual", "audio_config", "speech_config")
"""Parts of a configuration that only models of images or sound have (`visual` is Qwen-VL's); a text model's may hold
one of the keys with null."""
POSITION_TABLES: Final = (
    "wpe.weight",
    "embed_positions.weight",
    "position_embeddings.weight",
    "positions_embed.weight",
)
"""Tensors that hold a vector per position."""
FIXED_POSITIONS: Final = frozenset(
    {"biogpt", "codegen", "ctrl", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "mpt", "openai-gpt", "opt"}
)
"""Types of models with such a table, saved or computed: forward passes beyond it fail. Rotary and Alibi models have
none and go beyond their `max_position_embeddings` without an error."""
_POSITION_KEYS: Final = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
_LAYER_KEYS: Final = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_EMBEDDINGS: Final = (
    *("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight"),
    *("tok_embeddings.weight", "tokens_embed.weight"),
)
_VOCABULARY_KEYS: Final = ("vocab_size", "n_vocab")

_OTHER_HEADS: Final = (
    *("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForPreTraining"),
    *("ForMultipleChoice", "ForNextSentencePrediction", "ForImageClassification", "ForSpeechSeq2Seq", "ForCTC"),
    *("EncoderModel", "ForRewardModel", "ForSequenceEmbedding"),
)
"""Ends of architectures' names whose weights have no head that predicts the next token."""
_REMOTE_CLASSES: Final = ("AutoModelForCausalLM", "AutoModel")


def check_model(args: SftArgs, model: ModelFolder, *, trains: bool, has_chats: bool = True) -> list[Fault]:
    """Return what the model cannot do of what the arguments ask for.

    Args:
        args: of the experiment.
        model: its folder.
        trains: False where the model is only evaluated.
        has_chats: False where the chat template is not used, as for plain text, or where each row will be tried.
    """
    found = [
        *_check_architecture(model),
        *_check_code(args, model),
        *_check_vocabulary(model),
        *check_quantized(args, model, trains=trains),
        *_check_token_ids(model),
        *check_images(args, model, trains=trains),
    ]
    if has_chats:
        found += _check_templates(args, model)
    if has_chats and trains and not found:
        found += _try_template(args, model)
    if trains and not found:
        found += [
            *_check_length(args, model),
            *_check_qalora(args, model),
            *_check_targets(args, model),
            *_check_layers(args, model),
        ]
    return found


def check_eval_length(max_length: int | None, model: ModelFolder) -> Fault | None:
    """Return why prompts and answers of so many tokens cannot be evaluated, or None."""
    limit = count_positions(model.config, model.weights.names)
    if max_length is None or limit is None or max_length <= limit:
        return None
    return too_long(f"max_length {max_length}", limit, model.name)


def count_positions(config: Mapping[str, Any], tensors: Iterable[str]) -> int | None:
    """Return how many tokens fit into the model's table of positions, or None where it has none."""
    text = text_config(config)
    has_table = text.get("model_type") in FIXED_POSITIONS or any(name.endswith(POSITION_TABLES) for name in tensors)
    # BLOOM's size is in its config, and Falcon's too, with Alibi.
    return _first_count(text, _POSITION_KEYS) if has_table else None


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that is the language model's."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def count_layers(config: Mapping[str, Any]) -> int | None:
    """Return how many decoder layers a configuration names, or None."""
    return _first_count(text_config(config), _LAYER_KEYS)


def block_fault(num_layers: int, num_new: int, num_groups: int | None) -> str | None:
    """Return why LLaMA Pro's new blocks do not fit between the layers, or None."""
    groups = num_groups or num_new
    if num_new % groups == 0 and groups <= num_layers:
        return None
    return f"llamapro_num_new_blocks: {num_new} blocks in {groups} groups do not fit into {num_layers} layers"


def _check_architecture(model: ModelFolder) -> Iterator[Fault]:
    config = model.config
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    media = next((key for key in MEDIA_KEYS if isinstance(config.get(key), dict)), None)
    if media is not None and find_image_model(config) is None:
        message = f"{model.name} takes images or sound (`{media}` in its config.json), and is of another type"
        expected = f"a text model, or an image model of type {', '.join(IMAGE_MODELS)}"
        yield Fault(argument=_MODEL, message=message, expected=expected)
    elif names and all(name.endswith(_OTHER_HEADS) for name in names):
        message = f"{model.name} is a {', '.join(names)}, which has no head that predicts the next token"
        yield Fault(argument=_MODEL, message=message, expected="a causal language model")
    elif config.get("is_encoder_decoder") is True:
        message = f"{model.name} has an encoder and a decoder (`is_encoder_decoder` in its config.json)"
        yield Fault(argument=_MODEL, message=message, expected="a decoder-only language model")
    elif config.get("model_type") is None and not _has_remote_code(config):
        message = f"{model.name}: its config.json has no model_type, by which transformers finds the model's code"
        yield Fault(argument=_MODEL, message=message, expected="the config.json of a transformers model")


def _check_code(args: SftArgs, model: ModelFolder) -> Iterator[Fault]:
    model_type = model.config.get("model_type")
    if not isinstance(model_type, str) or (library := unknown_to(model_type)) is None:
        return
    if not _has_remote_code(model.config):
        message = f"{model.name}: {library} has no code for a causal language model of type {shorten(model_type)!r}"
        yield Fault(argument=_MODEL, message=message, hint="install a transformers that has it, or take another model")
    elif not args.trust_remote_code:
        message = f"{model.name}: its Python code comes with its weights, and runs only where you trust it"
        hint = "args: {trust_remote_code: true}, if you trust its folder"
        yield Fault(argument=_MODEL, message=message, expected="trust_remote_code: true", hint=hint)


def _check_vocabulary(model: ModelFolder) -> Iterator[Fault]:
    named, saved = _first_count(text_config(model.config), _VOCABULARY_KEYS), _saved_rows(model)
    if named is not None and saved is not None and named != saved and not _has_remote_code(model.config):
        message = f"{model.name}: its embedding has {saved} rows, and its config.json says {named} (vocab_size)"
        yield Fault(argument=_MODEL, message=message, expected="the config.json of these weights")


def _has_remote_code(config: Mapping[str, Any]) -> bool:
    auto_map = config.get("auto_map")
    return isinstance(auto_map, dict) and any(name in auto_map for name in _REMOTE_CLASSES)


def _check_token_ids(model: ModelFolder) -> Iterator[Fault]:
    rows = count_embedding_rows(model)
    if rows is None:
        return
    for name, id_ in model.tokenizer.ids.items():
        if id_ >= rows:
            text = model.tokenizer.tokens[name]
            more = " or a higher one" if name in model.tokenizer.added else ""
            message = (
                f"{model.name}: the tokenizer's {name} {text!r} has the id {id_}{more}, and the model's "
                f"embedding has {rows} rows, for ids up to {rows - 1}"
            )
            hint = f"name another {name} in the folder's tokenizer_config.json, or add a row to the model and save it"
            yield Fault(argument=_MODEL, message=message, hint=hint)


def count_embedding_rows(model: ModelFolder) -> int | None:
    """Return for how many ids the model has an embedding, or None where its files do not say."""
    saved = _saved_rows(model)
    return _first_count(text_config(model.config), _VOCABULARY_KEYS) if saved is None else saved


def _saved_rows(model: ModelFolder) -> int | None:
    return next(
        (shape[0] for name, shape in model.weights.shapes.items() if name.endswith(_EMBEDDINGS) and shape), None
    )


def _check_templates(args: SftArgs, model: ModelFolder) -> Iterator[Fault]:
    templates = model.tokenizer.templates or {}
    if args.template_type is None and templates and not templates.keys() & {DEFAULT, "tool_use"}:
        names = ", ".join(sorted(templates))
        message = f"{model.name}: of its tokenizer's chat templates ({names}) none is named default"
        yield Fault(argument="template_type", message=message, hint="set template_type to a template of the catalog")


def _try_template(args: SftArgs, model: ModelFolder) -> Iterator[Fault]:
    tokenizer = model.tokenizer
    template = (tokenizer.templates or {}).get(DEFAULT)
    if args.template_type is not None or template is None:
        return
    has_parts = find_image_model(model.config) is not None
    if fault := find_fault(template, system=args.system, tokens=tokenizer.tokens, has_parts=has_parts):
        argument, message, hint = fault
        yield Fault(argument=argument, message=f"{model.name}: {message}", hint=hint)


def _check_length(args: SftArgs, model: ModelFolder) -> Iterator[Fault]:
    limit = count_positions(model.config, model.weights.names)
    if limit is None:
        return
    if args.max_length > limit:
        yield too_long(f"max_length {args.max_length}", limit, model.name)
    elif args.predict_with_generate and args.max_length + args.max_new_tokens > limit:
        asked = f"max_length {args.max_length} and max_new_tokens {args.max_new_tokens} together"
        yield too_long(asked, limit, model.name)


def too_long(asked: str, limit: int, model: str) -> Fault:
    """Return the fault of a length that the table of positions does not have."""
    message = f"{asked}: more than the {limit} positions of {model}, which fails on longer texts"
    return Fault(argument="max_length", message=message, expected=f"{limit} at most")


_GROUPS: Final = {"lora_target_modules": GROUP_WORDS, "ia3_target_modules": frozenset({DEFAULT_GROUP})}
"""Words for several modules that an argument takes."""


def _check_targets(args: SftArgs, model: ModelFolder) -> Iterator[Fault]:
    tensors = model.weights.names
    # When it loads them transformers puts the experts' tensors together, and code from a folder does what it likes.
    if not tensors or has_experts(tensors) or _has_remote_code(model.config):
        return
    names = module_names(tensors) | {"lm_head"}  # a tied head has no tensor
    matrices = with_matrices(tensors, model.weights.shapes)
    layers = {name.rpartition(".")[0] for name in matrices} | {"lm_head"}
    yield from _check_patterns(args, model, layers)
    for field, message, expected in find_misfits(args, model):
        argument = field if field == "sft_type" else "peft_config"
        yield Fault(argument=argument, message=message, expected=expected)
    for argument in target_arguments(args):
        words = getattr(args, argument)
        if argument == "lora_modules_to_save":
            unmatched, known = find_unsaved(words, names), last_parts(tensors)
        else:
            unmatched = find_unmatched(words, layers, groups=_GROUPS.get(argument, frozenset()))
            known = last_parts(matrices)
        if unmatched:
            message = f"{model.name} has no module named {name_first(unmatched)}"
            if argument != "lora_modules_to_save" and not find_unmatched(unmatched, names):
                message = f"{model.name} has no matrix in a module named {name_first(unmatched)}"
            yield Fault(argument=argument, message=message, expected=name_first(known, 20))


def target_arguments(args: SftArgs) -> tuple[str, ...]:
    """Return the arguments that name modules for the method."""
    own = {
        "ia3": ("ia3_target_modules", "ia3_feedforward_modules"),
        "galore": ("galore_target_modules",),
    }.get(args.tuner, ())
    targets = ("lora_target_modules",) if args.takes_targets and args.target_regex is None else ()
    return (*own, *targets, *(("lora_modules_to_save",) if args.saves_modules else ()))


def _check_qalora(args: SftArgs, model: ModelFolder) -> Iterator[Fault]:
    held = find_quantized(model.config)
    if args.use_qalora and (held is None or held.method != "gptq"):
        message = f"{model.name} does not hold GPTQ's weights, which qalora goes with"
        hint = "`cmd: export` with quant_method: gptq makes such a model"
        yield Fault(argument="use_qalora", message=message, expected="use_qalora: false", hint=hint)


def _check_patterns(args: SftArgs, model: ModelFolder, layers: Collection[str]) -> Iterator[Fault]:
    """Yield what names no module or weight, of the arguments that name them in other ways than by their ends."""
    pattern = args.target_regex
    if pattern is not None and args.takes_targets and not any(re.fullmatch(pattern, name) for name in layers):
        hint = "it must match the whole name, such as model.layers.0.self_attn.q_proj: begin it with .*"
        message = f"{model.name} has no module whose full name matches {pattern!r}"
        yield Fault(argument="target_regex", message=message, hint=hint)
    if args.tuner not in {"full", "galore"}:
        return
    tensors = model.weights.names
    for argument in ("freeze_parameters", "trainable_parameters"):
        unmatched = [word for word in getattr(args, argument) if not any(name.startswith(word) for name in tensors)]
        if unmatched:
            known = sorted({".".join(name.split(".")[:2]) for name in tensors})
            message = f"{model.name} has no weight whose name begins with {name_first(unmatched)}"
            yield Fault(argument=argument, message=message, expected=f"the beginning of a name: {name_first(known)}")
        regex = getattr(args, f"{argument}_regex")
        if regex is not None and not any(re.search(regex, name) for name in tensors):
            message = f"{model.name} has no weight whose name matches {regex!r}"
            yield Fault(argument=f"{argument}_regex", message=message, expected=name_first(last_parts(tensors), 20))


def _check_layers(args: SftArgs, model: ModelFolder) -> Iterator[Fault]:
    num_layers = count_layers(model.config)
    if num_layers is None:
        return
    if args.lisa_activated_layers > num_layers:
        message = f"lisa_activated_layers: {args.lisa_activated_layers} of the {num_layers} layers of {model.name}"
        yield Fault(argument="lisa_activated_layers", message=message, expected=f"{num_layers} at most")
    if args.sft_type == "llamapro":
        message = block_fault(num_layers, args.llamapro_num_new_blocks, args.llamapro_num_groups) or ""
        if message:
            hint = "the groups must divide the blocks and be no more than the layers"
            yield Fault(argument="llamapro_num_new_blocks", message=message, hint=hint)


def _first_count(config: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    return next((config[key] for key in keys if isinstance(config.get(key), int)), None)
