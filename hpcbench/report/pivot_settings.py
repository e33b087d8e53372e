"""The row keys of pivot tables: settings, written as in the benchmark tables of SWIFT 2.x.

In: the facts of experiments, and keys as `report: {by: ...}` names them. Out: texts: `int4 (gptq)`, `2*A100`, ticks for
switches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hpcbench.errors import ReportError, did_you_mean
from hpcbench.report import columns as c
from hpcbench.report.cells import dataset_label, model_form
from hpcbench.report.facts import Facts, gpu_names
from hpcbench.report.settings import (
    ABSENT,
    ARGUMENTS_IN_ORDER,
    is_setting,
    number_setting,
    raw_value,
    reader,
)
from hpcbench.schemas.request import TRAININGS, Resources

TICK, CROSS = "\N{HEAVY CHECK MARK}", "\N{HEAVY BALLOT X}"
MODEL, QUANTIZATION, TARGETS = "model_type", "quantization", "lora_target_modules"
HARDWARE_KEYS: Final = frozenset({"gpu", "gpu_type", "ddp"})
"""Row keys that say what hardware a row had, so that its speed need not."""
_JOINED = "/"
_NAMES = {"lora": "LoRA", "adalora": "AdaLoRA", "dora": "DoRA", "gpu": "GPU", "ddp": "DDP", "lr": "LR", "llm": "LLM"}
_VENDORS = re.compile(r"\b(NVIDIA|AMD|Tesla|GeForce|Quadro|Instinct|Graphics)\b", re.IGNORECASE)
_FORM_FACTOR = re.compile(r"[ -](SXM\d?|PCIE|NVL|\d+\s?GB|HBM\S*)\b.*$", re.IGNORECASE)
_PACKED = re.compile(r"^(\d+) bit (gptq|awq|aqlm)\b")
_SUFFIX = re.compile(
    r"[-_](?:(?:gptq|awq|aqlm|bnb)(?:[-_]?(?:int)?\d+(?:[-_]?bit)?)?|int\d+|\d+[-_]?bit)$", re.IGNORECASE
)

Read = Callable[[Facts], str | None]


def setting_readers(keys: Sequence[str], experiments: Iterable[Facts] = ()) -> dict[str, Read]:
    """Return what reads the cell of each row key; `a/b` reads two settings into one cell, `a=1/b=2`.

    Args:
        keys: names of settings.
        experiments: whose arguments may be keys too, also those that this version does not have.

    Raises:
        ReportError: a key is not a setting.
    """
    found = list(experiments)
    known = dict.fromkeys((*_SETTINGS, *ARGUMENTS_IN_ORDER, *Resources.model_fields))
    known |= {name: None for facts in found for name in facts.raw_args}
    for part in (part for key in keys for part in key.split(_JOINED)):
        if part not in known and not is_setting(part, found):
            hint = did_you_mean(part, known)
            raise ReportError(
                f"by: {part}: not a setting; expected an argument of a training, a resource "
                f"({', '.join(Resources.model_fields)}), or one of {', '.join(_SETTINGS)}",
                hint=hint,
            )
    return {key: _reader(key) for key in keys}


def _reader(key: str) -> Read:
    parts = key.split(_JOINED)
    if len(parts) == 1:
        return lambda facts: setting_text(facts, key)

    def joined(facts: Facts) -> str | None:
        texts = {part: setting_text(facts, part) for part in parts}
        return _JOINED.join(f"{part}={text}" for part, text in texts.items() if text is not None) or None

    return joined


def setting_text(facts: Facts, key: str) -> str | None:
    """Return one setting of an experiment as a pivot table shows it, None where it has none."""
    if key in _SETTINGS:
        return _SETTINGS[key](facts)
    if key in Resources.model_fields:
        return _text(_resource(facts, key))
    value = reader(key)(facts) if is_setting(key, (facts,)) else facts.raw_args.get(key)
    return None if value is ABSENT else _text(value)


def _text(value: object) -> str | None:
    if value is None or value in ((), [], {}):
        return None
    if isinstance(value, bool):
        return TICK if value else CROSS
    if isinstance(value, float):
        return number_setting(value)
    raw = raw_value(value)
    return None if raw is None else str(raw)


def _resource(facts: Facts, key: str) -> Any:
    job = next(iter(facts.view.jobs), None)
    if job is None:
        return None
    if job.request is not None:
        return getattr(job.request.resources, key)
    resources = job.recorded_request.get("resources")
    return resources.get(key) if isinstance(resources, Mapping) else None


def _quantization(facts: Facts) -> str | None:
    """Return `int4 (gptq)` of a base whose folder holds such weights, else as the request says it."""
    described = "" if facts.train is None else facts.train.dtypes.get("quantization", "")
    packed = _PACKED.match(described)
    return model_form(facts) if packed is None else f"int{packed[1]} ({packed[2]})"


def _dataset(facts: Facts) -> str | None:
    value = c.DATASET.get(facts)
    if value is None and facts.view.cmd in TRAININGS and isinstance(named := facts.raw_args.get("dataset"), list):
        value = dataset_label([str(name) for name in named])
    return None if value is None else str(value)


def _dataset_tokens(facts: Facts) -> str | None:
    """Return `long-alpaca-12k(8055 tokens * 12000 rows)`: rows of the training set, and their mean length."""
    name, train = _dataset(facts), facts.train
    if name is None or train is None or train.tokens is None:
        return name
    return f"{name}({train.tokens.mean:.0f} tokens * {train.num_train_rows or train.tokens.num_samples} rows)"


def _flash_attention(facts: Facts) -> str | None:
    """Return what was asked for, or what ran where that was left to the model."""
    asked = facts.raw_args.get("use_flash_attn")
    if isinstance(asked, bool):
        return _text(asked)
    ran = None if facts.train is None else facts.train.attention
    return None if ran is None else _text(ran.startswith("flash"))


def _model(facts: Facts) -> str | None:
    found = None if facts.args is None else facts.args.model_name
    return found if found is not None else _text(facts.raw_args.get("model_type"))


_SETTINGS: Final[Mapping[str, Read]] = {
    MODEL: _model,
    "tuner": lambda facts: _text(facts.raw_args.get("sft_type")) if facts.view.cmd in TRAININGS else None,
    QUANTIZATION: _quantization,
    "dataset": _dataset,
    "dataset_tokens": _dataset_tokens,
    "use_flash_attn": _flash_attention,
    "experiment": lambda facts: facts.view.base_experiment or facts.view.name,
}
"""Settings that are not just the value of an argument."""


def base_model_texts(rows: Sequence[str | None]) -> tuple[str | None, ...]:
    """Return models without the suffix of their quantization where a row has that base too: `qwen-7b-chat-int4`.

    A table that has a column of quantizations says there how the weights are held.
    """
    known = set(rows)
    stems = [None if name is None else _SUFFIX.sub("", name) for name in rows]
    return tuple(stem if stem in known else name for name, stem in zip(rows, stems, strict=True))


def target_text(facts: Facts) -> str | None:
    """Return what `DEFAULT` and `ALL` came out as, for the first row that has them."""
    targets = setting_text(facts, TARGETS)
    if targets == "ALL":
        return "all linear"
    modules = () if facts.train is None else facts.train.target_modules
    return ",".join(modules) if targets == "DEFAULT" and modules else None


def setting_header(key: str) -> str:
    """Return the key as a table's header: `max_length` is `Max Length`.

    >>> [setting_header(key) for key in ("lora_rank", "quantization", "gpu/sequence_parallel_size")]
    ['LoRA Rank', 'Quantization', 'GPU/Sequence Parallel Size']
    """
    return _JOINED.join(
        " ".join(_NAMES.get(word, word.capitalize()) for word in part.rpartition(".")[2].split("_"))
        for part in key.split(_JOINED)
    )


def tuner_header(experiments: Iterable[Facts]) -> str:
    """Return ` [LoRA]` where all experiments that train have the same tuner, else nothing."""
    tuners = {tuner for facts in experiments if (tuner := _SETTINGS["tuner"](facts)) is not None}
    if len(tuners) != 1:
        return ""
    tuner = tuners.pop()
    return f" [{_NAMES.get(tuner, tuner.upper())}]"


@dataclass(frozen=True, slots=True)
class Hardware:
    """The GPUs of an experiment's main job, or of its first eval."""

    num_gpus: int
    kind: str | None
    """Names of its GPUs, short; None while they are not known."""

    @property
    def text(self) -> str:
        """`2*A100`, `A100`, or nothing without a GPU."""
        kind = self.kind or "GPU"
        return "" if not self.num_gpus else kind if self.num_gpus == 1 else f"{self.num_gpus}*{kind}"


def hardware_of(facts: Facts) -> Hardware:
    """Return what an experiment ran on, as its record says, or what it asked for."""
    record = facts.main_record
    names = () if record is None else gpu_names(record)
    asked = _resource(facts, "gpu")
    kind = "+".join(short_gpu_name(name) for name in dict.fromkeys(names)) or _text(_resource(facts, "gpu_type"))
    return Hardware(len(names) or (asked if isinstance(asked, int) else 0), kind)


def short_gpu_name(name: str) -> str:
    """Return a GPU's name as tables write it.

    >>> [short_gpu_name(name) for name in ("NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 4090", "NVIDIA H100 80GB HBM3")]
    ['A100', 'RTX 4090', 'H100']
    """
    bare = " ".join(_VENDORS.sub(" ", name).split())
    return _FORM_FACTOR.sub("", bare) or name
