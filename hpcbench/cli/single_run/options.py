"""The options of the verbs that run one job on this machine, made from the fields of the models that they fill.

Nothing is read or checked: `config/typed_fields.py` and `config/aliases.py` do that, for suites and these verbs alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hpcbench.config.ckpt_from import INHERITED
from hpcbench.config.infer_checks import READ_ARGUMENTS
from hpcbench.config.typed_fields import Kind, kinds_of
from hpcbench.plan.fingerprint import ARGS_OF_CALIBRATION
from hpcbench.schemas.arguments import EvalArgs, ExportArgs, InferArgs, SftArgs, TrainingArgs
from hpcbench.schemas.request import Command, Resources

Section = Literal["run", "suite", "requirements", "eval_args", "args"]

DEFAULT_OUTPUT_DIR = "output"
EVAL_PREFIX = "eval_"

_RESOURCES = ("gpu", "ddp", "cpus", "mem_gb")
_DEFAULTS: Mapping[str, str] = {
    "gpu": "1 with a GPU, else 0",
    "cpus": "cores shared out",
    "device": "cuda with a GPU, else cpu",
    "name": "the next version",
    "ckpt_dir": "none",
}
"""Defaults that depend on the machine or on what is there."""
_HELP: Mapping[str, str] = {
    "gpu": "GPUs in all; with --ddp one per rank.",
    "cpus": "CPU cores of the job.",
    "mem_gb": "Host memory in GiB; written down for a scheduler, not enforced here.",
    "dataset_info": "Registry of datasets (dataset_info.json) that names are looked up in; null takes this folder's.",
}
"""Help that differs from a suite's."""
_EXPORT_HELP: Mapping[str, str] = {
    "ckpt_dir": "Checkpoint folder to export: an adapter or a whole model, of any tool; null is the model itself.",
    "output_dir": "Folder to write the model to, which must not exist yet; null is in the folder of the run.",
}
_INFER_DEFAULTS: Mapping[str, str] = {
    "eval_human": "true without a dataset",
    "show_dataset_sample": "20, or all of val_dataset",
}
_LEFT_OUT: Mapping[str, frozenset[str]] = {
    # A program of yours is not one of these verbs; eval_loss is for rows that no training computes it for.
    # One task under several names is for suites.
    "sft": frozenset({"ckpt_dir", "eval_command", "eval_loss", "eval_task"}),
    "eval": frozenset({"eval_command", "eval_task"}),
    # What follows a training of the same suite is for suites.
    "infer": frozenset({"eval_dataset", "ckpt_from", "checkpoint"}),
    "export-model": frozenset({"eval_dataset", "ckpt_from", "checkpoint"}),
}


class RunOptions(BaseModel):
    """Options of the run itself, which no suite has."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str | None = None
    """Name of this run. The same name again resumes what was interrupted, and runs nothing twice."""
    output_dir: str = DEFAULT_OUTPUT_DIR
    """Folder for results: <output_dir>/<model>/<name>/train/checkpoints and so on. Also --save_dir; where neither is
    given, HPCBENCH_SAVE_DIR if it is set."""
    ckpt_dir: str | None = None
    """Folder of a checkpoint that hpcbench sft made: it is evaluated instead of an untrained model."""
    force: bool = False
    """Run a name again with other arguments; the old record is kept."""


class ResultsOption(BaseModel):
    """The option for results of a verb whose output_dir is an argument of ms-swift's."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    save_dir: str = DEFAULT_OUTPUT_DIR
    """Folder for records and logs, and for the model without --output_dir: <save_dir>/<model>/<name>/export. Where it
    is not given, HPCBENCH_SAVE_DIR if it is set."""


class _ExperimentOptions(BaseModel):
    """Options that are keys of an experiment, beside its sections."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    device: Literal["cuda", "cpu"] | None = None
    """Where the job runs."""
    eval_dataset: tuple[str, ...] = ()
    """What the model is evaluated on: lm-eval tasks or groups, or ms-swift's names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb that runs a job on this machine."""

    name: Literal["sft", "infer", "eval", "export-model"]
    cmd: Command
    """The command of its experiment."""
    defaults: Mapping[str, str]
    """Arguments that ms-swift's scripts give a value where a suite has none."""
    default_model: str | None
    """Taken where no argument names a model; None where one must be named."""
    hidden: frozenset[str] = frozenset()
    """Groups that it has no options for: what only a training takes."""
    folder_prefix: str | None = None
    """What a run is called before its version number; None is the tuner's name."""
    results_option: Literal["output_dir", "save_dir"] = "output_dir"
    """The option that says where results go."""
    has_own_checkpoint: bool = False
    """Whether ckpt_dir is an argument of its command: a checkpoint of any tool, which names its model."""


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

# The defaults of ms-swift's sft.sh and infer.sh; one system prompt makes trained and untrained rows comparable.
SFT = Verb(
    name="sft",
    cmd="sft",
    defaults={"dataset": "blossom-math-zh", "system": _SYSTEM},
    default_model="qwen2.5-7b-instruct",
    hidden=frozenset({"Preference"}),
)
INFER = Verb(
    name="infer",
    cmd="infer",
    defaults={"system": _SYSTEM, "dataset": "blossom-math-zh"},
    default_model="qwen2.5-7b-instruct",
    folder_prefix="infer",
    has_own_checkpoint=True,
)
EVAL = Verb(
    name="eval",
    cmd="eval",
    defaults={"system": _SYSTEM},
    default_model="qwen2.5-7b-instruct",
    hidden=frozenset({"Training", "Hub", "Tuner", "Preference"}),
    folder_prefix="base",
)
EXPORT_MODEL = Verb(
    name="export-model",
    cmd="export",
    defaults={},
    default_model=None,
    folder_prefix="export",
    results_option="save_dir",
    has_own_checkpoint=True,
)
VERBS: Mapping[str, Verb] = {verb.name: verb for verb in (SFT, INFER, EVAL, EXPORT_MODEL)}
_READ: Mapping[str, frozenset[str]] = {
    "infer": frozenset(READ_ARGUMENTS),
    "export-model": frozenset({*INHERITED, *ARGS_OF_CALIBRATION}),
}
"""The arguments of a training that another command reads too; eval has all, some of them hidden."""


@cache
def options_of(verb: str) -> Mapping[str, Option]:
    """Return the options of a verb by name, in the order of its help."""
    found = [
        *_run_options(VERBS[verb]),
        *_from_model(_ExperimentOptions, section="suite", group="Run"),
        *_from_model(Resources, _RESOURCES, section="requirements", group="Run"),
        *(_infer_options() if verb == INFER.name else ()),
        *(_export_options() if verb == EXPORT_MODEL.name else ()),
        *_training_options(VERBS[verb]),
        *(_eval_options(verb) if verb in {SFT.name, EVAL.name} else ()),
    ]
    return {option.name: option for option in found if option.name not in _LEFT_OUT[verb]}


def _run_options(verb: Verb) -> Iterator[Option]:
    """Yield the options of the run itself; a checkpoint of any tool is an argument, and not where results go."""
    left_out = {"ckpt_dir"} if verb.has_own_checkpoint else set()
    if verb is EXPORT_MODEL:
        left_out.add("output_dir")
    names = [name for name in RunOptions.model_fields if name not in left_out]
    yield from _from_model(RunOptions, names, section="run", group="Run")
    if verb is EXPORT_MODEL:
        yield from _from_model(ResultsOption, section="run", group="Run")


def _training_options(verb: Verb) -> Iterator[Option]:
    for group, names in _training_groups(verb):
        for option in _from_model(SftArgs, names, section="args", group=group):
            default = verb.defaults.get(option.name, option.default)
            if option.name == "model_type" and verb.default_model is not None:
                default = f"{verb.default_model}, where no model is named"
            yield replace(option, default=default)


def _training_groups(verb: Verb) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield title and names of each group of a training's arguments that the verb reads."""
    for group, names in SftArgs.groups():
        if verb.name not in _READ:
            yield group, names
        elif read := tuple(name for name in names if name in _READ[verb.name]):
            is_generation = verb is INFER and read[0] in TrainingArgs.model_fields
            yield ("Generation" if is_generation else group), read


def _infer_options() -> Iterator[Option]:
    for option in _from_model(InferArgs, section="args", group="Answers"):
        yield replace(option, default=_INFER_DEFAULTS.get(option.name, option.default))


def _export_options() -> Iterator[Option]:
    for option in _from_model(ExportArgs, section="args", group="Export"):
        yield replace(option, help=_EXPORT_HELP.get(option.name, option.help))


def _eval_options(verb: str) -> Iterator[Option]:
    """Yield `eval_...` for each argument of an evaluation that a training has no argument of that name for."""
    for option in _from_model(EvalArgs, section="eval_args", group="Evaluation"):
        name = EVAL_PREFIX + option.key.removeprefix(EVAL_PREFIX)
        if verb != "sft" or name not in SftArgs.model_fields:
            yield replace(option, name=name)


def _from_model(
    model: type[BaseModel], names: Iterable[str] | None = None, *, section: Section, group: str
) -> Iterator[Option]:
    kinds = kinds_of(model)
    for name in model.model_fields if names is None else names:
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
