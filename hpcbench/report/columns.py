"""The columns of a report, one definition each: the raw value, how it is printed, which value is better.

In: the facts of one experiment. Out: raw values (for CSV and JSON, with the unit in the key) and cell texts. Which
columns a report shows, and what is best among its rows, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal

from hpcbench.arguments import SftArgs
from hpcbench.report.cells import (
    dataset_label,
    eval_loss,
    hypers,
    infer_speed_text,
    infer_totals,
    number_text,
    quantization_text,
    train_speed_text,
    trainable_text,
    tuner_params,
)
from hpcbench.report.facts import Facts, Score, cause_text, gpu_names, hardware, host_name, state_text
from hpcbench.report.memory import memory_brief, memory_mark, memory_of, memory_text
from hpcbench.states import JobState

Raw = float | str | None
"""A value as CSV and JSON give it; int and bool are floats to the type checker."""

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a report."""

    key: str
    """Name in CSV and JSON, unit included."""
    header: str
    """Name in tables; the seed documents' where they have one."""
    get: Callable[[Facts], Raw]
    show: Callable[[Facts], str] | None = None
    """Cell of an experiment that has a value; None prints the value itself."""
    decimals: int = 2
    """Digits of a printed number, which also decide what counts as a tie."""
    scale: float = 1.0
    """Printed number per raw number."""
    unit: Callable[[Facts], str] | None = None
    """What follows a mean over repeats, and the number in the terminal."""
    better: Better | None = None
    peers: Callable[[Facts], Hashable] | None = None
    """Only experiments with the same peers are compared."""
    measured: bool = False
    """Repeats of it are averaged, where a setting is shown once."""
    state: Callable[[Facts], str | None] | None = None
    """What stands in the cell instead of a figure, for example `OOM` or `blocked`."""
    missing: str = "-"
    """What stands in the cell when nothing is known."""
    note: str = ""
    """What the figure means, for the notes below a table."""
    legend: tuple[tuple[str, str], ...] = ()
    """Marks in the column's cells and what each means; the notes explain those that occur."""
    short: str = ""
    """Header in the terminal, where it differs."""
    brief: Callable[[Facts], str] | None = None
    """Cell in the terminal, where it is shorter."""


def cell_text(column: Column, facts: Facts) -> str | None:
    """Return the cell of one experiment, or None where nothing is known."""
    raw = column.get(facts)
    if raw is None:
        return None
    if column.show is not None:
        return column.show(facts)
    if isinstance(raw, (str, bool)):
        return str(raw)
    number = raw * column.scale
    text = f"{number:g}" if isinstance(raw, int) and not column.measured else number_text(number, column.decimals)
    return text + (column.unit(facts) if column.unit is not None else "")


def eval_column(dataset: str, metric: str | None, *, better: Better = "higher") -> Column:
    """Return the column of one eval dataset and metric.

    Args:
        dataset: name in the suite.
        metric: name of the score, None while no eval of the dataset is done.
        better: which value of the metric is better.
    """

    def score(facts: Facts) -> Score | None:
        found = facts.evals.get(dataset)
        if found is None or found.score is None or found.score.metric != metric:
            return None
        return found.score

    def show(facts: Facts) -> str:
        found = score(facts)
        assert found is not None  # noqa: S101 -- cell_text asks for values that are there
        stderr = "" if found.stderr is None else f" ± {number_text(found.stderr, 3)}"
        return f"{number_text(found.value, 3)}{stderr}{limit_mark(facts)}"

    def limit_mark(facts: Facts) -> str:
        found = score(facts)
        return f" (limit={found.num_samples})" if found is not None and found.debug else ""

    def state(facts: Facts) -> str | None:
        found = facts.evals.get(dataset)
        return None if found is None or found.job.state is JobState.COMPLETED else found.job.state.value

    return Column(
        key=f"{dataset}_{metric}" if metric else dataset,
        header=f"{dataset} {metric}" if metric else dataset,
        short="\n".join((dataset, *metric.split(",")[:1])) if metric else dataset,
        get=lambda facts: found.value if (found := score(facts)) is not None else None,
        show=show,
        brief=lambda facts: f"{number_text(found.value, 3)}{limit_mark(facts)}" if (found := score(facts)) else "",
        decimals=3,
        unit=limit_mark,
        better=better,
        state=state,
        peers=lambda facts: (found.num_samples, found.num_fewshot) if (found := score(facts)) is not None else None,
        measured=True,
    )


def value_column(name: str) -> Column:
    """Return the column of one figure that `cmd: command` programs reported; hpcbench does not know what is better."""

    def get(facts: Facts) -> Raw:
        return None if facts.command is None else facts.command.values.get(name)

    def show(facts: Facts) -> str:
        value = get(facts)
        return f"{value:.6g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)

    return Column(key=name, header=name, get=get, show=show, decimals=4, measured=True)


def _model(facts: Facts) -> str | None:
    return None if facts.args is None else facts.args.model_name


def _arg(read: Callable[[SftArgs], Raw]) -> Callable[[Facts], Raw]:
    return lambda facts: None if facts.train_args is None else read(facts.train_args)


def _train_state(facts: Facts) -> JobState | None:
    return None if facts.view.train is None else facts.view.train.state


def _same_data(facts: Facts) -> Hashable:
    args = facts.args
    if args is None:
        return None
    return (
        args.model_name,
        args.dataset,
        args.val_dataset,
        args.train_dataset_mix_ratio,
        args.dataset_test_ratio,
        args.dataset_split_seed,
    )


def _same_train_hardware(facts: Facts) -> Hashable:
    return _model(facts), None if facts.view.train is None else hardware(facts.view.train)


def _same_eval_hardware(facts: Facts) -> Hashable:
    return _model(facts), tuple(hardware(found.job) for found in facts.evals.values() if found.metrics is not None)[:1]


def _train_figure(name: str) -> Callable[[Facts], Raw]:
    """Return a reader of one field of TrainMetrics."""

    def get(facts: Facts) -> Raw:
        value: Raw = None if facts.train is None else getattr(facts.train, name)
        return value

    return get


def _from_record(read: Callable[[Facts], str | None]) -> Callable[[Facts], Raw]:
    return lambda facts: None if facts.main_record is None else read(facts)


def _trainable_share_pct(facts: Facts) -> Raw:
    parameters = None if facts.train is None else facts.train.parameters
    return None if parameters is None or not parameters.total else 100 * parameters.trainable / parameters.total


def _first_cause(facts: Facts) -> Raw:
    """Return why the experiment is in its state: the training's reason, once that is done the first eval's."""
    train = facts.view.train
    if train is not None and train.state is not JobState.COMPLETED:
        return cause_text(train) or None
    texts = (cause_text(job) for job in facts.view.evals if job.state is not JobState.COMPLETED)
    return next((text for text in texts if text), None)


NAME = Column(key="experiment", header="exp_name", short="experiment", get=lambda facts: facts.view.name)
STATE = Column(key="state", header="state", short="state", get=lambda facts: facts.state.value, show=state_text)
MODEL = Column(key="model_type", header="model_type", short="model", get=_model)
QUANTIZATION = Column(
    key="quantization",
    header="Quantization",
    short="quantization",
    get=lambda facts: None if facts.args is None else quantization_text(facts.args),
)
DATASET = Column(key="dataset", header="dataset", get=_arg(lambda args: dataset_label(args.dataset) or None))
MIX_RATIO = Column(
    key="train_dataset_mix_ratio",
    header="ms-bench mix ratio",
    get=_arg(lambda args: args.train_dataset_mix_ratio),
    show=lambda facts: str(facts.train_args.train_dataset_mix_ratio) if facts.train_args is not None else "",
)
TUNER = Column(key="tuner", header="tuner", short="tuner", get=_arg(lambda args: args.sft_type))
TUNER_PARAMS = Column(
    key="tuner_params", header="tuner_params", short="tuner_params", get=_arg(lambda args: tuner_params(args) or None)
)
TRAINABLE = Column(
    key="num_trainable_parameters",
    header="trainable params(M)",
    short="params\nM",
    scale=1e-6,
    get=lambda facts: None if facts.train is None else facts.train.parameters.trainable,
    show=trainable_text,
    brief=lambda facts: trainable_text(facts).split("(", 1)[0],
    note="trainable params(M): trainable parameters in millions and their part of all logical parameters",
)
ATTENTION = Column(
    key="attention",
    header="flash_attn",
    get=_train_figure("attention"),
    note="flash_attn: the attention implementation that really ran",
)
CHECKPOINTING = Column(
    key="gradient_checkpointing", header="gradient_checkpointing", get=_arg(lambda args: args.gradient_checkpointing)
)
HYPERS = Column(key="hypers", header="hypers", get=_arg(hypers))
GLOBAL_BATCH = Column(
    key="global_batch_size",
    header="global batch size",
    get=lambda facts: facts.train.global_batch_size or None if facts.train is not None else None,
)
MEMORY = Column(
    key="memory_peak_gib",
    header="memory",
    short="memory\nGiB",
    get=lambda facts: max(found.peaks_gib) if (found := memory_of(facts)) is not None else None,
    show=memory_text,
    unit=memory_mark,
    state=lambda facts: "OOM" if _train_state(facts) is JobState.OUT_OF_MEMORY else None,
    better="lower",
    peers=lambda facts: (_model(facts), found.source if (found := memory_of(facts)) is not None else None),
    measured=True,
    brief=memory_brief,
    note="memory: peak of the training per rank, GPU memory reserved by torch (GiB = 2^30 bytes)",
    legend=(
        (" x", "`x2`: on each of two ranks"),
        ("(host)", "`(host)`: peak resident set on a CPU"),
        ("(nvml)", "`(nvml)`: the GPU's used memory, seen from outside"),
        ("OOM", "`OOM`: out of GPU memory, which is a result"),
    ),
)
TRAIN_SPEED = Column(
    key="train_samples_per_second",
    header="train speed(samples/s)",
    short="train\nsamples/s",
    get=_train_figure("samples_per_second"),
    show=train_speed_text,
    brief=lambda facts: train_speed_text(facts).split("(", 1)[0],
    better="higher",
    peers=_same_train_hardware,
    measured=True,
    note=(
        "train speed: source samples of all epochs and ranks over the time of the optimizer steps, without evaluation "
        "and saving; redone steps count once"
    ),
)
TOKEN_SPEED = Column(
    key="train_tokens_per_second",
    header="tokens/s",
    decimals=1,
    get=_train_figure("tokens_per_second"),
    better="higher",
    peers=_same_train_hardware,
    measured=True,
    note="tokens/s: non-padding input tokens of all epochs and ranks over the same time",
)
MFU = Column(
    key="mfu",
    header="mfu(%)",
    decimals=1,
    scale=100.0,
    get=_train_figure("mfu"),
    measured=True,
    note="mfu: model FLOPs utilisation, where the GPU's peak is known",
)
INFER_SPEED = Column(
    key="infer_tokens_per_second",
    header="infer speed(tokens/s)",
    short="infer\ntokens/s",
    get=lambda facts: totals[0] / totals[1] if (totals := infer_totals(facts)) is not None else None,
    show=infer_speed_text,
    brief=lambda facts: infer_speed_text(facts).split("(", 1)[0],
    better="higher",
    peers=_same_eval_hardware,
    measured=True,
    note="infer speed: tokens generated during all evals over their time, prefill included",
)
TRAIN_LOSS = Column(
    key="train_loss",
    header="train_loss",
    short="train\nloss",
    decimals=4,
    get=_train_figure("train_loss"),
    better="lower",
    peers=_same_data,
    measured=True,
    note="train_loss: mean over all optimizer steps",
)
EVAL_LOSS = Column(
    key="eval_loss",
    header="eval_loss",
    short="eval\nloss",
    decimals=4,
    get=eval_loss,
    better="lower",
    peers=_same_data,
    measured=True,
    note="eval_loss: token-weighted cross-entropy on the validation split, of the best checkpoint",
)

DATA_ONLY = (
    Column(key="suite", header="suite", get=lambda facts: facts.view.suite),
    NAME,
    Column(key="base_experiment", header="base_experiment", get=lambda facts: facts.view.base_experiment),
    Column(key="cmd", header="cmd", get=lambda facts: facts.view.cmd),
    Column(key="state", header="state", get=lambda facts: facts.state.value),
    Column(key="cause", header="cause", get=_first_cause),
    MODEL,
    QUANTIZATION,
    DATASET,
    MIX_RATIO,
    TUNER,
    TUNER_PARAMS,
    TRAINABLE,
    Column(key="trainable_parameters_pct", header="", get=_trainable_share_pct),
    ATTENTION,
    CHECKPOINTING,
    Column(key="learning_rate", header="", get=_arg(lambda args: args.effective_learning_rate)),
    Column(key="num_epochs", header="", get=_train_figure("num_epochs")),
    Column(key="num_steps", header="", get=_train_figure("num_steps")),
    Column(key="seed", header="", get=_arg(lambda args: args.seed)),
    GLOBAL_BATCH,
    MEMORY,
    Column(
        key="memory_source",
        header="",
        get=lambda facts: found.source if (found := memory_of(facts)) is not None else None,
    ),
    Column(key="num_train_samples", header="", get=_train_figure("num_samples")),
    Column(key="num_train_tokens", header="", get=_train_figure("num_tokens")),
    Column(key="train_time_s", header="", get=_train_figure("train_time_s")),
    TRAIN_SPEED,
    TOKEN_SPEED,
    Column(key="steady_train_samples_per_second", header="", get=_train_figure("steady_samples_per_second")),
    Column(key="steady_train_tokens_per_second", header="", get=_train_figure("steady_tokens_per_second")),
    Column(key="train_tokens_per_second_per_device", header="", get=_train_figure("tokens_per_second_per_device")),
    Column(key="time_to_first_step_s", header="", get=_train_figure("time_to_first_step_s")),
    MFU,
    Column(
        key="infer_num_tokens",
        header="",
        get=lambda facts: totals[0] if (totals := infer_totals(facts)) is not None else None,
    ),
    Column(
        key="infer_time_s",
        header="",
        get=lambda facts: totals[1] if (totals := infer_totals(facts)) is not None else None,
    ),
    INFER_SPEED,
    TRAIN_LOSS,
    EVAL_LOSS,
    Column(key="host", header="", get=_from_record(lambda facts: host_name(facts.records[0]))),
    Column(key="gpus", header="", get=_from_record(lambda facts: ",".join(gpu_names(facts.records[0])) or None)),
    Column(key="hpcbench_version", header="", get=_from_record(lambda facts: facts.records[0].hpcbench_version)),
)
"""Every raw value, in the order of the CSV file."""
