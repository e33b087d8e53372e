"""Arguments of the fine-tuning methods, and which of them exclude each other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from hpcbench.catalog.peft_methods import peft_methods
from hpcbench.schemas.arguments.base import (
    Arguments,
    Decay,
    Dtype,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ReadsInteger,
    Words,
)
from hpcbench.schemas.tuners import (
    FIELDS_AS_ARGUMENTS,
    OWN_PLACES,
    PEFT,
    REQUIRED_FIELDS,
    SHORTHANDS,
    file_of,
    find_method,
    list_sft_types,
    prefixes_of,
    read_peft_config,
)

if TYPE_CHECKING:
    SftType = str
else:
    # A new file in worker/tuners is a new choice, in messages, help and the JSON Schema alike.
    SftType = Literal[list_sft_types()]

INIT_WORDS: Final = ("true", "false", "gaussian", "pissa", "olora", "orthogonal", "mica")
"""Values of init_lora_weights, beside `pissa_niter_N`."""
REFUSED_INITS: Final = {
    **dict.fromkeys(
        ("eva", "corda", "lora-ga", "lora_ga"),
        "needs a pass over data before training, whose result is in no checkpoint",
    ),
    "loftq": "quantizes a base that is loaded unquantized, and trains on what that leaves",
}
"""Values of init_lora_weights that peft has and hpcbench does not honour -> why."""

LORA_ONLY: Final = (
    *("use_dora", "use_rslora", "use_qalora", "qalora_group_size", "lora_lr_ratio"),
    *("lora_bias_trainable", "lora_modules_to_save", "init_lora_weights"),
)
"""Arguments of lora that adalora, which takes the others of lora's, does not have."""


class TunerArgs(Arguments):
    """Which parameters are trained, and how."""

    sft_type: SftType = "lora"
    """Fine-tuning method; dora, rslora, lora+, qlora, qalora, galore and lisa are lora or full with their switch on,
    peft takes the method from peft_config."""
    peft_config: dict[str, Any] = Field(default={})
    """Fields of peft's configuration of the method, by peft's names; for sft_type peft with peft_type. They may be
    written as arguments, the method's name before them or not: vera_rank."""
    tuner_backend: Literal["peft", "swift", "unsloth"] = "peft"
    """What trains lora or full: peft (swift is the same), or unsloth with layers and kernels of its own, on one GPU and
    in the environment of that name of the cluster profile."""
    lora_target_modules: Words = ("DEFAULT",)
    """Module names; ALL is every linear layer but the head, DEFAULT the attention's query, key and value, EMBEDDING the
    input's embedding. A name that the model lacks is refused. For every method of peft that goes into linear layers."""
    target_regex: str | None = None
    """Regular expression of the full names of modules, in place of lora_target_modules."""
    target_parameters: Words = ()
    """Names of weights that are in no linear layer, such as those of experts, for lora beside its modules."""
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
    use_qalora: bool = False
    """Let neighboring inputs share an entry of A, on a base of GPTQ's weights (QA-LoRA, arXiv:2309.14717)."""
    qalora_group_size: PositiveInt = 16
    """Inputs that share one: the group size of the base's weights."""
    use_dora: bool = False
    """Train magnitude and direction of the weights separately (DoRA, arXiv:2402.09353)."""
    lora_bias_trainable: Literal["none", "all", "lora_only"] = "none"
    """Biases that are trained and saved with the adapter: none, all of the model, or those of adapted layers. They and
    lora_modules_to_save are trained in the base's dtype, as full trains."""
    lora_modules_to_save: Words = ()
    """Modules trained in full beside the adapter and saved with it, by name, for example embed_tokens."""
    init_lora_weights: str = "true"
    """How A and B begin: A as in the authors' code (true) or normally (gaussian), B zero; from the base's weights,
    which then lack that part (pissa, pissa_niter_N, olora); orthogonal, mica; false draws B too, for tests."""
    lora_dtype: Dtype | None = None
    """Dtype of the adapter's weights; None is fp32, whatever the base's is."""
    use_swift_lora: bool = False
    """Accepted for SWIFT's files: its own lora computes what peft's does."""
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
    freeze_parameters: Words = ()
    """Beginnings of the names of weights that full leaves as they are; a number is freeze_parameters_ratio."""
    freeze_parameters_regex: str | None = None
    """Regular expression found in the names of weights that full leaves as they are."""
    freeze_parameters_ratio: Fraction = 0.0
    """Part of all weights that full leaves as they are, from the embedding upwards."""
    trainable_parameters: Words = ()
    """Beginnings of the names of weights that full trains all the same."""
    trainable_parameters_regex: str | None = None
    """Regular expression found in the names of weights that full trains all the same."""
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

    @model_validator(mode="before")
    @classmethod
    def _read_method(cls, values: Any) -> Any:
        """Give the fields of peft's configuration their types, and a ratio its argument."""
        if not isinstance(values, dict):
            return values
        found = dict(values)
        frozen = found.get("freeze_parameters")
        words = [frozen] if isinstance(frozen, str | float | int) else list(frozen or ())
        if len(words) == 1 and _is_number(words[0]):
            found["freeze_parameters"] = ()
            found["freeze_parameters_ratio"] = words[0]
        method, config = found.get("sft_type"), found.get("peft_config")
        if isinstance(method, str) and method in peft_methods() and isinstance(config or {}, dict):
            found["peft_config"] = read_peft_config(method, config or {})
        return found

    @model_validator(mode="after")
    def _methods_fit_together(self) -> Self:
        contradiction = self._find_in_full() or self._find_in_adalora() or self._find_in_peft() or self._find_in_words()
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

    def _find_in_peft(self) -> str | None:
        if self.sft_type == PEFT:
            return "sft_type peft needs the method's name: set peft_config: {peft_type: ...}"
        for name, example in REQUIRED_FIELDS.get(self.sft_type, {}).items():
            if name not in self.peft_config:
                return f"sft_type {self.sft_type} needs {name}: set {prefixes_of(self.sft_type)[0]}{name}: {example}"
        if self.target_regex is not None and self.differs_from_default("lora_target_modules"):
            return "target_regex and lora_target_modules name the same modules: keep one of them"
        return None

    def _find_in_words(self) -> str | None:
        word = self.init_lora_weights
        if word not in INIT_WORDS and re.fullmatch(r"pissa_niter_[1-9][0-9]?", word) is None:
            why = REFUSED_INITS.get(word, "")
            return f"init_lora_weights {word} {why or 'is unknown'}: take {', '.join(INIT_WORDS)} or pissa_niter_N"
        for name in ("target_regex", "freeze_parameters_regex", "trainable_parameters_regex"):
            try:
                re.compile(getattr(self, name) or "")
            except re.error as error:
                return f"{name} is not a regular expression, {error}: write a backslash before its special characters"
        others = [name for name in ("lora_dropout_p", "use_dora") if self.differs_from_default(name)]
        if self.target_parameters and others:
            return f"target_parameters are trained without {others[0]}: leave it out"
        if self.use_qalora and self.use_dora:
            return "use_qalora and use_dora are two methods: choose one"
        if self.lora_dtype == "fp16":
            return "lora_dtype fp16 cannot be trained, its gradients need fp32 weights: take bf16 or fp32"
        return None

    @property
    def tuner(self) -> str:
        """Name of the method's file: sft_type, peft where it has none, or what trains `full` in its own way."""
        if self.use_galore:
            return "galore"
        return "lisa" if self.lisa_activated_layers else file_of(self.sft_type)

    @property
    def method(self) -> str:
        """Name of the method, for people."""
        return self.sft_type if self.is_peft_method else self.tuner

    @property
    def is_peft_method(self) -> bool:
        """Whether it is a method of peft that takes its fields from `peft_config` alone."""
        return find_method(self.sft_type) is not None

    @property
    def takes_quantized(self) -> bool:
        """Whether the method leaves the base frozen in linear layers, which may be quantized."""
        return self.sft_type in peft_methods() and peft_methods()[self.sft_type].takes_quantized

    @property
    def merges(self) -> bool:
        """Whether what the method trains beside the base can be merged into its weights."""
        return self.sft_type in peft_methods() and peft_methods()[self.sft_type].merges

    @property
    def adds_tokens(self) -> bool:
        """Whether the method trains tokens that stand before each sample."""
        method = find_method(self.sft_type)
        return method is not None and method.adds_tokens

    @property
    def takes_targets(self) -> bool:
        """Whether the method goes into linear layers, which lora_target_modules or target_regex name."""
        method = find_method(self.sft_type)
        is_lora = self.tuner in {"lora", "adalora"}
        return is_lora or (method is not None and self.sft_type not in OWN_PLACES and not method.adds_tokens)

    @property
    def saves_modules(self) -> bool:
        """Whether whole modules can be trained beside what the method trains."""
        fields = FIELDS_AS_ARGUMENTS.get(self.tuner, {})
        method = find_method(self.sft_type)
        return "modules_to_save" in (fields if method is None else method.fields) and not self.adds_tokens


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True
