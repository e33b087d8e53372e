"""Which columns a report shows: the default layout, without columns that say nothing, or that of SWIFT 2.x."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from hpcbench.report import columns as c
from hpcbench.report import infer_columns
from hpcbench.report.cells import dataset_label, infer_speed_text, swift_tuner_params, trainable_share
from hpcbench.report.column import Column, Raw, cell_text
from hpcbench.report.facts import Facts
from hpcbench.report.memory import swift_memory_text
from hpcbench.report.rows import Row
from hpcbench.report.score_columns import eval_columns, value_columns
from hpcbench.schemas.states import JobState

SWIFT_DATASETS = ("gsm8k", "arc", "ceval")
"""The eval datasets of SWIFT 2.x's tables, in their order."""


def default_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """Return the columns of the default layout that have something to say about these rows."""
    experiments = [facts for row in rows for facts in row.members]
    optional = (
        (c.STATE, not all(row.completed for row in rows)),
        (c.MODEL, True),
        (c.QUANTIZATION, any(_holds_weights_otherwise(facts) for facts in experiments)),
        (c.DATASET, True),
        (c.MIX_RATIO, any(c.MIX_RATIO.get(facts) for facts in experiments)),
        (c.TUNER, True),
        (c.TUNER_PARAMS, True),
        (c.TRAINABLE, True),
        (c.ATTENTION, _varies(c.ATTENTION, experiments) or _asks_for_attention(experiments)),
        (c.CHECKPOINTING, any(c.CHECKPOINTING.get(facts) for facts in experiments)),
        (c.HYPERS, True),
        (c.GLOBAL_BATCH, _varies(c.GLOBAL_BATCH, experiments)),
        (c.MEMORY, True),
        (c.TRAIN_SPEED, True),
        (c.TOKEN_SPEED, True),
        (c.MFU, True),
        (c.INFER_SPEED, True),
        *((column, True) for column in infer_columns.SHOWN),
        (c.TRAIN_LOSS, True),
        (c.EVAL_LOSS, True),
        (c.ROUGE_L, True),
        (c.REWARDS_CHOSEN, True),
        (c.REWARDS_REJECTED, True),
        (c.REWARD_MARGIN, True),
        (c.REWARD_ACCURACY, True),
        (c.TRAIN_REWARD_MARGIN, True),
    )
    chosen = [column for column, wanted in optional if wanted and not _empty(column, experiments)]
    return (c.NAME, *chosen, *value_columns(experiments), *eval_columns(experiments))


def swift_columns() -> tuple[Column, ...]:
    """Return SWIFT 2.x's 18 columns for `sft` and `eval` rows."""
    return (
        c.NAME,
        _swift(c.MODEL, missing="None"),
        _swift(c.DATASET, missing="None"),
        _swift(c.MIX_RATIO, missing="0.0"),
        _swift(c.TUNER, missing="None"),
        replace(_swift(c.TUNER_PARAMS), show=_swift_params),
        replace(_swift(c.TRAINABLE, missing="None(None)"), show=trainable_share),
        replace(_swift(c.ATTENTION), show=_swift_attention),
        replace(c.CHECKPOINTING, missing=""),
        _swift(c.HYPERS),
        replace(_swift(c.MEMORY, missing="None"), show=swift_memory_text, state=_swift_memory_state),
        _swift(c.TRAIN_SPEED),
        _swift(c.INFER_SPEED),
        replace(c.TRAIN_LOSS, decimals=2, missing=""),
        replace(c.EVAL_LOSS, decimals=2, missing=""),
        *(_weighted_accuracy(dataset) for dataset in SWIFT_DATASETS),
    )


def swift_export_columns() -> tuple[Column, ...]:
    """Return SWIFT 2.x's 9 columns for `export` rows."""
    return (
        c.NAME,
        _swift(c.MODEL, missing="None"),
        _argument("calibration dataset", "dataset"),
        _argument("quantization method", "quant_method"),
        _argument("quantization bits", "quant_bits"),
        replace(_swift(c.INFER_SPEED), show=infer_speed_text),
        *(_weighted_accuracy(dataset) for dataset in SWIFT_DATASETS),
    )


def _holds_weights_otherwise(facts: Facts) -> bool:
    return facts.view.cmd == "export" or (facts.args is not None and facts.args.quantization_bit > 0)


def _empty(column: Column, experiments: Iterable[Facts]) -> bool:
    return all(_shown(column, facts) is None for facts in experiments)


def _shown(column: Column, facts: Facts) -> str | None:
    text = cell_text(column, facts)
    return text if text is not None or column.state is None else column.state(facts)


def _varies(column: Column, experiments: Iterable[Facts]) -> bool:
    values = {value for value in map(column.get, experiments) if value is not None}
    return len(values) > 1


def _asks_for_attention(experiments: Iterable[Facts]) -> bool:
    asked = (facts.train_args for facts in experiments if facts.train_args is not None)
    return any(args.use_flash_attn is not None or args.attn_impl is not None for args in asked)


def _swift(column: Column, *, missing: str = "") -> Column:
    """Return a column as SWIFT 2.x fills it; it never marked the best speed or memory."""
    return replace(column, missing=missing, better=None)


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
