"""`cmd: export` before it waits in a queue: what its checkpoint says of the model, and what cannot be exported.

In: the arguments of an experiment and where each was written. Out: the arguments that its checkpoint fills in, problems
with file and line. What the model's own files say against an export is `model_files`' business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hpcbench.catalog.peft_methods import peft_methods
from hpcbench.config.checkpoint_arguments import CKPT_DIR, MODEL_NAMES, name_model, open_checkpoint, take_arguments
from hpcbench.config.ckpt_from import INHERITED
from hpcbench.errors import Problem
from hpcbench.hub.models import locate_model
from hpcbench.model_files.adapters import find_other_base, read_checkpoint_folder
from hpcbench.schemas.arguments import DataArgs, ExportArgs, HubArgs, ModelArgs, SftArgs
from hpcbench.storage.json_files import read_json
from hpcbench.storage.located_yaml import Located
from hpcbench.storage.paths import PEFT_CONFIG

_READ: Final = frozenset(
    {*ModelArgs.model_fields, *DataArgs.model_fields, *ExportArgs.model_fields, "seed", "sft_type", "tuner_backend"}
)
"""Arguments that an export reads, and those that SWIFT's scripts name beside."""
MERGED_BY: Final = "an adapter of a method that peft merges, such as lora"
NOT_MERGED_HINT: Final = "evaluate the adapter on its base, without an export"


def fill_in_model(given: Mapping[str, Located], problems: list[Problem]) -> dict[str, Located]:
    """Return the arguments with what the checkpoint says of its model where they leave it open."""
    filled, where = dict(given), given.get(CKPT_DIR)
    if where is None or not isinstance(where.value, str):
        return filled
    checkpoint = open_checkpoint(Path(where.value), where, problems)
    if checkpoint is None:
        return filled
    if (trained := checkpoint.training) is not None:
        take_arguments(filled, trained, INHERITED, where)
    name_model(filled, checkpoint, problems)
    return filled


def check_export_request(
    export: ExportArgs, args: SftArgs, given: Mapping[str, Located], *, at: Located, num_rows: int | None
) -> list[Problem]:
    """Return what cannot be exported as asked; `num_rows` of the dataset are known to be there to calibrate on."""
    return _check_checkpoint(export, args, given, at) + _check_calibration(export, args, given, at, num_rows)


def _check_checkpoint(export: ExportArgs, args: SftArgs, given: Mapping[str, Located], at: Located) -> list[Problem]:
    """Return what the folder in `ckpt_dir` says against it: an adapter of another base, or nothing to merge."""
    folder = None if export.ckpt_dir is None else Path(export.ckpt_dir)
    found = None if folder is None else read_checkpoint_folder(folder)
    if folder is None or found is None:
        return []
    where = given.get("merge_lora", given.get(CKPT_DIR, at))
    if found.kind == "model":
        if export.merge_lora:
            return [where.problem(f"`merge_lora`: {folder} is a whole model and holds no adapter", hint="remove it")]
        if not export.quant_bits:
            message = f"nothing to export: {folder} is a whole model, and quant_bits is 0"
            return [where.problem(message, hint="set quant_bits: 4")]
        return []
    if export.merge_lora is False:
        message = f"`merge_lora: false`, and {folder} is an adapter, which cannot be quantised by itself"
        return [where.problem(message, expected="merge_lora: true")]
    problems = []
    if (method := find_unmerged(folder)) is not None:
        message = f"{folder} is an adapter of {method}, which cannot be merged"
        problems.append(where.problem(message, expected=MERGED_BY, hint=NOT_MERGED_HINT))
    if (other := find_other_base(found, locate_model(args, os.environ))) is not None:
        named = next((given[name] for name in MODEL_NAMES if name in given), at)
        problems.append(named.problem(f"{folder} {other.message}", expected=other.expected, hint=other.hint))
    return problems


def find_unmerged(folder: Path) -> str | None:
    """Return the method of an adapter that cannot be merged into its base; None where it can, or is not known."""
    if not (folder / PEFT_CONFIG).is_file():
        return "a method that is not peft's"
    name = str((read_json(folder / PEFT_CONFIG) or {}).get("peft_type", "")).lower()
    method = peft_methods().get(name)
    return name if method is not None and not method.merges else None


def _check_calibration(
    export: ExportArgs, args: SftArgs, given: Mapping[str, Located], at: Located, num_rows: int | None
) -> list[Problem]:
    if export.calibrates and not args.dataset:
        where = given.get("quant_bits", at)
        message = f"`quant_method: {export.quant_method}` calibrates on rows, and there is no dataset"
        return [where.problem(message, expected="`args.dataset`", hint="args: {dataset: train.jsonl}")]
    if export.calibrates and num_rows is not None and num_rows < export.quant_n_samples:
        where = given.get("quant_n_samples", given.get("dataset", at))
        message = f"{export.quant_n_samples} rows to calibrate on, and {', '.join(args.dataset)} has {num_rows}"
        hint = f"args: {{quant_n_samples: {num_rows}}}, or name more data in dataset"
        return [where.problem(message, expected=f"quant_n_samples of {num_rows} at most", hint=hint)]
    return []


def find_unread(args: SftArgs, given: Mapping[str, Located]) -> Iterator[Problem]:
    """Yield what an experiment names for itself and only a training reads; what all share is for others."""
    for name, value in given.items():
        if name not in SftArgs.model_fields or name in _READ or not args.differs_from_default(name):
            continue
        if value.source in {"experiment", "matrix"}:
            hint = "remove it here"
            if name in HubArgs.model_fields:
                hint = "push the finished folder yourself: `hf upload OWNER/NAME FOLDER`"
            yield value.problem(f"`{name}` has no effect", expected="a training", hint=hint)
