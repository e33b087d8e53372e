"""Settings as columns: what experiments were asked for, by the names that a suite's matrix has for it.

In: the facts of experiments. Out: a column for each setting that varies, and the settings that all of them share.
A setting without an effect on an experiment (the rank of a full fine-tuning, the learning rate of an untrained
baseline) is absent there, so that it neither varies nor is shared.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from operator import is_not
from typing import Final

from hpcbench.config.effects import has_effect
from hpcbench.report.cells import dataset_label
from hpcbench.report.column import Column, Raw
from hpcbench.report.facts import Facts
from hpcbench.schemas.arguments import (
    GENERATION_ARGUMENTS,
    NOT_IN_SCORES,
    Arguments,
    CommandArgs,
    DataArgs,
    EvalArgs,
    ExportArgs,
    InferArgs,
    ModelArgs,
    SftArgs,
)
from hpcbench.schemas.request import EXPORT, INFER, TRAININGS, JobRequest, Resources

ABSENT: Final = object()
"""What a setting is where it has no effect."""
PEFT_CONFIG, REQUIREMENTS, EVAL_REQUIREMENTS, EVAL_ARGS, PER_DATASET, ENV = (
    *("peft_config.", "requirements.", "eval_requirements.", "eval_args.", "eval_args.per_dataset.", "env."),
)
"""What settings begin with that are not arguments of the experiment's own job."""

_SHOWN_OTHERWISE: Final = frozenset({"model_type", "dataset", "sft_type", "quantization_bit", "quant_bits"})
"""Arguments that columns of another form tell more about."""
_NAMES_OF_RESULTS: Final = frozenset({"hub_model_id", "output_dir"})
"""Each experiment needs its own, so they differ without being a setting."""
_LIMITS_OF_JOBS: Final = frozenset({"time_min", "mem_gb", "exclude"})
"""Resources that no figure depends on."""
_ALWAYS_TOLD: Final = frozenset(
    {
        *("learning_rate", "num_train_epochs", "max_steps"),
        *("lora_rank", "lora_alpha", "lora_target_modules"),
    }
)
"""Arguments that readers look for, told even at their default."""
_NEVER_TOLD: Final = frozenset({"seed", "model_id_or_path", *_SHOWN_OTHERWISE, *_NAMES_OF_RESULTS})
_DATASETS: Final = frozenset({"dataset", "val_dataset", "train_dataset_mix_ds"})
_OF_ANSWERS: Final = frozenset((*ModelArgs.model_fields, *DataArgs.model_fields, *GENERATION_ARGUMENTS))
_OF_CALIBRATION: Final = frozenset((*ModelArgs.model_fields, *DataArgs.model_fields, "seed"))
_TRAINING_ARGUMENTS: Final = frozenset(SftArgs.model_fields)
_OF_A_MODEL: Final = frozenset(ModelArgs.model_fields)
_OWN_GROUPS: Final[Mapping[str, type[Arguments]]] = {"export": ExportArgs, "infer": InferArgs, "command": CommandArgs}
"""Groups of arguments of a request that one command alone has."""
ARGUMENTS_IN_ORDER: Final = {name: n for n, name in enumerate((*SftArgs.model_fields, *(
    name for group in _OWN_GROUPS.values() for name in group.model_fields
)))}  # fmt: skip
_NOTES: Final[Mapping[str, str]] = {
    "packing": "packing: several samples share a sequence of at most max_length tokens, none sees another",
    "lazy_tokenize": "lazy_tokenize: samples are tokenized in training, and train speed includes that",
    "use_loss_scale": "use_loss_scale: parts of an answer weigh more, so the train loss is another quantity",
    "plain_text": "plain_text: texts are learnt as they are, every token of them, without questions",
    "rlhf_type": "rlhf_type: learns from preferences, so both losses are means of that one, not cross-entropies",
    "loss_on_all_rounds": "loss_on_all_rounds: all answers of a dialogue are learnt, not the last alone",
}
"""What settings do to the figures beside them."""
_SECRET: Final = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY", re.IGNORECASE)
_SMALL: Final = 0.01
"""Numbers below it are written with an exponent."""

Read = Callable[[Facts], object]
"""What a setting is in one experiment, or `ABSENT`."""


def varying_settings(experiments: Sequence[Facts]) -> tuple[Column, ...]:
    """Return a column per setting that has two values or more; what the matrix varies comes first.

    Repeats of an experiment count as one. Model, datasets and tuner have columns of another form.
    """
    found = [key for key in _candidates(experiments) if key not in _SHOWN_OTHERWISE and varies(key, experiments)]
    sources = {id(facts.request.source_of): facts.request.source_of for facts in experiments if facts.request}
    of_matrix = {name for found in sources.values() for name, source in found.items() if source == "matrix"}
    return tuple(setting_column(key) for key in sorted(found, key=lambda key: key not in of_matrix))


def shared_settings(experiments: Sequence[Facts]) -> dict[str, str]:
    """Return the arguments of trainings that are not their default and the same wherever they have an effect."""
    trainings = [facts for facts in experiments if facts.train_args is not None]
    candidates = set(_candidates(experiments))
    shared: dict[str, str] = {}
    for name in SftArgs.model_fields:
        if name in _NEVER_TOLD or (name in candidates and varies(name, experiments)):
            continue
        # What is the same in all requests is told in all of them or in none.
        asked = trainings if name in candidates else trainings[:1]
        if any(_is_told(facts, name) for facts in asked):
            read = reader(name)
            values = (read(facts) for facts in trainings if _is_told(facts, name))
            value = next((found for found in values if found is not ABSENT and raw_value(found) is not None), None)
            shared |= {} if value is None else {name: setting_text(name, value)}
    return shared


def setting_column(key: str) -> Column:
    """Return the column of one setting, by its name in a matrix."""
    read = reader(key)

    def get(facts: Facts) -> Raw:
        value = read(facts)
        return None if value is ABSENT else raw_value(value)

    return Column(
        key=key, header=key, get=get, show=lambda facts: setting_text(key, read(facts)), note=_NOTES.get(key, "")
    )


def is_setting(key: str, experiments: Iterable[Facts]) -> bool:
    """Return whether a suite's matrix has something of this name, or some experiment has."""
    if key.startswith(PEFT_CONFIG):
        return key in _fields_of_peft(experiments)
    for prefix in (REQUIREMENTS, EVAL_REQUIREMENTS):
        if key.startswith(prefix):
            return _resource(key.removeprefix(prefix)) in Resources.model_fields
    if key.startswith(PER_DATASET):
        return key.rpartition(".")[2] in EvalArgs.model_fields
    if key.startswith(EVAL_ARGS):
        return key.removeprefix(EVAL_ARGS) in EvalArgs.model_fields
    if key.startswith(ENV):
        name = key.removeprefix(ENV)
        return any(facts.request is not None and name in facts.request.env for facts in experiments)
    return key == "device" or key in ARGUMENTS_IN_ORDER


def varies(key: str, experiments: Iterable[Facts]) -> bool:
    """Return whether a setting has two values, an empty one included, where it has an effect."""
    read = reader(key)
    first: object = ABSENT
    seen: set[tuple[str, str]] = set()
    for facts in experiments:
        run = (facts.view.suite, facts.view.base_experiment or facts.view.name)
        value = read(facts)
        # What differs between repeats of one experiment, such as the model that each takes, does not count.
        if value is ABSENT or run in seen:
            continue
        seen.add(run)
        if first is ABSENT:
            first = value
        elif value != first:
            return True
    return False


def setting_text(key: str, value: object) -> str:
    """Return a setting as tables show it: datasets by their label, numbers short."""
    if key in _DATASETS and isinstance(value, tuple):
        return dataset_label(value)
    return number_setting(value) if isinstance(value, float) else str(raw_value(value))


def number_setting(value: float) -> str:
    """Return a number in its shortest form.

    >>> [number_setting(value) for value in (0.0001, 5e-05, 0.05, 32.0)]
    ['1e-4', '5e-5', '0.05', '32']
    """
    if not 0 < abs(value) < _SMALL:
        return f"{value:.10g}"
    mantissa, _, exponent = f"{value:.9e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def raw_value(value: object) -> Raw:
    """Return a setting as CSV and JSON hold it: lists joined by commas, mappings as JSON; None where it is empty."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value)) or None
    return json.dumps(value, sort_keys=True, default=str) if value else None


def reader(key: str) -> Read:
    """Return what reads the setting of this name."""
    if key.startswith(PEFT_CONFIG):
        name = key.removeprefix(PEFT_CONFIG)
        return lambda facts: _peft_field(facts, name)
    if key.startswith(REQUIREMENTS):
        name = _resource(key.removeprefix(REQUIREMENTS))
        return lambda facts: ABSENT if (found := _main_request(facts)) is None else getattr(found.resources, name)
    if key.startswith(EVAL_REQUIREMENTS):
        name = _resource(key.removeprefix(EVAL_REQUIREMENTS))
        return lambda facts: next((getattr(found.resources, name) for found in _eval_requests(facts)), ABSENT)
    if key.startswith(PER_DATASET):
        dataset, _, name = key.removeprefix(PER_DATASET).rpartition(".")
        return lambda facts: next(
            (getattr(found.eval_args, name) for found in _eval_requests(facts) if found.eval_dataset == dataset), ABSENT
        )
    if key.startswith(EVAL_ARGS):
        name = key.removeprefix(EVAL_ARGS)
        return lambda facts: next((getattr(found.eval_args, name) for found in _eval_requests(facts)), ABSENT)
    if key.startswith(ENV):
        name = key.removeprefix(ENV)
        return lambda facts: ABSENT if facts.request is None else facts.request.env.get(name)
    if key == "device":
        return lambda facts: ABSENT if facts.request is None else facts.request.device
    groups = [group for group, model in _OWN_GROUPS.items() if key in model.model_fields]
    return lambda facts: _argument(facts, key, groups)


def _resource(name: str) -> str:
    return "time_min" if name == "time" else name


def _is_told(facts: Facts, name: str) -> bool:
    """Return whether readers want to be told an argument of a training, where it has an effect."""
    args = facts.train_args
    return args is not None and (name in _ALWAYS_TOLD or args.differs_from_default(name))


def _argument(facts: Facts, name: str, groups: Sequence[str]) -> object:
    """Return an argument of the experiment's own job; `groups` are those of its command that may have it, too."""
    request = facts.request
    for group in groups:
        own = None if request is None else getattr(request, group)
        if own is not None:
            value: object = getattr(own, name)
            return shlex.join(value) if name == "command" and isinstance(value, tuple) else value
    args = facts.args
    if args is None or name not in _TRAINING_ARGUMENTS or not _takes(facts, name) or not has_effect(args, name):
        return ABSENT
    match name:
        case "learning_rate":
            return args.effective_learning_rate
        case "num_train_epochs" if args.max_steps > 0:
            return None
        case "max_steps" if args.max_steps <= 0:
            return None
        case "seed":
            return args.seed - (facts.repeat or 0)
        case _:
            return getattr(args, name)


def _takes(facts: Facts, name: str) -> bool:
    """Return whether the experiment's command has this argument of trainings."""
    cmd = facts.view.cmd
    if cmd in TRAININGS:
        return True
    if cmd == INFER:
        return name in _OF_ANSWERS
    calibrates = cmd == EXPORT and facts.request is not None and facts.request.export is not None
    if calibrates and facts.request is not None and facts.request.export is not None:
        return name in (_OF_CALIBRATION if facts.request.export.calibrates else _OF_A_MODEL)
    return name in _OF_A_MODEL


def _peft_field(facts: Facts, name: str) -> object:
    args = facts.train_args
    return ABSENT if args is None or not args.peft_config else args.peft_config.get(name)


def _main_request(facts: Facts) -> JobRequest | None:
    return None if facts.view.main is None else facts.view.main.request


def _eval_requests(facts: Facts) -> Iterator[JobRequest]:
    for job in facts.view.evals:
        if job.request is not None and job.request.eval_args is not None:
            yield job.request


def _candidates(experiments: Sequence[Facts]) -> list[str]:
    """Return the settings whose values differ somewhere, in the order of the reference, whether or not they count."""
    # The values of these two follow from others as well.
    names = {"learning_rate", "num_train_epochs"}
    names |= _differing(vars(facts.args) for facts in experiments if facts.args is not None)
    requests = [facts.request for facts in experiments if facts.request is not None]
    for group in _OWN_GROUPS:
        names |= _differing(vars(own) for request in requests if (own := getattr(request, group)) is not None)
    if "model_id_or_path" in names and not _same_name_twice(experiments):
        names.remove("model_id_or_path")
    return [
        *(
            name
            for name in sorted(
                names - _NAMES_OF_RESULTS - {"peft_config"}, key=lambda name: ARGUMENTS_IN_ORDER.get(name, 0)
            )
        ),
        *(_fields_of_peft(experiments) if "peft_config" in names else ()),
        *(["device"] if len({request.device for request in requests}) > 1 else ()),
        *_resources(experiments),
        *_of_evals(experiments),
        *(
            f"{ENV}{name}"
            for name in sorted(_differing(request.env for request in requests))
            if _SECRET.search(name) is None
        ),
    ]


def _differing(found: Iterable[Mapping[str, object]]) -> set[str]:
    """Return the keys under which some mapping holds another value than the first, or none."""
    values = iter(found)
    first = next(values, {})
    keys, firsts = tuple(first), tuple(first.values())
    names: set[str] = set()
    for other in values:
        if tuple(other) != keys:
            names |= first.keys() ^ other.keys()
            names |= {name for name in first.keys() & other.keys() if other[name] != first[name]}
            continue
        # Most values are the very objects that the first has: of tens of thousands, only the others are looked at.
        changed = compress(keys, map(is_not, other.values(), firsts))
        names |= {name for name in changed if name not in names and other[name] != first[name]}
    return names


def _same_name_twice(experiments: Iterable[Facts]) -> bool:
    """Return whether two models have one name in tables."""
    models = {(facts.args.model_name, facts.args.model_id_or_path) for facts in experiments if facts.args is not None}
    return len({name for name, _ in models}) < len(models)


def _fields_of_peft(experiments: Iterable[Facts]) -> list[str]:
    fields = {name: None for facts in experiments if facts.args is not None for name in facts.args.peft_config}
    return [f"{PEFT_CONFIG}{name}" for name in fields]


def _resources(experiments: Sequence[Facts]) -> Iterator[str]:
    mains = [found.resources for facts in experiments if (found := _main_request(facts)) is not None]
    evals = [found.resources for facts in experiments for found in list(_eval_requests(facts))[:1]]
    of_mains, of_evals = (_differing(vars(resources) for resources in group) for group in (mains, evals))
    for name in Resources.model_fields:
        key = f"{REQUIREMENTS}{name}"
        # One rank per GPU is the rule, and then one of the two columns says all.
        is_told = name == "ddp" and "gpu" in of_mains and _follows(key, f"{REQUIREMENTS}gpu", experiments)
        if name in of_mains and name not in _LIMITS_OF_JOBS and not is_told:
            yield key
    for name in Resources.model_fields:
        key = f"{EVAL_REQUIREMENTS}{name}"
        if name in of_evals and name not in _LIMITS_OF_JOBS and not _follows(key, f"{REQUIREMENTS}{name}", experiments):
            yield key


def _follows(key: str, other: str, experiments: Iterable[Facts]) -> bool:
    """Return whether a setting is the same as another one wherever both are there."""
    one, two = reader(key), reader(other)
    pairs = [(one(facts), two(facts)) for facts in experiments]
    return all(a == b for a, b in pairs if a is not ABSENT and b is not ABSENT)


def _of_evals(experiments: Sequence[Facts]) -> Iterator[str]:
    """Yield the settings of evals that differ between experiments: one for all datasets where they agree on it."""
    by_dataset: dict[str, list[EvalArgs]] = {}
    for facts in experiments:
        for request in _eval_requests(facts):
            if request.eval_args is not None:
                by_dataset.setdefault(str(request.eval_dataset), []).append(request.eval_args)
    names = {dataset: _differing(map(vars, found)) for dataset, found in by_dataset.items()}
    for name in (name for name in EvalArgs.model_fields if name not in NOT_IN_SCORES):
        datasets = [dataset for dataset, differing in names.items() if name in differing]
        if datasets and all(_agree(facts, name) for facts in experiments):
            yield f"{EVAL_ARGS}{name}"
        else:
            yield from (f"{PER_DATASET}{dataset}.{name}" for dataset in datasets)


def _agree(facts: Facts, name: str) -> bool:
    values = [getattr(request.eval_args, name) for request in _eval_requests(facts)]
    return all(value == values[0] for value in values)
