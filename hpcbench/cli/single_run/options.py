"""The options of the verbs that run one job here and now, made from the fields of the arguments' models.

In: a verb. Out: its options, each with what it takes, its default and its help. Nothing is read and nothing is checked:
`typed_fields.py` and `aliases.py` do that, for suites and for these verbs alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel

from hpcbench.config.typed_fields import Kind, kinds_of
from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.schemas.request import Resources

Section = Literal["run", "suite", "requirements", "eval_args", "args"]

DEFAULT_OUTPUT_DIR = "output"
EVAL_PREFIX = "eval_"
GROUPS: Mapping[str, str] = {"model_type": "Model", "dataset": "Data", "seed": "Training", "sft_type": "Tuner"}
"""First argument of each group, in the order of `SftArgs` -> the group's title."""

_RESOURCES = ("gpu", "ddp", "cpus", "mem_gb")
_DEFAULTS: Mapping[str, str] = {"gpu": "1 with a GPU, else 0", "cpus": "cores shared out"}
"""Defaults that depend on the machine."""
_HELP: Mapping[str, str] = {
    "gpu": "GPUs in all; with --ddp one per rank.",
    "cpus": "CPU cores of the job.",
    "mem_gb": "Host memory in GiB; written down for a scheduler, not enforced here.",
    "dataset_info": "Registry of datasets (dataset_info.json) that names are looked up in; null takes this folder's.",
}
"""What a suite's help says differently."""
_ONLY_IN_SUITES = frozenset({"command"})
"""Eval arguments that make no sense here: a program of one's own is not one of these verbs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb that runs a job here and now."""

    name: Literal["sft", "eval"]
    summary: str
    example: str
    defaults: Mapping[str, str]
    """Arguments that the seed documents give a value where a suite has none."""
    default_model: str
    """Taken where no argument names a model."""
    hidden: frozenset[str] = frozenset()
    """Groups that its help leaves out: arguments that are taken and change nothing."""
    folder_prefix: str | None = None
    """What a run is called before its version number; None is the tuner's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option."""

    name: str
    section: Section
    key: str
    """Its name in the suite's section."""
    kind: Kind
    default: str
    help: str
    group: str


_SYSTEM = "you are a helpful assistant!"

SFT = Verb(
    name="sft",
    summary="Fine-tune one model here and now, without a queue; Ctrl-C stops it with a checkpoint.",
    example="hpcbench sft --model_id_or_path ./Qwen3-0.6B --dataset train.jsonl --sft_type lora --lora_rank 16",
    # The defaults of the seed's `sft.sh`.
    defaults={"dataset": "blossom-math-zh", "system": _SYSTEM},
    default_model="qwen-7b-chat",
)
EVAL = Verb(
    name="eval",
    summary="Evaluate one model, untrained or with a checkpoint of hpcbench sft, here and now, without a queue.",
    example="hpcbench eval --model_id_or_path ./Qwen3-0.6B --eval_dataset arc --eval_limit 50",
    # The defaults of the seed's `infer.sh`; the same system prompt as in training makes rows comparable.
    defaults={"system": _SYSTEM},
    default_model="qwen-7b-chat",
    hidden=frozenset({"Training", "Tuner"}),
    folder_prefix="base",
)


@dataclass(frozen=True, slots=True)
class _Own:
    """An option of the verb itself."""

    section: Section
    kind: Kind
    default: str
    help: str
    verbs: frozenset[str] = field(default=frozenset({"sft", "eval"}))


_OWN: Mapping[str, _Own] = {
    "name": _Own(
        "run",
        Kind(str),
        "the next version",
        "Name of this run. The same name again resumes what was interrupted, and runs nothing twice.",
    ),
    "output_dir": _Own(
        "run",
        Kind(str),
        DEFAULT_OUTPUT_DIR,
        "Folder for results: <output_dir>/<model>/<name>/train/checkpoints and so on. Also --save_dir; where neither is"
        " given, HPCBENCH_SAVE_DIR if it is set.",
    ),
    "ckpt_dir": _Own(
        "run",
        Kind(str),
        "none",
        "Folder of a checkpoint that hpcbench sft made: it is evaluated instead of an untrained model.",
        frozenset({"eval"}),
    ),
    "force": _Own("run", Kind(bool), "false", "Run a name again with other arguments; the old record is kept."),
    "device": _Own("suite", Kind(None, choices=("cuda", "cpu")), "cuda with a GPU, else cpu", "Where the job runs."),
    "eval_dataset": _Own(
        "suite",
        Kind(tuple),
        "none",
        "What the model is evaluated on: lm-eval tasks or groups, or the original's names.",
    ),
}


@cache
def options_of(verb: str) -> Mapping[str, Option]:
    """Return the options of a verb by name, in the order of its help."""
    found = [
        *(
            Option(
                name=name, section=own.section, key=name, kind=own.kind, default=own.default, help=own.help, group="Run"
            )
            for name, own in _OWN.items()
            if verb in own.verbs
        ),
        *_from_model(Resources, _RESOURCES, section="requirements", group="Run"),
        *_training_options(verb),
        *_eval_options(verb),
    ]
    return {option.name: option for option in found}


def _training_options(verb: str) -> Iterator[Option]:
    defaults = VERBS[verb].defaults
    group = ""
    for option in _from_model(SftArgs, tuple(SftArgs.model_fields), section="args", group=""):
        group = GROUPS.get(option.name, group)
        default = defaults.get(option.name, option.default)
        if option.name == "model_type":
            default = f"{VERBS[verb].default_model}, where no model is named"
        yield _with(option, group=group, default=default)


def _eval_options(verb: str) -> Iterator[Option]:
    """Yield `eval_...` for each argument of an evaluation that a training has no argument of that name for."""
    for option in _from_model(EvalArgs, tuple(EvalArgs.model_fields), section="eval_args", group="Evaluation"):
        name = EVAL_PREFIX + option.key.removeprefix(EVAL_PREFIX)
        is_taken = name in SftArgs.model_fields and verb == "sft"
        is_for_baselines = option.key == "eval_loss" and verb == "sft"
        if option.key not in _ONLY_IN_SUITES and not is_taken and not is_for_baselines:
            yield _with(option, name=name)


def _from_model(model: type[BaseModel], names: tuple[str, ...], *, section: Section, group: str) -> Iterator[Option]:
    kinds = kinds_of(model)
    for name in names:
        info = model.model_fields[name]
        yield Option(
            name=name,
            section=section,
            key=name,
            kind=kinds[name],
            default=_DEFAULTS.get(name, show_default(info.get_default(call_default_factory=True, validated_data={}))),
            help=_HELP.get(name, re.sub(r"\bNone\b", "null", info.description or "")),
            group=group,
        )


def show_default(value: Any) -> str:
    """Return a default as a person would type it; `null` is what the help's text says of None."""
    if isinstance(value, tuple | dict):
        return ",".join(value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _with(option: Option, **changes: str) -> Option:
    return replace(option, **changes)  # type: ignore[arg-type]  # names of text fields


VERBS: Mapping[str, Verb] = {verb.name: verb for verb in (SFT, EVAL)}
