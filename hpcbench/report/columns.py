"""The columns of a report, one definition each: raw values (CSV and JSON, the unit in the key) and cell texts."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import cast

from hpcbench.report import infer_columns
from hpcbench.report.cells import (
    dataset_label,
    eval_loss,
    global_batch_text,
    hypers,
    infer_totals,
    model_form,
    trainable_text,
    tuner_params,
)
from hpcbench.report.column import Column, Raw
from hpcbench.report.facts import Facts, cause_text, gpu_names, hardware, host_name, state_text, unfinished_eval
from hpcbench.report.memory import memory_brief, memory_mark, memory_of, memory_text
from hpcbench.schemas.arguments import EVAL_LOSS_ONLY, SftArgs
from hpcbench.schemas.metrics import Rewards
from hpcbench.schemas.states import JobState


def _model(facts: Facts) -> str | None:
    return None if facts.args is None else facts.args.model_name


def arg(read: Callable[[SftArgs], Raw]) -> Callable[[Facts], Raw]:
    """Return a reader of one argument of a training; a row without a training has none."""
    return lambda facts: None if facts.train_args is None else read(facts.train_args)


def _dataset(facts: Facts) -> str | None:
    """Return the datasets that were trained on, whose prompts were answered, or that an export was calibrated on."""
    if facts.view.cmd == "export":
        return None if facts.export is None else dataset_label(facts.export.calibration_datasets) or None
    if facts.infer is not None and facts.args is not None:
        return dataset_label(facts.args.val_dataset or facts.args.dataset) or None
    return None if facts.train_args is None else dataset_label(facts.train_args.dataset) or None


def _train_state(facts: Facts) -> JobState | None:
    return None if facts.view.main is None else facts.view.main.state


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
        args.loss_on_all_rounds,
        args.plain_text,
        *((args.rlhf_type, args.losses, args.effective_beta) if args.rlhf_type is not None else ()),
    )


def _same_training_loss(facts: Facts) -> Hashable:
    return _same_data(facts), None if facts.args is None else facts.args.use_loss_scale


def _same_generation(facts: Facts) -> Hashable:
    args = facts.args
    return _same_data(facts), None if args is None else (args.max_new_tokens, args.do_sample)


def _same_train_hardware(facts: Facts) -> Hashable:
    return _model(facts), None if facts.view.main is None else hardware(facts.view.main)


def _same_eval_hardware(facts: Facts) -> Hashable:
    if facts.infer is not None and facts.view.main is not None:
        return _model(facts), (hardware(facts.view.main),)
    return _model(facts), tuple(hardware(found.job) for found in facts.evals.values() if found.metrics is not None)[:1]


def _train_figure(name: str) -> Callable[[Facts], Raw]:
    return lambda facts: None if facts.train is None else cast("Raw", getattr(facts.train, name))


def _reward(name: str) -> Callable[[Facts], Raw]:
    """Return a reader of a figure of a training from preferences."""
    return lambda facts: None if (found := _rewards_of(facts)) is None else cast("Raw", getattr(found, name))


def _rewards_of(facts: Facts) -> Rewards | None:
    return None if facts.train is None else facts.train.rewards


def _infer_total(index: int) -> Callable[[Facts], Raw]:
    """Return a reader of the generated tokens (0) or their seconds (1)."""
    return lambda facts: None if (totals := infer_totals(facts)) is None else totals[index]


def _memory_source(facts: Facts) -> str | None:
    return None if (memory := memory_of(facts)) is None else memory.source


def _from_record(read: Callable[[Facts], str | None]) -> Callable[[Facts], Raw]:
    return lambda facts: None if facts.main_record is None else read(facts)


def _trainable_share_pct(facts: Facts) -> Raw:
    parameters = None if facts.train is None else facts.train.parameters
    return None if parameters is None or not parameters.total else 100 * parameters.trainable / parameters.total


def _first_cause(facts: Facts) -> Raw:
    train = facts.view.main
    if train is not None and train.state is not JobState.COMPLETED:
        return cause_text(train) or None
    texts = (cause_text(job) for job in facts.view.evals if job.state is not JobState.COMPLETED)
    return next((text for text in texts if text), None)


NAME = Column(key="experiment", header="experiment", get=lambda facts: facts.view.name)
STATE = Column(key="state", header="state", get=lambda facts: facts.state.value, show=state_text)
REPEAT = Column(key="repeat", header="repeat", get=lambda facts: facts.repeat)
MODEL = Column(key="model_type", header="model", get=_model)
QUANTIZATION = Column(
    key="quantization",
    header="quantization",
    get=model_form,
)
DATASET = Column(key="dataset", header="dataset", get=_dataset)
MIX_RATIO = Column(
    key="train_dataset_mix_ratio",
    header="train_dataset_mix_ratio",
    get=arg(lambda args: args.train_dataset_mix_ratio),
    show=lambda facts: str(facts.train_args.train_dataset_mix_ratio) if facts.train_args is not None else "",
)
TUNER = Column(key="tuner", header="tuner", get=arg(lambda args: args.sft_type))
TUNER_PARAMS = Column(
    key="tuner_params",
    header="tuner settings",
    get=arg(lambda args: tuner_params(args) or None),
    legend=(
        ("packing=", "`packing`: several samples share a sequence of at most max_length tokens, none sees another"),
        ("lazy_tokenize=", "`lazy_tokenize`: samples are tokenized in training, and train speed includes that"),
        ("use_loss_scale=", "`use_loss_scale`: parts of an answer weigh more, so train_loss is another quantity"),
        ("plain_text=", "`plain_text`: texts are learnt as they are, every token of them, without questions"),
        (
            "rlhf_type=",
            "`rlhf_type`: learns from preferences, so both losses are means of that one, not cross-entropies",
        ),
        ("loss_on_all_rounds=", "`loss_on_all_rounds`: all answers of a dialogue are learnt, not the last alone"),
    ),
)
TRAINABLE = Column(
    key="num_trainable_parameters",
    header="trainable parameters (M)",
    short="params\nM",
    scale=1e-6,
    get=lambda facts: None if facts.train is None else facts.train.parameters.trainable,
    show=trainable_text,
    brief=lambda facts: trainable_text(facts).split(" ", 1)[0],
    note="trainable parameters (M): trainable parameters in millions and their part of all logical parameters",
    legend=(("at a time", "`at a time`: those that one step trains, which are others again every few steps"),),
)
ATTENTION = Column(
    key="attention",
    header="attention",
    get=_train_figure("attention"),
    note="attention: the attention implementation that really ran",
)
CHECKPOINTING = Column(
    key="gradient_checkpointing", header="gradient_checkpointing", get=arg(lambda args: args.gradient_checkpointing)
)
HYPERS = Column(key="hypers", header="learning rate, length", get=arg(hypers))
GLOBAL_BATCH = Column(
    key="global_batch_size",
    header="global batch size",
    get=lambda facts: facts.train.global_batch_size or None if facts.train is not None else None,
    show=global_batch_text,
    note="global batch size: samples per optimizer step, all ranks and accumulation counted",
    legend=(("pack", "`packs`: with packing, sequences of several samples each"),),
)
MEMORY = Column(
    key="memory_peak_gib",
    header="memory (GiB)",
    short="memory\nGiB",
    get=lambda facts: max(found.peaks_gib) if (found := memory_of(facts)) is not None else None,
    show=memory_text,
    unit=memory_mark,
    state=lambda facts: "OOM" if _train_state(facts) is JobState.OUT_OF_MEMORY else None,
    better="lower",
    peers=lambda facts: (_model(facts), _memory_source(facts)),
    measured=True,
    brief=memory_brief,
    note="memory: peak of the training per rank, GPU memory reserved by torch (GiB = 2^30 bytes)",
    legend=(
        (" x", "`x2`: on each of two ranks"),
        ("+", "`+`: on each of several GPUs or ranks"),
        ("(host)", "`(host)`: peak resident set on a CPU"),
        ("(nvml)", "`(nvml)`: the GPU's used memory, seen from outside"),
        ("OOM", "`OOM`: out of GPU memory, which is a result"),
    ),
)
TRAIN_SPEED = Column(
    key="train_samples_per_second",
    header="train speed (samples/s)",
    short="train\nsamples/s",
    get=_train_figure("samples_per_second"),
    better="higher",
    peers=_same_train_hardware,
    measured=True,
    note=(
        "train speed (samples/s): source samples of all epochs and ranks over the time of the optimizer steps, without "
        "evaluation and saving; redone steps count once"
    ),
)
TOKEN_SPEED = Column(
    key="train_tokens_per_second",
    header="train speed (tokens/s)",
    decimals=1,
    get=_train_figure("tokens_per_second"),
    better="higher",
    peers=_same_train_hardware,
    measured=True,
    note="train speed (tokens/s): non-padding input tokens of all epochs and ranks over the same time",
)
MFU = Column(
    key="mfu",
    header="MFU (%)",
    decimals=1,
    scale=100.0,
    get=_train_figure("mfu"),
    measured=True,
    note="MFU: model FLOPs utilisation, where the GPU's peak is known",
)
INFER_SPEED = Column(
    key="infer_tokens_per_second",
    header="infer speed (tokens/s)",
    short="infer\ntokens/s",
    get=lambda facts: totals[0] / totals[1] if (totals := infer_totals(facts)) is not None else None,
    better="higher",
    peers=_same_eval_hardware,
    measured=True,
    note="infer speed: tokens generated during all evals, or in answer to prompts, over their time, prefill included",
)
TRAIN_LOSS = Column(
    key="train_loss",
    header="train loss",
    short="train\nloss",
    decimals=4,
    get=_train_figure("train_loss"),
    better="lower",
    peers=_same_training_loss,
    measured=True,
    note="train loss: mean over all optimizer steps",
)
EVAL_LOSS = Column(
    key="eval_loss",
    header="eval loss",
    short="eval\nloss",
    decimals=4,
    get=eval_loss,
    state=lambda facts: unfinished_eval(facts, EVAL_LOSS_ONLY),
    better="lower",
    peers=_same_data,
    measured=True,
    note=(
        "eval loss: token-weighted cross-entropy on the validation split, of the best checkpoint; of the model "
        "as it is in an untrained row"
    ),
)
ROUGE_L = Column(
    key="rouge_l",
    header="ROUGE-L",
    decimals=3,
    get=lambda facts: _train_figure("rouge_l")(facts) if facts.infer is None else facts.infer.rouge_l,
    better="higher",
    peers=_same_generation,
    measured=True,
    note=(
        "ROUGE-L: mean (0 to 1) of generated answers to the validation prompts, of the best checkpoint "
        "(the one of the lowest eval loss); of a row that answered prompts, of those answers"
    ),
)

REWARDS_CHOSEN = Column(
    key="rewards_chosen",
    header="rewards chosen",
    short="rewards\nchosen",
    decimals=3,
    get=_reward("rewards_chosen"),
    measured=True,
)
REWARDS_REJECTED = Column(
    key="rewards_rejected",
    header="rewards rejected",
    short="rewards\nrejected",
    decimals=3,
    get=_reward("rewards_rejected"),
    measured=True,
)
REWARD_MARGIN = Column(
    key="reward_margin",
    header="reward margin",
    short="reward\nmargin",
    decimals=3,
    get=_reward("reward_margin"),
    better="higher",
    peers=_same_data,
    measured=True,
    note=(
        "reward margin: reward of the chosen answers minus that of the rejected ones, on the validation split, of the "
        "best checkpoint; a reward is beta times the log-ratio to the reference model (dpo, kto), or beta times the "
        "log-probability (orpo, cpo, simpo)"
    ),
)
REWARD_ACCURACY = Column(
    key="reward_accuracy",
    header="reward accuracy",
    short="reward\naccuracy",
    decimals=3,
    get=_reward("reward_accuracy"),
    better="higher",
    peers=_same_data,
    measured=True,
    note="reward accuracy: part of the validation pairs whose chosen answer has the higher reward",
)
TRAIN_REWARD_MARGIN = Column(
    key="train_reward_margin",
    header="train reward margin",
    short="train\nmargin",
    decimals=3,
    get=_reward("train_reward_margin"),
    better="higher",
    peers=_same_training_loss,
    measured=True,
    note="train reward margin: the same on the training rows, over the last tenth of the steps",
)


def _took_effect(facts: Facts) -> str | None:
    """Return what ran of the arguments for speed, or None where there is none."""
    ran = {} if facts.train is None else facts.train.took_effect
    return "; ".join(f"{name}: {ran[name]}" for name in sorted(ran)) or None


DATA_ONLY = (
    Column(key="suite", header="suite", get=lambda facts: facts.view.suite),
    NAME,
    Column(key="base_experiment", header="base_experiment", get=lambda facts: facts.view.base_experiment),
    REPEAT,
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
    Column(key="trainable_parameters_pct", get=_trainable_share_pct),
    Column(
        key="num_parameters_trained_at_once",
        get=lambda facts: None if facts.train is None else facts.train.parameters.trained_at_once,
    ),
    ATTENTION,
    Column(key="took_effect", get=_took_effect),
    Column(key="template", get=_train_figure("template")),
    Column(
        key="target_modules",
        get=lambda facts: None if facts.train is None else ",".join(facts.train.target_modules) or None,
    ),
    CHECKPOINTING,
    Column(key="learning_rate", get=arg(lambda args: args.effective_learning_rate)),
    Column(key="num_epochs", get=_train_figure("num_epochs")),
    Column(key="num_steps", get=_train_figure("num_steps")),
    Column(key="resumed_from", get=_train_figure("resumed_from")),
    Column(key="resumed_from_step", get=_train_figure("resumed_from_step")),
    Column(key="seed", get=arg(lambda args: args.seed)),
    GLOBAL_BATCH,
    MEMORY,
    Column(key="memory_source", get=_memory_source),
    Column(key="num_train_samples", get=_train_figure("num_samples")),
    Column(key="num_train_tokens", get=_train_figure("num_tokens")),
    Column(key="train_time_s", get=_train_figure("train_time_s")),
    TRAIN_SPEED,
    TOKEN_SPEED,
    Column(key="steady_train_samples_per_second", get=_train_figure("steady_samples_per_second")),
    Column(key="steady_train_tokens_per_second", get=_train_figure("steady_tokens_per_second")),
    Column(key="train_tokens_per_second_per_device", get=_train_figure("tokens_per_second_per_device")),
    Column(key="time_to_first_step_s", get=_train_figure("time_to_first_step_s")),
    MFU,
    Column(key="infer_num_tokens", get=_infer_total(0)),
    Column(key="infer_time_s", get=_infer_total(1)),
    INFER_SPEED,
    TRAIN_LOSS,
    EVAL_LOSS,
    ROUGE_L,
    *infer_columns.DATA_ONLY,
    Column(key="rlhf_type", get=arg(lambda args: args.rlhf_type)),
    REWARDS_CHOSEN,
    REWARDS_REJECTED,
    REWARD_MARGIN,
    REWARD_ACCURACY,
    TRAIN_REWARD_MARGIN,
    Column(key="train_reward_accuracy", get=_reward("train_reward_accuracy")),
    Column(key="first_reward_margin", get=_reward("first_reward_margin")),
    Column(key="reference_model", get=_reward("reference")),
    Column(key="host", get=_from_record(lambda facts: host_name(facts.records[0]))),
    Column(key="gpus", get=_from_record(lambda facts: ",".join(gpu_names(facts.records[0])) or None)),
    Column(key="hpcbench_version", get=_from_record(lambda facts: facts.records[0].hpcbench_version)),
)
"""Every raw value, in the order of the CSV file."""
