"""Which columns a report shows: the layout `table`, without columns that say nothing, or that of SWIFT 2.x."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from hpcbench.report import columns as c
from hpcbench.report import infer_columns
from hpcbench.report.cells import (
    dataset_label,
    swift_infer_speed_text,
    swift_train_speed_text,
    swift_trainable_text,
    swift_tuner_params,
)
from hpcbench.report.column import Column, Raw, cell_text
from hpcbench.report.facts import Facts
from hpcbench.report.memory import swift_memory_mark, swift_memory_text
from hpcbench.report.rows import Row
from hpcbench.report.score_columns import eval_columns, value_columns
from hpcbench.report.settings import shared_settings, varying_settings
from hpcbench.schemas.states import JobState

SWIFT_DATASETS = ("gsm8k", "arc", "ceval")
"""The eval datasets of SWIFT 2.x's tables, in their order."""


def table_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """Return the columns of the layout `table` that have something to say about these rows.

    Results come first, then the settings that differ between rows; `shared_text` has those that do not.
    """
    experiments = [facts for row in rows for facts in row.members]
    results = [column for column in result_columns(experiments) if not _empty(column, experiments)]
    state = () if all(row.completed for row in rows) else (c.STATE,)
    return (c.NAME, *state, *results, *told_settings(experiments))


def result_columns(experiments: Sequence[Facts]) -> tuple[Column, ...]:
    """Return the columns of figures, those first that experiments are made for: scores, losses, speeds, memory."""
    return (
        *eval_columns(experiments),
        *value_columns(experiments),
        c.ROUGE_L,
        c.REWARD_ACCURACY,
        c.REWARD_MARGIN,
        c.REWARDS_CHOSEN,
        c.REWARDS_REJECTED,
        c.TRAIN_REWARD_MARGIN,
        c.EVAL_LOSS,
        c.TRAIN_LOSS,
        *infer_columns.SHOWN,
        c.TRAIN_SPEED,
        c.TOKEN_SPEED,
        c.MFU,
        c.INFER_SPEED,
        c.MEMORY,
    )


def told_settings(experiments: Sequence[Facts]) -> tuple[Column, ...]:
    """Return the columns of settings that differ between experiments, and of what follows from them."""
    before = [column for column in (c.MODEL, c.DATASET, c.TUNER, c.QUANTIZATION) if _varies(column, experiments)]
    after = [column for column in (c.ATTENTION, c.GLOBAL_BATCH, c.TRAINABLE) if _varies(column, experiments)]
    return (*before, *varying_settings(experiments), *after)


def shared_text(rows: Sequence[Row]) -> str:
    """Return the settings that no column shows because all rows have the same: `model qwen-7b-chat; lora_rank 8`."""
    experiments = [facts for row in rows for facts in row.members]
    parts: list[str] = []
    for column in (c.MODEL, c.DATASET, c.TUNER, c.QUANTIZATION, c.ATTENTION, c.GLOBAL_BATCH, c.TRAINABLE):
        texts = {text for facts in experiments if (text := cell_text(column, facts)) is not None}
        parts += [f"{column.header} {texts.pop()}"] if len(texts) == 1 else []
    parts += [f"{name} {text}" for name, text in shared_settings(experiments).items()]
    return "; ".join(parts)


def swift_columns() -> tuple[Column, ...]:
    """Return SWIFT 2.x's 18 columns for `sft` and `eval` rows."""
    return (
        _swift(c.NAME, "exp_name", missing=c.NAME.missing),
        _swift(c.MODEL, "model_type", missing="None"),
        _swift(c.DATASET, "dataset", missing="None"),
        _swift(c.MIX_RATIO, "ms-bench mix ratio", missing="0.0"),
        _swift(c.TUNER, "tuner", missing="None"),
        replace(_swift(c.TUNER_PARAMS, "tuner_params"), show=_swift_params),
        replace(_swift(c.TRAINABLE, "trainable params(M)", missing="None(None)"), show=swift_trainable_text),
        replace(_swift(c.ATTENTION, "flash_attn"), show=_swift_attention),
        _swift(c.CHECKPOINTING, "gradient_checkpointing"),
        _swift(c.HYPERS, "hypers"),
        replace(
            _swift(c.MEMORY, "memory", missing="None"),
            show=swift_memory_text,
            state=_swift_memory_state,
            unit=swift_memory_mark,
        ),
        replace(_swift(c.TRAIN_SPEED, "train speed(samples/s)"), show=swift_train_speed_text),
        replace(_swift(c.INFER_SPEED, "infer speed(tokens/s)"), show=swift_infer_speed_text),
        replace(c.TRAIN_LOSS, header="train_loss", decimals=2, missing=""),
        replace(c.EVAL_LOSS, header="eval_loss", decimals=2, missing=""),
        *(_weighted_accuracy(dataset) for dataset in SWIFT_DATASETS),
    )


def swift_export_columns() -> tuple[Column, ...]:
    """Return SWIFT 2.x's 9 columns for `export` rows."""
    return (
        _swift(c.NAME, "exp_name", missing=c.NAME.missing),
        _swift(c.MODEL, "model_type", missing="None"),
        _argument("calibration dataset", "dataset"),
        _argument("quantization method", "quant_method"),
        _argument("quantization bits", "quant_bits"),
        replace(_swift(c.INFER_SPEED, "infer speed(tokens/s)"), show=swift_infer_speed_text),
        *(_weighted_accuracy(dataset) for dataset in SWIFT_DATASETS),
    )


def _empty(column: Column, experiments: Iterable[Facts]) -> bool:
    return all(_shown(column, facts) is None for facts in experiments)


def _shown(column: Column, facts: Facts) -> str | None:
    text = cell_text(column, facts)
    return text if text is not None or column.state is None else column.state(facts)


def _varies(column: Column, experiments: Iterable[Facts]) -> bool:
    values = {value for value in map(column.value, experiments) if value is not None}
    return len(values) > 1


def _swift(column: Column, header: str, *, missing: str = "") -> Column:
    """Return a column as SWIFT 2.x names and fills it; it never marked the best speed or memory."""
    return replace(column, header=header, missing=missing, better=None)


def _weighted_accuracy(dataset: str) -> Column:
    """Return the headline score of a dataset, whichever metric it is, without its standard error."""

    def get(facts: Facts) -> Raw:
        found = facts.evals.get(dataset)
        return None if found is None or found.score is None else found.score.value

    return Column(
        key=f"{dataset}_weighted_acc",
        header=f"{dataset} weighted acc",
        get=get,
        decimals=3,
        better="higher",
        measured=True,
        missing="",
    )


def _argument(header: str, name: str) -> Column:
    def get(facts: Facts) -> Raw:
        value: Any = facts.raw_args.get(name)
        if isinstance(value, (list, tuple)):
            return " ".join(dataset_label([str(item)]) for item in value) or None
        return None if value is None else str(value)

    return Column(key=name, header=header, get=get, missing="")


def _swift_attention(facts: Facts) -> str:
    """Return True where a flash attention ran, as SWIFT 2.x writes it, else what ran instead."""
    ran = None if facts.train is None else facts.train.attention
    return "" if ran is None else "True" if ran.startswith("flash") else ran


def _swift_params(facts: Facts) -> str:
    return "" if facts.train_args is None else swift_tuner_params(facts.train_args)


def _swift_memory_state(facts: Facts) -> str | None:
    return "OOM" if facts.state is JobState.OUT_OF_MEMORY else None
