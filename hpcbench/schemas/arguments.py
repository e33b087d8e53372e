"""The arguments of jobs: training (model, data, training, hub and tuner, in one flat `SftArgs`), evaluation, command.

In: plain values from a suite or a command line, where numbers, booleans and lists may be text. Out: frozen models.
`SftArgs.groups()` lists titles and names for help and reference. `config/aliases.py` resolves the names of later SWIFT
versions and of Hugging Face before values come here, so that messages name what was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hpcbench.schemas.tuners import SHORTHANDS, list_sft_types


class Arguments(BaseModel):
    """A frozen group of arguments; unknown names are refused, and docstrings of fields are their help."""

    # Before 2.10 pydantic warns of names that begin with model_, which model_type and model_id_or_path do.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    def differs_from_default(self, name: str) -> bool:
        """Return whether an argument is other than its default."""
        value: object = getattr(self, name)
        default: object = type(self).model_fields[name].default
        return value != default


def _split_words(value: object) -> object:
    """Return the list that `a,b` or `a b` is in ms-swift's scripts; leave lists alone."""
    if isinstance(value, str):
        return [word for word in value.replace(",", " ").split() if word]
    return value


def _read_integer(value: object) -> object:
    """Return the integer that a text stands for; leave all else alone."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


ReadsInteger = BeforeValidator(_read_integer)
"""For literals of numbers, which pydantic does not read from text."""
Words = Annotated[tuple[str, ...], BeforeValidator(_split_words)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Decay = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


Dtype = Literal["bf16", "fp16", "fp32"]
TORCH_DTYPES: Final[Mapping[Dtype, str]] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""torch's names."""


class ModelArgs(Arguments):
    """Which model, how its prompts are written, and how its weights are loaded."""

    model_type: str | None = None
    """Name in the model catalog, or a free label when `model_id_or_path` is given."""
    model_id_or_path: str | None = None
    """Hub id or local folder; overrides the catalog's. Alias: model."""
    template_type: str | None = None
    """Chat template by catalog name; None takes the tokenizer's own."""
    system: str | None = None
    """System prompt; None sends none and leaves the template's own default."""
    dtype: Dtype = "bf16"
    """Dtype of the weights when loaded; bf16 keeps no fp32 master copy."""
    use_flash_attn: bool | None = None
    """True asks for flash attention and takes what there is without it, False forbids it, None takes the best that is
    installed; the record says what ran."""
    attn_impl: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] | None = None
    """Attention by transformers' name: this one runs, or the job is refused; None leaves it to use_flash_attn."""
    trust_remote_code: bool = False
    """Whether Python code that comes with a model may run."""
    quantization_bit: Annotated[Literal[0, 4, 8], ReadsInteger] = 0
    """Bits per weight of the frozen base's linear layers (bitsandbytes; 4 is QLoRA, arXiv:2305.14314); 0 is `dtype`."""
    bnb_4bit_comp_dtype: Dtype | None = None
    """Dtype in which layers of 4 bits compute; None is `dtype`. This and the next two only with quantization_bit 4."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 16 values of a weight: nf4 suits normally distributed weights, fp4 is a float of 4 bits."""
    bnb_4bit_use_double_quant: bool = True
    """Whether the scales of the 4-bit blocks are quantised too (8 bits each)."""

    @model_validator(mode="after")
    def _needs_a_model(self) -> Self:
        if self.model_type is None and self.model_id_or_path is None:
            raise ValueError("no model: give model_type (catalog name) or model_id_or_path (hub id or folder)")
        return self

    @model_validator(mode="after")
    def _names_one_attention(self) -> Self:
        if self.attn_impl is not None and self.use_flash_attn not in {None, self.attn_impl.startswith("flash")}:
            flash = str(self.use_flash_attn).lower()
            raise ValueError(f"attn_impl {self.attn_impl} contradicts use_flash_attn {flash}: give one of them")
        return self

    @property
    def model_name(self) -> str:
        """Name for tables: model_type, or the last part of the path."""
        if self.model_type is not None:
            return self.model_type
        return (self.model_id_or_path or "").rstrip("/").rsplit("/", 1)[-1]


class DataArgs(Arguments):
    """Which datasets, how they are split and sampled, and how rows become sequences."""

    dataset: Words = ()
    """Training datasets: catalog names, hub ids, files (jsonl, json, csv, tsv, txt, parquet, arrow) or folders."""
    val_dataset: Words = ()
    """Validation datasets; when given, nothing is split off `dataset`."""
    dataset_split_seed: int = 42
    """Seed of the split of each dataset into training and validation rows."""
    dataset_test_ratio: Fraction = 0.01
    """Part of each dataset that becomes validation; at least one row unless 0."""
    train_dataset_sample: int = 20000
    """Rows drawn from the training set after the split; -1 takes all."""
    val_dataset_sample: int | None = None
    """Rows drawn from the validation set; None or -1 takes all."""
    train_dataset_mix_ratio: NonNegativeFloat = 0.0
    """Rows of `train_dataset_mix_ds` mixed in, as a multiple of the training rows."""
    train_dataset_mix_ds: Words = ("ms-bench",)
    """Datasets to mix in, named as in `dataset`; their rows are used for training only."""
    dataset_info: str | None = None
    """Registry of datasets (dataset_info.json, or its folder); None takes the one beside the suite."""
    max_length: PositiveInt = 2048
    """Longest sample in tokens; with packing the length of a pack."""
    truncation_strategy: Literal["truncation_left", "delete"] = "truncation_left"
    """Longer samples keep their last tokens (truncation_left) or are dropped (delete)."""
    check_dataset_strategy: Literal["none", "discard", "error", "warning"] = "none"
    """What happens to rows that cannot be trained on: discard and warning leave them out (warning logs each one), error
    and none end the job."""
    preprocess_num_proc: PositiveInt = 1
    """Processes that tokenize before training."""
    packing: bool = False
    """Put several samples into one sequence of at most max_length tokens, none of which sees another; exact with sdpa,
    eager and flash attention. batch_size then counts packs."""
    lazy_tokenize: bool = False
    """Tokenize training samples when they are needed instead of before training."""
    test_oom_error: bool = False
    """Train on the longest samples first and unshuffled, so that running out of memory shows at once."""
    use_loss_scale: bool = False
    """Weight the loss of agent dialogues by their parts, as `agent_template` says."""
    agent_template: str = "react"
    """How tool calls and results are written, by the name of the catalog's entry."""
    loss_on_all_rounds: bool = False
    """Train on every answer of a dialogue instead of the last one."""


class TrainingArgs(Arguments):
    """How long and how fast is trained, and what is written on the way."""

    seed: int = 42
    """Seed of everything random except the split; rank r uses seed + r for dropout, as in ms-swift."""
    num_train_epochs: PositiveFloat = 1.0
    """Passes over the training rows; max_steps overrides it."""
    max_steps: int = -1
    """Optimizer steps; 1 or more overrides num_train_epochs, -1 does not."""
    optim: str = "adamw_torch"
    """Optimizer, by its name in transformers' TrainingArguments."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate; None is 2e-5 for full (galore and lisa are full) and 1e-4 for every other method."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay, per unit of learning rate and optimizer step."""
    batch_size: PositiveInt = 1
    """Samples per rank and forward pass."""
    eval_batch_size: PositiveInt | None = None
    """Samples per rank in an evaluation; None is batch_size, and 1 for generating answers."""
    gradient_accumulation_steps: PositiveInt = 16
    """Forward passes per optimizer step; the global batch is batch_size x this x ddp samples."""
    max_grad_norm: NonNegativeFloat = 1.0
    """L2 norm that the gradient is clipped to; 0 never clips."""
    lr_scheduler_type: str = "cosine"
    """Learning rate schedule, by its name in transformers, for example linear or constant."""
    warmup_ratio: Fraction = 0.05
    """Part of all steps over which the learning rate rises."""
    predict_with_generate: bool = False
    """Also generate answers to the validation prompts at each evaluation and record their mean ROUGE-L."""
    max_new_tokens: PositiveInt = 1024
    """Longest generated answer in tokens; this and the next five only with predict_with_generate."""
    do_sample: bool = True
    """Sample answers; False takes the most likely token each time."""
    temperature: PositiveFloat = 0.9
    """Divides the logits before sampling; below 1 favours likely tokens."""
    top_k: NonNegativeInt = 20
    """Number of most likely tokens to sample from; 0 is all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Total probability of the most likely tokens to sample from."""
    repetition_penalty: PositiveFloat = 1.0
    """Divides the logits of tokens that already occurred; 1 changes nothing."""
    eval_steps: PositiveInt = 50
    """Optimizer steps between two evaluations on the validation rows; the last step is always evaluated."""
    save_steps: PositiveInt | None = None
    """Optimizer steps between two checkpoints; None is eval_steps."""
    save_strategy: Literal["steps", "no"] = "steps"
    """no keeps no checkpoint, so nothing can be evaluated afterwards."""
    save_total_limit: int = 2
    """2 keeps the best and the last checkpoint, -1 keeps all."""
    only_save_model: bool | None = None
    """Whether finished checkpoints hold weights only; None is True for full, False for lora."""
    logging_steps: PositiveInt = 5
    """Optimizer steps between two lines of the log."""
    dataloader_num_workers: NonNegativeInt = 1
    """Processes per rank that make batches; 0 makes them in the training process."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, slower."""
    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl"] | None = None
    """Backend of torch.distributed; None is nccl with GPUs and gloo without."""
    resume_from_checkpoint: str | None = None
    """Checkpoint folder to start from; interrupted runs resume by themselves."""
    neftune_noise_alpha: NonNegativeFloat | None = None
    """Noise on the embeddings in training (NEFTune, arXiv:2310.05914); None adds none."""


class HubArgs(Arguments):
    """Whether the weights go to a model hub, to which repository, and which of them."""

    push_to_hub: bool = False
    """Push the finished weights to a model hub once training has ended."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """Which hub to push to; modelscope needs the extra of that name."""
    hub_model_id: str | None = None
    """Repository to push to, `name` or `owner/name`; None is model_type-sft_type of the logged-in user."""
    hub_private_repo: bool = True
    """Whether a repository that is made for the push is private; one that exists stays as it is."""
    push_hub_strategy: Literal["end", "push_best", "push_last", "checkpoint", "all_checkpoints"] = "push_best"
    """Weights to push: the best, the last (push_last, end), the best with the last as last-checkpoint (checkpoint), or
    the best with every checkpoint that was kept (all_checkpoints)."""


if TYPE_CHECKING:
    SftType = str
else:
    # A new file in worker/tuners is a new choice, in messages, help and the JSON Schema alike.
    SftType = Literal[list_sft_types()]

LORA_ONLY: Final = (
    *("use_dora", "use_rslora", "lora_lr_ratio"),
    *("lora_bias_trainable", "lora_modules_to_save", "init_lora_weights"),
)
"""Arguments of lora that adalora, which takes the others of lora's, does not have."""


class TunerArgs(Arguments):
    """Which parameters are trained, and how."""

    sft_type: SftType = "lora"
    """Fine-tuning method; dora, rslora, lora+, qlora, galore and lisa are lora or full with their switch on."""
    tuner_backend: Literal["peft", "swift"] = "peft"
    """Accepted for SWIFT 2.x files; hpcbench always uses peft."""
    lora_target_modules: Words = ("DEFAULT",)
    """Module names; ALL is every linear layer but the head, DEFAULT the attention's query, key and value, EMBEDDING the
    input's embedding. A name that the model lacks is refused."""
    lora_rank: PositiveInt = 8
    """Rank of the adapter's two matrices."""
    lora_alpha: PositiveFloat = 32.0
    """The adapter's output is scaled by lora_alpha / lora_rank."""
    lora_dropout_p: Fraction = 0.0
    """Probability of dropout before the adapter."""
    lora_lr_ratio: PositiveFloat | None = None
    """Learning rate of B over that of A (LoRA+, arXiv:2402.12354); None trains plain lora."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(lora_rank) instead (rsLoRA, arXiv:2312.03732)."""
    use_dora: bool = False
    """Train magnitude and direction of the weights separately (DoRA, arXiv:2402.09353)."""
    lora_bias_trainable: Literal["none", "all", "lora_only"] = "none"
    """Biases that are trained and saved with the adapter: none, all of the model, or those of adapted layers. They and
    lora_modules_to_save are trained in the base's dtype, as full trains."""
    lora_modules_to_save: Words = ()
    """Modules trained in full beside the adapter and saved with it, by name, for example embed_tokens."""
    init_lora_weights: Literal["true", "false", "gaussian"] = "true"
    """How A is drawn: as in the authors' code or normally (gaussian), B zero; false draws B too, for tests."""
    adalora_target_r: PositiveInt = 8
    """Mean rank at the end; lora_alpha, lora_dropout_p and lora_target_modules count for adalora too."""
    adalora_init_r: PositiveInt = 12
    """Rank of every layer at the start."""
    adalora_tinit: NonNegativeInt = 0
    """Optimizer steps before ranks shrink."""
    adalora_tfinal: NonNegativeInt = 0
    """Optimizer steps at the end with fixed ranks."""
    adalora_deltaT: PositiveInt = 1  # noqa: N815  # ms-swift's name
    """Optimizer steps between two allocations of rank."""
    adalora_beta1: Decay = 0.85
    """Smoothing of the importance of a weight."""
    adalora_beta2: Decay = 0.85
    """Smoothing of the importance's uncertainty."""
    adalora_orth_reg_weight: NonNegativeFloat = 0.5
    """Weight of the orthogonality term in the training loss; eval_loss has none."""
    adapter_act: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    """Activation in the adapter's bottleneck."""
    adapter_length: PositiveInt = 128
    """Width of the adapter's bottleneck."""
    ia3_target_modules: Words = ("DEFAULT",)
    """Modules whose output is scaled; DEFAULT is the projections to key and value and the MLP's last."""
    ia3_feedforward_modules: Words = ()
    """Those of `ia3_target_modules` whose input is scaled instead; with DEFAULT the MLP's last."""
    llamapro_num_new_blocks: PositiveInt = 4
    """Decoder layers added to the model; they alone are trained."""
    llamapro_num_groups: PositiveInt | None = None
    """Places where they are added, evenly spread; None is one place for each."""
    lisa_activated_layers: NonNegativeInt = 0
    """Decoder layers that full trains at a time, redrawn again and again (LISA, arXiv:2403.17919); 0 is all."""
    lisa_step_interval: PositiveInt = 20
    """Optimizer steps between two draws."""
    use_galore: bool = False
    """Whether full keeps its optimizer state in low rank (GaLore, arXiv:2403.03507)."""
    galore_rank: PositiveInt = 128
    """Rank that gradients are projected to."""
    galore_target_modules: Words = ()
    """Modules whose gradients are projected; none is every linear layer but the head."""
    galore_update_proj_gap: PositiveInt = 50
    """Optimizer steps between two SVDs of a gradient."""
    galore_scale: PositiveFloat = 1.0
    """Factor on the updates of projected weights."""
    galore_proj_type: Literal["std", "reverse_std", "right", "left", "full"] = "std"
    """Side that is projected: std the longer one, reverse_std the shorter one, full both."""
    galore_per_parameter: bool = False
    """Free each gradient as soon as its weight is updated; same numbers, a lower peak."""
    galore_with_embedding: bool = False
    """Project the embedding's gradient too."""
    galore_quantization: bool = False
    """Keep the moments in 8 bits and make SVDs rarer where directions stay (Q-GaLore, arXiv:2407.08296)."""
    galore_proj_quant: bool = False
    """Keep the projections in `galore_proj_bits`; SVDs become rarer too."""
    galore_proj_bits: Annotated[Literal[4, 8], ReadsInteger] = 4
    """Bits of a projection's entries with galore_proj_quant."""
    galore_proj_group_size: Annotated[int, Field(ge=2, multiple_of=2)] = 256
    """Weights of a projection that share a scale."""
    galore_cos_threshold: Fraction = 0.4
    """Mean cosine between first singular vectors of neighbouring SVDs from which the gap between SVDs grows."""
    galore_gamma_proj: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    """Factor by which it grows."""
    galore_queue_size: PositiveInt = 5
    """Cosines in that mean."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out_shorthands(cls, values: Any) -> Any:
        """Turn `sft_type: dora` and its like into the method and its switch."""
        word = values.get("sft_type") if isinstance(values, dict) else None
        if not isinstance(word, str) or word not in SHORTHANDS:
            return values
        meant = SHORTHANDS[word]
        given = {key: value for key, value in values.items() if key != "sft_type" and value is not None}
        for key in meant.keys() & given.keys():
            if str(given[key]).strip().lower() in {"false", "0", "no", "off"}:
                raise ValueError(f"sft_type {word} contradicts {key}: {given[key]}")
        return {**meant, **given}

    @model_validator(mode="after")
    def _methods_fit_together(self) -> Self:
        contradiction = self._find_in_full() or self._find_in_adalora()
        if contradiction is not None:
            raise ValueError(contradiction)
        return self

    def _find_in_full(self) -> str | None:
        for name in ("galore_quantization", "galore_proj_quant"):
            if getattr(self, name) and not self.use_galore:
                return f"{name} is for galore: set use_galore: true"
        switches = {"use_galore": self.use_galore, "lisa_activated_layers": self.lisa_activated_layers > 0}
        for name in (name for name, is_on in switches.items() if is_on):
            if self.sft_type != "full":
                return f"{name} is for sft_type full, not {self.sft_type}"
        return "use_galore and lisa_activated_layers are two methods: choose one" if all(switches.values()) else None

    def _find_in_adalora(self) -> str | None:
        if self.sft_type != "adalora":
            return None
        if self.adalora_target_r >= self.adalora_init_r:
            return (
                f"adalora_init_r ({self.adalora_init_r}) must be larger than adalora_target_r "
                f"({self.adalora_target_r}): ranks only shrink"
            )
        changed = [name for name in LORA_ONLY if self.differs_from_default(name)]
        return f"{', '.join(changed)}: for sft_type lora, not adalora" if changed else None

    @property
    def tuner(self) -> str:
        """Name of the method's file: sft_type, or what trains `full` in its own way."""
        if self.use_galore:
            return "galore"
        return "lisa" if self.lisa_activated_layers else self.sft_type


GROUPS: Final[Mapping[str, type[Arguments]]] = {
    "Model": ModelArgs,
    "Data": DataArgs,
    "Training": TrainingArgs,
    "Hub": HubArgs,
    "Tuner": TunerArgs,
}
"""Title -> its arguments, in the order of help, JSON Schema and reference."""
QUANTIZABLE: Final = ("lora", "adalora", "ia3")
"""Values of `sft_type` that leave the base frozen in linear layers, which quantization_bit needs."""


# pydantic collects fields from the last base to the first: the first group stands last.
class SftArgs(TunerArgs, HubArgs, TrainingArgs, DataArgs, ModelArgs):
    """Arguments of `sft`, by ms-swift's names; evals use the model, template and length part of them."""

    @classmethod
    def groups(cls) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return each group's title and the names of its arguments, both in the order of help and reference."""
        return tuple((title, tuple(group.model_fields)) for title, group in GROUPS.items())

    @model_validator(mode="after")
    def _groups_fit_together(self) -> Self:
        contradiction = self._find_in_galore() or self._find_in_quantization() or self._find_in_lora()
        if contradiction is not None:
            raise ValueError(contradiction)
        return self

    def _find_in_galore(self) -> str | None:
        if self.use_galore and self.optim not in {"adamw_torch", "adamw_torch_fused"}:
            return f"use_galore has an AdamW of its own and cannot use optim {self.optim}"
        return None

    def _find_in_quantization(self) -> str | None:
        if self.quantization_bit and self.sft_type not in QUANTIZABLE:
            return (
                f"quantization_bit freezes the base and cannot go with sft_type {self.sft_type}: "
                f"take {', '.join(QUANTIZABLE)}, or quantization_bit: 0"
            )
        if self.quantization_bit and self.lora_bias_trainable != "none":
            return "quantised layers keep their biases frozen: lora_bias_trainable: none, or quantization_bit: 0"
        return None

    def _find_in_lora(self) -> str | None:
        trained = [name for name in ("lora_bias_trainable", "lora_modules_to_save") if self.differs_from_default(name)]
        if trained and self.dtype == "fp16":
            # The scaler of fp16 needs fp32 weights, and these have the base's dtype.
            return f"{trained[0]} trains weights in the base's dtype, which fp16 cannot be: set dtype: bf16 or fp32"
        return None

    @property
    def effective_learning_rate(self) -> float:
        """Learning rate with ms-swift's defaults filled in."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-5 if self.sft_type == "full" else 1e-4


EVAL_LOSS_ONLY = "eval_loss"
"""Name of the eval job of a baseline that asks for its eval_loss and for no dataset."""


class EvalArgs(Arguments):
    """How one eval dataset is evaluated by lm-eval."""

    num_fewshot: NonNegativeInt | None = None
    """Solved examples before each question; None takes the eval task's own number."""
    limit: PositiveInt | None = None
    """First N documents per eval task; the record is marked debug and the report says so."""
    batch_size: PositiveInt = 8
    """Prompts per forward pass."""
    max_length: PositiveInt | None = None
    """Longest prompt plus answer in tokens; None is what the model allows."""
    apply_chat_template: bool | None = None
    """Whether prompts are chats; None applies the template where the tokenizer (or template_type) has one."""
    fewshot_as_multiturn: bool = False
    """Write solved examples as earlier rounds of the chat."""
    gen_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to generate, for example {max_gen_toks: 64}."""
    include_path: tuple[str, ...] = ()
    """Folders with local task files."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint of the training is evaluated; None is best where there is a validation split, else last."""
    merge_lora: bool = False
    """Merge the adapter into the base before evaluating; faster generation, same answers up to rounding."""
    eval_loss: bool = False
    """For baseline rows: also compute eval_loss on the validation split."""
    seed: int = 1234
    """Seed of all that is drawn, such as solved examples."""
    log_samples: bool = True
    """Keep every document's prompt and answer beside the record."""
    command: tuple[str, ...] = ()
    """Program to run instead of lm-eval; it writes {"metric": number} to the file named by HPCBENCH_METRICS."""


class CommandArgs(Arguments):
    """Any program as an experiment's job (`cmd: command`)."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """Program and arguments; never seen by a shell. Run in the job's folder, once per node."""
    cwd: str | None = None
    """Folder to run in; None is the attempt's folder."""
    output_model: str | None = None
    """Model folder that the program leaves behind, for evals; relative to cwd."""
