"""A model's files, checked before it is loaded as plan checks them, and after for what only torch knows.

In: the training arguments, a loaded model. Out: nothing, or the reason why this model cannot do it. It changes nothing.
"""

from __future__ import annotations

import os
from typing import Any

from hpcbench.errors import WorkerError, name_first
from hpcbench.hub.models import find_files
from hpcbench.model_files.checks import (
    check_eval_length,
    check_model,
    count_embedding_rows,
    count_positions,
    too_long,
)
from hpcbench.model_files.fault import Fault
from hpcbench.model_files.folder import ModelFolder, read_model_folder
from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.worker.models.source import model_place


def read_files(args: SftArgs) -> ModelFolder | None:
    """Return what the files of a model say, or None where it is not here.

    Raises:
        ModelFileError: one of them is missing or cannot be used.
        WorkerError: the arguments name no model that can be loaded.
    """
    place = model_place(args)
    folder = find_files(place, os.environ)
    # What is not there, loading says.
    return None if folder is None else read_model_folder(folder, name=str(place))


def check_files(args: SftArgs, *, eval_args: EvalArgs | None = None) -> None:
    """Raise where the files of a model contradict the request; with `eval_args` it is only evaluated.

    Raises:
        WorkerError: they do, or one of them is missing or cannot be used.
    """
    model = read_files(args)
    if model is None:
        return
    # A training renders each of its rows, and says then what a template does to them.
    is_eval = eval_args is not None
    faults = check_model(args, model, trains=not is_eval, has_chats=is_eval)
    if eval_args is not None and (fault := check_eval_length(eval_args.max_length, model)) is not None:
        faults.append(fault)
    if faults:
        raise error_of(faults[0])


def error_of(fault: Fault) -> WorkerError:
    """Return a fault as a job ends with it."""
    expected = None if fault.expected is None else f"expected: {fault.expected}"
    return WorkerError(f"{fault.argument}: {fault.message}", hint=fault.hint or expected)


def check_loaded(args: SftArgs, model: Any, tokenizer: Any) -> None:
    """Raise where a loaded model has fewer positions or embeddings than training or its tokenizer needs.

    Raises:
        WorkerError: with both numbers.
    """
    limit = count_positions(model.config.to_dict(), [name for name, _ in model.named_parameters()])
    if limit is not None and args.max_length > limit:
        raise error_of(too_long(f"max_length {args.max_length}", limit, "this model"))
    check_token_ids(model, tokenizer)


def check_token_ids(model: Any, tokenizer: Any) -> None:
    """Raise where the model has no embedding for a token that ends answers or fills up rows.

    Raises:
        WorkerError: with both numbers.
    """
    num_rows = int(model.get_input_embeddings().weight.shape[0])
    for name in ("eos_token", "pad_token"):
        id_ = getattr(tokenizer, f"{name}_id")
        if id_ is not None and id_ >= num_rows:
            raise WorkerError(
                f"the tokenizer's {name} {getattr(tokenizer, name)!r} has the id {id_}, and the model's embedding has "
                f"{num_rows} rows, for ids up to {num_rows - 1}",
                hint=f"name another {name} in the folder's tokenizer_config.json, or add a row to the model",
            )


def check_loading_info(info: dict[str, Any], source: str) -> None:
    """Raise where transformers would make up weights that the files do not hold, or hold in another shape.

    Raises:
        WorkerError: it would.
    """
    mismatched = sorted(info.get("mismatched_keys") or ())
    if mismatched:
        name, saved, wanted = mismatched[0]
        raise WorkerError(
            f"model: {len(mismatched)} of the weights of {source} have another shape than its config.json says: "
            f"{name} is {tuple(saved)} and should be {tuple(wanted)}",
            hint="download the model again, or correct its config.json",
        )
    missing = sorted(info.get("missing_keys") or ())
    if missing:
        raise WorkerError(
            f"model: {source} lacks {len(missing)} of the model's weights, which would be random: "
            f"{name_first(missing)}",
            hint="download the model again, or choose one with a head that predicts the next token",
        )


def count_embeddings(args: SftArgs) -> int | None:
    """Return for how many ids the model has an embedding, or None where its files do not say."""
    model = read_files(args)
    return None if model is None else count_embedding_rows(model)
