"""What jobs measured, by kind of job: the part of a record that its worker writes, as `metrics.json`.

In: the worker's figures. Out: validated values, which the record holds. Unknown figures are null with a reason in
`unknown`; NaN and Infinity never get in. Units are in the names; GiB is 2^30.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

GIB = 2**30

STRICT = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

Finite = Annotated[float, Field(allow_inf_nan=False)]

Count = Annotated[int, Field(ge=0)]


class RankMemory(BaseModel):
    """Peak memory of one rank since the model was loaded."""

    model_config = STRICT

    rank: Count
    reserved_gib: Finite | None = None
    """torch.cuda.max_memory_reserved summed over the rank's GPUs, null on CPU."""
    reserved_gib_by_gpu: tuple[Finite, ...] = ()
    """That of each GPU, where a rank has several."""
    allocated_gib: Finite | None = None
    host_rss_gib: Finite | None = None
    """Peak resident set size of the process."""


class Parameters(BaseModel):
    """Parameter counts over logical (unpacked) shapes."""

    model_config = STRICT

    trainable: Count
    total: Count
    """Base plus adapter."""
    trained_at_once: Count | None = None
    """Of the trainable ones those that one step trains (lisa draws layers); null where that is all of them."""


class TokenStats(BaseModel):
    """Lengths of the encoded training samples, as ms-swift prints them."""

    model_config = STRICT

    mean: Finite
    std: Finite
    min: Count
    max: Count
    num_samples: Count
    num_truncated: Count = 0
    num_dropped: Count = 0
    num_images: Count | None = None
    """Of the training samples of an image model; None for a text model."""
    num_image_tokens: Count | None = None
    """Tokens that stand for parts of these images, among all others that the lengths count."""


class Rewards(BaseModel):
    """What a training from preferences measured of its answers' rewards, all as means.

    A reward is beta times the log-ratio of the trained model and its reference (dpo, kto), or beta times the answer's
    log-probability (orpo, cpo, simpo): rewards of different losses or betas do not compare.
    """

    model_config = STRICT

    reference: str
    """Which model answers were compared with."""
    rewards_chosen: Finite | None = None
    """Of the chosen or good answers of the validation rows, at the best checkpoint; so too the next three."""
    rewards_rejected: Finite | None = None
    reward_margin: Finite | None = None
    """Chosen minus rejected."""
    reward_accuracy: Finite | None = None
    """Part of the pairs whose chosen answer has the higher reward, 0 to 1; null for judged answers."""
    train_rewards_chosen: Finite | None = None
    """Of the training rows, over the last tenth of the steps; so too the next three."""
    train_rewards_rejected: Finite | None = None
    train_reward_margin: Finite | None = None
    train_reward_accuracy: Finite | None = None
    first_reward_margin: Finite | None = None
    """Of the training rows, over the first tenth of the steps."""


class TrainMetrics(BaseModel):
    """What a training job measured, over all its attempts."""

    model_config = STRICT

    kind: Literal["train"] = "train"
    parameters: Parameters
    memory: tuple[RankMemory, ...] = ()
    train_loss: Finite | None = None
    """Mean over all optimizer steps of all attempts of the step's token-mean loss."""
    eval_loss: Finite | None = None
    """Token-weighted plain cross-entropy on the validation split, of the best checkpoint."""
    last_eval_loss: Finite | None = None
    rewards: Rewards | None = None
    """Only of trainings from preferences, whose train_loss and eval_loss are means of their loss."""
    rouge_l: Finite | None = None
    """Mean ROUGE-L (0 to 1) of generated answers, of the best checkpoint; only with predict_with_generate."""
    predictions: str | None = None
    """File with the generated answers of the best checkpoint, JSON lines; relative to the job's folder."""
    first_eval_loss: Finite | None = None
    """Before the first step, when asked for."""
    num_steps: Count
    num_epochs: Finite | None = None
    num_train_rows: Count = 0
    """Rows of the training set."""
    num_val_rows: Count = 0
    num_samples: Count
    """Source samples trained on, all epochs and ranks, redone steps once."""
    num_tokens: Count | None
    """Non-padding input tokens, all epochs and ranks, redone steps once; null where a framework did not count them."""
    train_time_s: Finite | None = None
    """Time of the optimizer steps without evaluation and saving, redone steps once."""
    samples_per_second: Finite | None = None
    tokens_per_second: Finite | None = None
    tokens_per_second_per_device: Finite | None = None
    steady_samples_per_second: Finite | None = None
    """Without the warm-up steps (`num_warmup_steps_excluded`)."""
    steady_tokens_per_second: Finite | None = None
    num_warmup_steps_excluded: Count = 0
    step_time_median_s: Finite | None = None
    step_time_p10_s: Finite | None = None
    step_time_p90_s: Finite | None = None
    time_to_first_step_s: Finite | None = None
    """From process start to the end of the first optimizer step of the last attempt."""
    mfu: Finite | None = None
    """Model FLOPs utilisation, 0 to 1; null where the device's peak is unknown."""
    flops_per_token: Finite | None = None
    best_checkpoint: str | None = None
    """Relative to the job's folder."""
    best_step: Count | None = None
    last_checkpoint: str | None = None
    last_step: Count | None = None
    resumed_from_steps: tuple[int, ...] = ()
    """Step at which each later attempt took over."""
    resumed_from: str | None = None
    """Checkpoint folder of another training that this one went on from; all figures are of the steps after it."""
    resumed_from_step: Count | None = None
    """That checkpoint's step; null without one."""
    tokens: TokenStats | None = None
    diverged_at_step: Count | None = None
    """First step after which no loss was finite any more; such a training has failed."""
    dtypes: dict[str, str] = Field(default_factory=dict)
    """Dtypes of weights, adapter, optimizer state and autocast."""
    attention: str | None = None
    """Attention implementation that really ran."""
    took_effect: dict[str, str] = Field(default_factory=dict)
    """Arguments for speed, and what ran of each: graphs of torch.compile, kernels of Liger, what was offloaded."""
    template: str | None = None
    """Chat template of the prompts: whose it is, a hash of its text, and the date that it writes, if it writes one."""
    target_modules: tuple[str, ...] = ()
    """Names of the modules that got an adapter, as the arguments came out for this model."""
    global_batch_size: Count = 0
    pushed_to: str | None = None
    """Address of the hub's repository that holds the weights; only with push_to_hub."""
    unknown: dict[str, str] = Field(default_factory=dict)
    """Reason for each figure that is null."""
    deviations: dict[str, str] = Field(default_factory=dict)
    """What ran otherwise than the request says, by argument; the report warns of it."""

    def choose_checkpoint(self, wanted: Literal["best", "last"] | None) -> tuple[Literal["best", "last"], str | None]:
        """Return which checkpoint an eval takes, and its path below the job's folder, None where it was not kept.

        Where none is asked for, it is the best one if a validation split gave one, else the last. One that is asked
        for is never replaced by the other.
        """
        choice = wanted or ("last" if self.best_checkpoint is None else "best")
        return choice, self.best_checkpoint if choice == "best" else self.last_checkpoint


class TaskResult(BaseModel):
    """One eval task's or group's result."""

    model_config = STRICT

    metrics: dict[str, Finite | str | None]
    """lm-eval's keys verbatim, for example `exact_match,strict-match` and its `_stderr`."""
    num_samples: Count
    """Documents evaluated."""
    num_samples_available: Count | None = None
    num_fewshot: Count | None = None
    version: str | None = None
    task_hash: str | None = None
    higher_is_better: dict[str, bool] = Field(default_factory=dict)
    primary_metric: str | None = None
    """Key of the metric that the task lists first, None for groups without a score and in records before 0.3."""
    num_prompts_cut: Count = 0
    """Documents whose prompt lost its beginning because it did not fit into the context."""
    prompt_limit_tokens: Count | None = None
    """What such prompts were cut to; the smallest where they differ, as the room for an answer does."""


class InferSpeed(BaseModel):
    """Generation speed, measured during the eval."""

    model_config = STRICT

    num_tokens: Count
    """Generated tokens without padding."""
    time_s: Finite
    tokens_per_second: Finite
    """num_tokens over time_s, prefill included, as SWIFT 2.x counts."""
    num_prompt_tokens: Count = 0
    prefill_tokens_per_second: Finite | None = None
    decode_tokens_per_second: Finite | None = None
    batch_size: Count = 1


class EvalMetrics(BaseModel):
    """What an eval job measured."""

    model_config = STRICT

    kind: Literal["eval"] = "eval"
    dataset: str
    """Name in the suite."""
    primary_metric: str | None = None
    """Key in the headline task's metrics that the report shows."""
    primary_task: str
    tasks: dict[str, TaskResult]
    infer: InferSpeed | None = None
    eval_loss: Finite | None = None
    """Only when `eval_args.eval_loss` asked for it."""
    num_val_rows: Count | None = None
    memory: tuple[RankMemory, ...] = ()
    parameters: Parameters | None = None
    checkpoint: str | None = None
    """Absolute folder of the evaluated checkpoint; null for a baseline."""
    checkpoint_choice: Literal["best", "last", "baseline", "output_model"] = "baseline"
    chat_template_applied: bool | None = None
    eval_time_s: Finite | None = None
    batch_size: Count | None = None
    """Prompts per forward pass of each rank: what `batch_size: auto` was settled to, or what was asked for."""
    num_ranks: Count = 1
    """Processes that shared the documents."""
    lm_eval_version: str | None = None
    dtypes: dict[str, str] = Field(default_factory=dict)
    attention: str | None = None
    template: str | None = None
    """As a training's; null where the prompts are lm-eval's bare text."""
    debug: bool = False
    """True when `limit` cut the documents: not a result to publish."""
    mean_over_documents: bool = False
    """True where lm-eval defines no score for the group, and the one here is the mean over the documents of its
    tasks."""
    notices: tuple[str, ...] = ()
    """What a reader of the scores has to know, one sentence each."""
    unknown: dict[str, str] = Field(default_factory=dict)
    deviations: dict[str, str] = Field(default_factory=dict)
    """What ran otherwise than the request says, by argument; the report warns of it."""


class CommandMetrics(BaseModel):
    """What a `cmd: command` job reported through HPCBENCH_METRICS, if anything."""

    model_config = STRICT

    kind: Literal["command"] = "command"
    values: dict[str, Finite | str | bool | None] = Field(default_factory=dict)
    """By name; what was nested has names with dots, lists by index."""
    unknown: dict[str, str] = Field(default_factory=dict)
    """Reason for each figure that is null or cut."""
    output_model: str | None = None
    """Absolute folder of the model that the program left behind."""


class ExportMetrics(BaseModel):
    """What an export job made and measured."""

    model_config = STRICT

    kind: Literal["export"] = "export"
    output_model: str
    """Absolute folder of the model that it made."""
    source: str = ""
    """Absolute folder of the checkpoint that it was made of; a folder or hub id where it was made of the model."""
    checkpoint_choice: Literal["best", "last", "baseline", "output_model", "ckpt_dir"] = "baseline"
    merged: bool = False
    """Whether an adapter was merged into its base."""
    quant_method: str | None = None
    """awq, gptq or bnb; null where weights kept their dtype, as the next ones are."""
    quant_bits: Count | None = None
    group_size: int | None = None
    """Weights that share a scale; -1 is a whole row."""
    calibration_datasets: tuple[str, ...] = ()
    num_calibration_samples: Count | None = None
    num_calibration_tokens: Count | None = None
    calibration_loss: Finite | None = None
    """Mean cross-entropy of the quantised model on a few of these rows: that it loads and computes, not how good it
    is."""
    parameters: Parameters | None = None
    size_gib: Finite | None = None
    """All files of the folder."""
    bits_per_weight: Finite | None = None
    """Size of the weights' files over all parameters, embeddings, scales and norms included."""
    merge_time_s: Finite | None = None
    quantize_time_s: Finite | None = None
    """Loading, calibrating, quantising and saving."""
    export_time_s: Finite | None = None
    """All stages of all attempts."""
    resumed_stages: tuple[str, ...] = ()
    """Stages that an earlier attempt had finished: merge."""
    memory: tuple[RankMemory, ...] = ()
    dtypes: dict[str, str] = Field(default_factory=dict)
    """Dtype of the weights, and how they are quantised."""
    notices: tuple[str, ...] = ()
    """What a reader of scores of this model has to know, one sentence each."""
    unknown: dict[str, str] = Field(default_factory=dict)
    """Reason for each figure that is null."""
    deviations: dict[str, str] = Field(default_factory=dict)
    """What ran otherwise than the request says, by argument; the report warns of it."""


class Latency(BaseModel):
    """Percentiles of a time over all rows."""

    model_config = STRICT

    p50_s: Finite
    p90_s: Finite
    p99_s: Finite


class InferMetrics(BaseModel):
    """What an infer job answered and measured, over all its attempts."""

    model_config = STRICT

    kind: Literal["infer"] = "infer"
    num_rows: Count
    """Prompts that were answered."""
    num_labels: Count = 0
    """Of them those whose row has an answer to compare with."""
    num_prompts_cut: Count = 0
    """Prompts that lost their beginning to max_length, or to the model's table of positions."""
    num_rows_left_out: Count = 0
    """Rows that `truncation_strategy: delete` or `check_dataset_strategy` left out."""
    num_ended_by_length: Count = 0
    """Answers that max_new_tokens ended."""
    infer: InferSpeed | None = None
    """A batch counts from its start to the last token of its slowest row."""
    latency: Latency | None = None
    """From the start of a row's batch to its last token."""
    first_token_latency: Latency | None = None
    rouge_l: Finite | None = None
    """Mean ROUGE-L (0 to 1) against the rows' own answers."""
    exact_match: Finite | None = None
    """Part of the answers (0 to 1) that are the row's own but for white space around them."""
    results: str | None = None
    """File with prompts and answers, JSON lines; relative to the job's folder."""
    merged_model: str | None = None
    """Folder of the merged model; relative to the job's folder."""
    checkpoint: str | None = None
    """Absolute folder of the checkpoint that answered; null for the model itself."""
    checkpoint_choice: str = "baseline"
    """best or last of a training, ckpt_dir, or baseline for the model itself."""
    backend: str
    """What generated, with its version."""
    memory: tuple[RankMemory, ...] = ()
    parameters: Parameters | None = None
    dtypes: dict[str, str] = Field(default_factory=dict)
    attention: str | None = None
    template: str | None = None
    """As a training's."""
    infer_time_s: Finite | None = None
    """Of the last attempt, loading not counted."""
    unknown: dict[str, str] = Field(default_factory=dict)
    """Reason for each figure that is null."""
    deviations: dict[str, str] = Field(default_factory=dict)
    """What ran otherwise than the request says, by argument; the report warns of it."""


Metrics = Annotated[
    TrainMetrics | EvalMetrics | CommandMetrics | ExportMetrics | InferMetrics, Field(discriminator="kind")
]
